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
        det: determinant of the covariance, pixels^4; no gradient passes through it.
    """

    mean_x: jax.Array
    mean_y: jax.Array
    conic_a: jax.Array
    conic_b: jax.Array
    conic_c: jax.Array
    opacity: jax.Array
    depth: jax.Array
    det: jax.Array


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


def _rows(scale: jax.Array, slopes: jax.Array, factor: jax.Array) -> jax.Array:
    """Square root (S, C, 2, 3, N) of the covariance on the screen.

    Args:
        scale: focal length / z, both ways, (S, C, 2, N).
        slopes: x/z and y/z of the Jacobian, (S, C, 2, N).
        factor: square root of the covariance in the camera's axes, (S, C, 3, 3, N).
    """
    return scale[:, :, :, None] * (factor[:, :, :2] - slopes[:, :, :, None] * factor[:, :, 2:])


def _cross(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cross product of vectors along the axis before the last."""
    one_2, one_3 = jnp.roll(one, -1, axis=-2), jnp.roll(one, -2, axis=-2)
    return one_2 * jnp.roll(other, -2, axis=-2) - one_3 * jnp.roll(other, -1, axis=-2)


def _products(rows: jax.Array, eps2d: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the covariance R R' + `eps2d` with rows R (S, C, 2, 3, N): diagonal and determinants.

    The determinant of R R' is the square of the rows' cross product. Spelled out, xx yy - xy xy, it
    would be rounding errors alone for a long, thin splat.

    Returns:
        xx and yy (S, C, 2, N), the determinant of R R', that of the covariance, (S, C, N) each.
    """
    squares = jnp.sum(rows * rows, axis=3)
    cross = _cross(rows[:, :, 0], rows[:, :, 1])
    det_0 = jnp.sum(cross * cross, axis=2)
    return squares + eps2d, det_0, det_0 + eps2d * (jnp.sum(squares, axis=2) + eps2d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _conic(rows: jax.Array, eps2d: float) -> tuple[jax.Array, ...]:
    """Inverse of R R' + `eps2d` for rows R (S, C, 2, 3, N): conic a, b, c, then the share of its
    determinant that is there without `eps2d`; each (S, C, N). Zero determinants count as one.

    A gradient G of the inverse Q is -2 Q G (Q R) for R. For a long, thin splat Q R multiplied out
    would be rounding errors; from cross products it is not. So differentiation does not see inside.
    """
    return _conic_forward(rows, eps2d)[0]


def _conic_forward(rows, eps2d):
    squares, det_0, det = _products(rows, eps2d)
    inverse_det = 1.0 / jnp.where(det > 0, det, 1.0)
    product = jnp.sum(rows[:, :, 0] * rows[:, :, 1], axis=2)
    conic = (squares[:, :, 1] * inverse_det, -product * inverse_det, squares[:, :, 0] * inverse_det)
    return (*conic, det_0 * inverse_det), (rows, conic, inverse_det)


def _conic_backward(eps2d, residuals, cotangents):
    rows, (a, b, c), inverse_det = residuals
    g_a, g_b, g_c, g_ratio = (cotangent[:, :, None] for cotangent in cotangents)
    a, b, c, inverse_det = (array[:, :, None] for array in (a, b, c, inverse_det))
    one, two = rows[:, :, 0], rows[:, :, 1]
    normal = _cross(one, two)
    own_1, own_2 = _cross(two, normal) * inverse_det, _cross(normal, one) * inverse_det
    inner_1, inner_2 = own_1 + eps2d * inverse_det * one, own_2 + eps2d * inverse_det * two
    mixed_1, mixed_2 = g_a * inner_1 + 0.5 * g_b * inner_2, 0.5 * g_b * inner_1 + g_c * inner_2
    ratio = jnp.sum(normal * normal, axis=2, keepdims=True) * inverse_det
    grad_1 = -2 * (a * mixed_1 + b * mixed_2) + 2 * g_ratio * (own_1 - ratio * inner_1)
    grad_2 = -2 * (b * mixed_1 + c * mixed_2) + 2 * g_ratio * (own_2 - ratio * inner_2)
    return (jnp.stack([grad_1, grad_2], axis=2),)


_conic.defvjp(_conic_forward, _conic_backward)


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
    squares, _, det = _products(_rows(*jax.lax.stop_gradient(parts)), options.eps2d)
    has_area = (det > 0) & jnp.isfinite(det)
    det = jnp.where(has_area, det, 1.0)
    largest = jnp.maximum(jnp.max(squares, axis=2), 1.0)
    has_area &= largest / det < constants.MAX_CONIC
    # Numbers that overflow would turn gradients of zero into NaN: such splats become points.
    masks = (has_area[:, :, None], has_area[:, :, None], has_area[:, :, None, None])
    parts = (jnp.where(mask, part, 0.0) for mask, part in zip(masks, parts, strict=True))
    a, b, c, ratio = _conic(_rows(*parts), options.eps2d)
    opacity = jnp.broadcast_to(opacities[:, None], in_depth.shape)
    if options.mode == "antialiased":
        # The square root's slope at 0 is infinite: below the floor the factor is a constant.
        above = ratio > options.min_compensation**2
        root = jnp.sqrt(jnp.where(above, ratio, 1.0))
        opacity = opacity * jnp.where(above, root, options.min_compensation)

    # Everything that decides what is drawn is a constant for differentiation.
    extent = splat_extent(jax.lax.stop_gradient(opacity))
    radius_x = jnp.ceil(extent * jnp.sqrt(squares[:, :, 0]))
    radius_y = jnp.ceil(extent * jnp.sqrt(squares[:, :, 1]))
    visible = in_depth & has_area & (opacity >= constants.MIN_ALPHA)
    visible &= (radius_x > options.radius_clip) | (radius_y > options.radius_clip)
    mean_x, mean_y = centres[:, :, 0], centres[:, :, 1]
    visible &= (mean_x + radius_x > 0) & (mean_x - radius_x < config.width)
    visible &= (mean_y + radius_y > 0) & (mean_y - radius_y < config.height)
    projected = Projected(
        mean_x=mean_x,
        mean_y=mean_y,
        conic_a=a,
        conic_b=b,
        conic_c=c,
        opacity=opacity,
        depth=z[:, :, 0],
        det=det,
    )
    return projected, visible


def splat_extent(opacity: jax.Array) -> jax.Array:
    """Standard deviations at which alpha falls to MIN_ALPHA, at most MAX_EXTENT; 0 below it."""
    log_ratio = jnp.log(jnp.maximum(opacity, constants.MIN_ALPHA) / constants.MIN_ALPHA)
    return jnp.minimum(constants.MAX_EXTENT, jnp.sqrt(2.0 * jnp.maximum(log_ratio, 0.0)))
