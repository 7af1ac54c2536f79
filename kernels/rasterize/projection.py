"""Projection of 3D Gaussians to screen-space ellipses (EWA splatting), in plain JAX.

Structure of arrays throughout: small matrices are spelled out component by component, because a
batch of 3x3 products is slow on every XLA backend and this fuses into a few loops.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import constants
from kernels.types import RasterizeConfig


class Projected(NamedTuple):
    """Screen-space splats, each field (S, C, N).

    Attributes:
        mean_x, mean_y: centre, pixels.
        conic_a, conic_b, conic_c: inverse covariance (a b; b c), 1 / pixels squared.
        opacity: opacity, times the antialiasing factor in that mode.
        depth: camera z, world units.
    """

    mean_x: jax.Array
    mean_y: jax.Array
    conic_a: jax.Array
    conic_b: jax.Array
    conic_c: jax.Array
    opacity: jax.Array
    depth: jax.Array


def _rotation(quats: jax.Array) -> list[list[jax.Array]]:
    """Rotation matrix entries of wxyz quaternions (..., 4), normalised inside; zero is identity."""
    squared = jnp.sum(quats * quats, axis=-1)
    is_zero = squared < constants.MIN_QUAT_NORM**2
    inverse = jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared))
    inverse = jnp.where(is_zero, 0.0, inverse)
    w, x, y, z = (quats[..., i] * inverse for i in range(4))
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def finite_mask(*gaussian_arrays: jax.Array) -> jax.Array:
    """True where all numbers of a splat are finite; arrays (L, N) or (L, N, k), L may differ."""
    mask = None
    for array in gaussian_arrays:
        finite = jnp.isfinite(array)
        finite = finite if array.ndim == 2 else jnp.all(finite, axis=-1)
        mask = finite if mask is None else mask & finite
    return mask


def project(
    means: jax.Array,
    quats: jax.Array,
    scales: jax.Array,
    opacities: jax.Array,
    viewmats: jax.Array,
    intrinsics: jax.Array,
    config: RasterizeConfig,
) -> tuple[Projected, jax.Array]:
    """Projects S scenes of N Gaussians into C cameras each.

    Differentiable in every array. Gradients of dropped splats are exactly zero. The Jacobian's
    clamp passes no gradient to x/z outside its limits (it goes to z and to the intrinsics).

    Args:
        means: (S, N, 3) world units.
        quats: (S, N, 4) wxyz.
        scales: (S, N, 3) standard deviations, world units.
        opacities: (S, N) in [0, 1].
        viewmats: (S, C, 4, 4) world to camera, OpenCV axes.
        intrinsics: (S, C, 3, 3) pixels. Skew entries act on the centre only, as in gsplat.
        config: static configuration.

    Returns:
        The screen-space splats and a mask (S, C, N) of those that can touch a pixel.
    """
    options = config.options
    finite = finite_mask(means, quats, scales, opacities)
    means = jnp.where(finite[..., None], means, 0.0)
    quats = jnp.where(finite[..., None], quats, 0.0)
    scales = jnp.where(finite[..., None], scales, 0.0)
    opacities = jnp.where(finite, opacities, 0.0)

    view = [[viewmats[..., i, j, None] for j in range(4)] for i in range(3)]  # each (S, C, 1)
    mean = [means[:, None, :, i] for i in range(3)]  # each (S, 1, N)
    x, y, z = (
        view[i][0] * mean[0] + view[i][1] * mean[1] + view[i][2] * mean[2] + view[i][3]
        for i in range(3)
    )
    in_depth = finite[:, None] & (z >= options.near) & (z <= options.far)
    x, y = jnp.where(in_depth, x, 0.0), jnp.where(in_depth, y, 0.0)
    z = jnp.where(in_depth, z, 1.0)

    k = [[intrinsics[..., i, j, None] for j in range(3)] for i in range(2)]
    inverse_z = 1.0 / z
    ratio_x, ratio_y = x * inverse_z, y * inverse_z
    mean_x = k[0][0] * ratio_x + k[0][1] * ratio_y + k[0][2]
    mean_y = k[1][0] * ratio_x + k[1][1] * ratio_y + k[1][2]

    rotation = _rotation(quats)
    factor = [  # camera rotation @ splat rotation @ diag(scales): a square root of the covariance
        [
            sum(view[i][m] * rotation[m][j][:, None] for m in range(3)) * scales[:, None, :, j]
            for j in range(3)
        ]
        for i in range(3)
    ]
    fx, fy, cx, cy = k[0][0], k[1][1], k[0][2], k[1][2]
    margin_x = constants.JACOBIAN_MARGIN * 0.5 * config.width / fx
    margin_y = constants.JACOBIAN_MARGIN * 0.5 * config.height / fy
    clamped_x = jnp.clip(ratio_x, -(cx / fx + margin_x), (config.width - cx) / fx + margin_x)
    clamped_y = jnp.clip(ratio_y, -(cy / fy + margin_y), (config.height - cy) / fy + margin_y)
    j_x, j_y = fx * inverse_z, fy * inverse_z
    row_x = [j_x * (factor[0][j] - clamped_x * factor[2][j]) for j in range(3)]
    row_y = [j_y * (factor[1][j] - clamped_y * factor[2][j]) for j in range(3)]
    cov_xx = row_x[0] ** 2 + row_x[1] ** 2 + row_x[2] ** 2
    cov_yy = row_y[0] ** 2 + row_y[1] ** 2 + row_y[2] ** 2
    cov_xy = row_x[0] * row_y[0] + row_x[1] * row_y[1] + row_x[2] * row_y[2]

    blurred_xx, blurred_yy = cov_xx + options.eps2d, cov_yy + options.eps2d
    det = blurred_xx * blurred_yy - cov_xy * cov_xy
    has_area = (det > 0) & jnp.isfinite(det)
    inverse_det = 1.0 / jnp.where(has_area, det, 1.0)
    opacity = jnp.broadcast_to(opacities[:, None], z.shape)
    if options.mode == "antialiased":
        # The square root's slope at 0 is infinite: below the floor the factor is a constant.
        ratio = (cov_xx * cov_yy - cov_xy * cov_xy) * inverse_det
        above = ratio > options.min_compensation**2
        root = jnp.sqrt(jnp.where(above, ratio, 1.0))
        opacity = opacity * jnp.where(above, root, options.min_compensation)

    # Everything that decides what is drawn is a constant for differentiation.
    extent = splat_extent(jax.lax.stop_gradient(opacity))
    radius_x = jnp.ceil(extent * jnp.sqrt(jax.lax.stop_gradient(blurred_xx)))
    radius_y = jnp.ceil(extent * jnp.sqrt(jax.lax.stop_gradient(blurred_yy)))
    visible = in_depth & has_area & (opacity >= constants.MIN_ALPHA)
    visible &= (radius_x > options.radius_clip) | (radius_y > options.radius_clip)
    visible &= (mean_x + radius_x > 0) & (mean_x - radius_x < config.width)
    visible &= (mean_y + radius_y > 0) & (mean_y - radius_y < config.height)
    projected = Projected(
        mean_x=mean_x,
        mean_y=mean_y,
        conic_a=blurred_yy * inverse_det,
        conic_b=-cov_xy * inverse_det,
        conic_c=blurred_xx * inverse_det,
        opacity=opacity,
        depth=z,
    )
    return projected, visible


def splat_extent(opacity: jax.Array) -> jax.Array:
    """Standard deviations at which alpha falls to MIN_ALPHA, at most MAX_EXTENT; 0 below it."""
    log_ratio = jnp.log(jnp.maximum(opacity, constants.MIN_ALPHA) / constants.MIN_ALPHA)
    return jnp.minimum(constants.MAX_EXTENT, jnp.sqrt(2.0 * jnp.maximum(log_ratio, 0.0)))
