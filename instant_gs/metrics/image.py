"""How far an image is from the truth: PSNR, SSIM, errors over regions."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.losses import photometric, region

# SSIM's window and constants: Wang et al. 2004, section III.C, for a range of 1.
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# A mean squared error below it counts as it: PSNR ends at 100 dB instead of at infinity.
SMALLEST_MSE = 1e-10


def psnr(prediction, target):
    """Peak signal-to-noise ratio.

    Args:
        prediction: (…, H, W, C) in [0, 1].
        target: (…, H, W, C) in [0, 1].

    Returns:
        (…) decibels, at most 100; higher is better.

    Raises:
        ValueError: The shapes differ.
    """
    photometric.check_images(prediction, target)
    mse = jnp.mean(jnp.square(jnp.asarray(prediction) - jnp.asarray(target)), (-3, -2, -1))
    return -10 * jnp.log10(jnp.maximum(mse, SMALLEST_MSE))


def ssim(prediction, target):
    """Structural similarity, the mean over channels and pixels.

    As in the reference's evaluation: an 11x11 Gaussian window of sigma 1.5, images padded with
    zeros, biased variances.

    Args:
        prediction: (…, H, W, C) in [0, 1].
        target: (…, H, W, C) in [0, 1].

    Returns:
        (…) in [-1, 1]; 1 for equal images, higher is better.

    Raises:
        ValueError: The shapes differ.
    """
    return ssim_map(prediction, target).mean((-3, -2, -1))


def ssim_map(prediction, target):
    """SSIM of every pixel and channel, (…, H, W, C); see ``ssim``."""
    photometric.check_images(prediction, target)
    x, y = jnp.asarray(prediction, jnp.float32), jnp.asarray(target, jnp.float32)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return likeness * (2 * covariance + C2) / (variance_x + variance_y + C2)


def region_error(prediction, target, regions, labels):
    """Mean absolute error over the pixels of some regions.

    Args:
        prediction: (…, H, W, C) in [0, 1].
        target: (…, H, W, C) in [0, 1].
        regions: (…, H, W) integer labels of the target, indices into ``data.format.REGIONS``.
        labels: Labels that count.

    Returns:
        (…) in [0, 1]; NaN for an image that has none of the regions: it has no such error, and
        a zero would flatter the average.

    Raises:
        ValueError: The shapes differ.
    """
    error = region.region_l1(prediction, target, regions, labels)
    empty = region.region_mask(regions, labels).sum((-2, -1)) == 0
    return jnp.where(empty, jnp.nan, error)


def _blur(image):
    """Gaussian window over (…, H, W, C), padded with zeros."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA**2))
    kernel = jnp.asarray(weights / weights.sum(), jnp.float32)
    shape = image.shape
    rows = jnp.moveaxis(image, -1, -3).reshape(-1, 1, *shape[-3:-1])
    for window in (kernel.reshape(1, 1, -1, 1), kernel.reshape(1, 1, 1, -1)):
        rows = jax.lax.conv_general_dilated(rows, window, (1, 1), "SAME")
    return jnp.moveaxis(rows.reshape(*shape[:-3], shape[-1], *shape[-3:-1]), -3, -1)
