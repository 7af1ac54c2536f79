"""Projection of 3D Gaussians to screen-space ellipses (EWA splatting), in plain JAX.

The splat axis is last everywhere, behind those of small matrices: a batch of 3x3 products is slow
on every XLA backend, a few products of (3, 3) with (3, 3 N) are not. Working with whole matrices
rather than their entries keeps the program small: its gradient was half of the time to compile.
"""

import functools
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


def _rotations(quats: jax.Array) -> jax.Array:
    """Rotation matrices (S, 3, 3, N) of wxyz quaternions (S, N, 4); zero is the identity."""
    squared = jnp.sum(quats * quats, axis=-1, keepdims=True)
    is_zero = squared < constants.MIN_QUAT_NORM**2
    inverse = jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared))
    unit = jnp.swapaxes(quats * jnp.where(is_zero, 0.0, inverse), -1, -2)  # (S, 4, N)
    w, x, y, z = (unit[:, i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=1) for row in rows], axis=1)


def finite_mask(*gaussian_arrays: jax.Array) -> jax.Array:
    """True where all numbers of a splat are finite; arrays (L, N) or (L, N, k), L may differ."""
    mask = None
    for array in gaussian_arrays:
        finite = jnp.isfinite(array)
        finite = finite if array.ndim == 2 else jnp.all(finite, axis=-1)
        mask = finite if mask is None else mask & finite
    return mask


def _slope_limits(
    focal: jax.Array, centre: jax.Array, size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest x/z or y/z of the Jacobian; without a focal length there is no limit."""
    is_zero = jnp.abs(focal) < constants.MIN_FOCAL
    focal = jnp.where(is_zero, 1.0, focal)
    margin = constants.JACOBIAN_MARGIN * 0.5 * size / focal
    low, high = -(centre / focal + margin), (size - centre) / focal + margin
    return jnp.where(is_zero, -jnp.inf, low), jnp.where(is_zero, jnp.inf, high)


def _covariance(
    scale: jax.Array, slopes: jax.Array, factor: jax.Array, eps2d: float
) -> tuple[jax.Array, ...]:
    """Covariance xx, yy, xy on the screen and its determinant with `eps2d`, each (S, C, N).

    Args:
        scale: focal length / z, both ways, (S, C, 2, N).
        slopes: x/z and y/z of the Jacobian, (S, C, 2, N).
        factor: square root of the covariance in the camera's axes, (S, C, 3, 3, N).
        eps2d: the option, pixels squared.
    """
    rows = scale[:, :, :, None] * (factor[:, :, :2] - slopes[:, :, :, None] * factor[:, :, 2:])
    xx, yy = (jnp.sum(rows[:, :, i] ** 2, axis=2) for i in range(2))
    xy = jnp.sum(rows[:, :, 0] * rows[:, :, 1], axis=2)
    return xx, yy, xy, (xx + eps2d) * (yy + eps2d) - xy * xy


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

    product = functools.partial(jnp.einsum, precision="highest")
    turn = viewmats[..., :3, :3]
    points = product("scij,snj->scin", turn, means) + viewmats[..., :3, 3, None]
    depth = points[:, :, 2]
    in_depth = finite[:, None] & jnp.all(jnp.isfinite(points), axis=2)
    in_depth &= (depth >= options.near) & (depth <= options.far)
    z = jnp.where(in_depth, depth, 1.0)[:, :, None]
    slopes = jnp.where(in_depth[:, :, None], points[:, :, :2], 0.0) / z  # x / z and y / z
    homogeneous = jnp.concatenate([slopes, jnp.ones_like(z)], axis=2)
    centres = product("scij,scjn->scin", intrinsics[..., :2, :], homogeneous)

    # camera rotation @ splat rotation @ diag(scales): a square root of the covariance.
    axes = _rotations(quats) * jnp.swapaxes(scales, -1, -2)[:, None]
    factor = product("scik,skjn->scijn", turn, axes)
    focal = jnp.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], axis=-1)[..., None]
    size = jnp.array([config.width, config.height], focal.dtype).reshape(1, 1, 2, 1)
    centre = intrinsics[..., :2, 2, None]
    clamped = jnp.clip(slopes, *_slope_limits(focal, centre, size))
    parts = (focal / z, clamped, factor)
    *_, det = _covariance(*jax.lax.stop_gradient(parts), options.eps2d)
    has_area = (det > 0) & jnp.isfinite(det)
    # Numbers that overflow would turn gradients of zero into NaN: such splats become points.
    masks = (has_area[:, :, None], has_area[:, :, None], has_area[:, :, None, None])
    parts = (jnp.where(mask, part, 0.0) for mask, part in zip(masks, parts, strict=True))
    cov_xx, cov_yy, cov_xy, det = _covariance(*parts, options.eps2d)
    blurred_xx, blurred_yy = cov_xx + options.eps2d, cov_yy + options.eps2d
    inverse_det = 1.0 / jnp.where(has_area, det, 1.0)
    opacity = jnp.broadcast_to(opacities[:, None], in_depth.shape)
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
    mean_x, mean_y = centres[:, :, 0], centres[:, :, 1]
    visible &= (mean_x + radius_x > 0) & (mean_x - radius_x < config.width)
    visible &= (mean_y + radius_y > 0) & (mean_y - radius_y < config.height)
    projected = Projected(
        mean_x=mean_x,
        mean_y=mean_y,
        conic_a=blurred_yy * inverse_det,
        conic_b=-cov_xy * inverse_det,
        conic_c=blurred_xx * inverse_det,
        opacity=opacity,
        depth=z[:, :, 0],
    )
    return projected, visible


def splat_extent(opacity: jax.Array) -> jax.Array:
    """Standard deviations at which alpha falls to MIN_ALPHA, at most MAX_EXTENT; 0 below it."""
    log_ratio = jnp.log(jnp.maximum(opacity, constants.MIN_ALPHA) / constants.MIN_ALPHA)
    return jnp.minimum(constants.MAX_EXTENT, jnp.sqrt(2.0 * jnp.maximum(log_ratio, 0.0)))
