"""Metrics: pure functions over images in [0, 1], and two networks that look at faces.

`image` (PSNR, SSIM, region errors) needs nothing but jax; LPIPS is `losses.lpips`, the training
loss itself. `face` and `identity` load networks from packages on first use and run on the CPU.
"""
