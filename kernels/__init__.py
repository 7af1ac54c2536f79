"""Accelerator operations in JAX: the differentiable Gaussian rasterizer.

A library of its own: it depends on jax and numpy, and on triton where there is an NVIDIA GPU.
"""

from kernels.rasterize.api import propose_capacity, rasterize
from kernels.rasterize.sharding import rasterize_sharded
from kernels.types import RasterizeOptions, RasterizeOutput, RasterizeStats

__all__ = [
    "RasterizeOptions",
    "RasterizeOutput",
    "RasterizeStats",
    "propose_capacity",
    "rasterize",
    "rasterize_sharded",
]
