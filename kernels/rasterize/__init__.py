"""The Gaussian rasterizer: one public function, `api.rasterize`, and its backends."""
