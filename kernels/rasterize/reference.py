"""The oracle: every pixel against every Gaussian, plain autodiff, any float width.

Follows the numerical contract line by line, in matrix form, and shares no code with the tiled
backends. Memory is pixels x splats: for tests and small scenes only.
"""

import jax
import jax.numpy as jnp

from kernels import manual_axes
from kernels.types import CoreOutput, Operands, RasterizeConfig

_MIN_ALPHA = 1.0 / 255.0
_STOP = 1e-4
_MIN_FOCAL = 1e-12


def _rotation_matrices(quats: jax.Array) -> jax.Array:
    """(N, 4) wxyz -> (N, 3, 3); a zero quaternion is the identity."""
    is_zero = jnp.all(jnp.abs(quats) < 1e-12, axis=-1, keepdims=True)
    quats = jnp.where(is_zero, jnp.array([[1.0, 0.0, 0.0, 0.0]], quats.dtype), quats)
    w, x, y, z = jnp.moveaxis(quats / jnp.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    zero = jnp.zeros_like(w)
    identity = jnp.eye(3, dtype=quats.dtype)[None]
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    # Rodrigues: I + 2 w [v] + 2 [v]^2.
    return identity + 2 * w[:, None, None] * cross + 2 * cross @ cross


def _screen_covariances(points, covariances, intrinsics, config: RasterizeConfig) -> jax.Array:
    """EWA projection of camera-space covariances (N, 3, 3) to (N, 2, 2), without the filter."""
    focal = jnp.array([[intrinsics[0, 0], intrinsics[1, 1]]])
    centre = intrinsics[None, :2, 2]
    size = jnp.array([[config.width, config.height]], points.dtype)
    depth = points[:, 2:]
    unlimited = jnp.abs(focal) < _MIN_FOCAL
    divisor = jnp.where(unlimited, 1.0, focal)
    margin = 0.3 * 0.5 * size / divisor
    low = jnp.where(unlimited, -jnp.inf, -(centre / divisor + margin))
    high = jnp.where(unlimited, jnp.inf, (size - centre) / divisor + margin)
    slope = jnp.clip(points[:, :2] / depth, low, high)
    at = slope * depth
    diagonal = focal / depth
    last = -focal * at / depth**2
    zero = jnp.zeros_like(diagonal[:, 0])
    jacobian = jnp.stack(
        [
            jnp.stack([diagonal[:, 0], zero, last[:, 0]], axis=-1),
            jnp.stack([zero, diagonal[:, 1], last[:, 1]], axis=-1),
        ],
        axis=-2,
    )
    return jacobian @ covariances @ jnp.swapaxes(jacobian, -1, -2)


def _determinant(matrices: jax.Array) -> jax.Array:
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _render_one(
    means, quats, scales, opacities, features, viewmat, intrinsics, *, config: RasterizeConfig
):
    """One scene, one camera: image (H, W, D), transmittance (H, W), depth (H, W)."""
    options = config.options
    finite = jnp.isfinite(opacities)
    for array in (means, quats, scales, features):
        finite &= jnp.isfinite(array).all(axis=-1)
    means, quats, scales, features = (
        jnp.where(finite[:, None], array, 0.0) for array in (means, quats, scales, features)
    )
    opacities = jnp.where(finite, opacities, 0.0)

    points = means @ viewmat[:3, :3].T + viewmat[None, :3, 3]
    in_depth = finite & jnp.isfinite(points).all(axis=-1)
    in_depth &= (points[:, 2] >= options.near) & (points[:, 2] <= options.far)
    ahead = jnp.array([[0.0, 0.0, 1.0]], points.dtype)
    points = jnp.where(in_depth[:, None], points, ahead)
    axes = viewmat[None, :3, :3] @ _rotation_matrices(quats) * scales[:, None, :]

    def on_screen(points, axes):
        return _screen_covariances(points, axes @ jnp.swapaxes(axes, -1, -2), intrinsics, config)

    # What overflows gets gradients of zero times infinity; so it is replaced and computed again.
    blur = options.eps2d * jnp.eye(2, dtype=points.dtype)[None]
    det = _determinant(jax.lax.stop_gradient(on_screen(points, axes)) + blur)
    centres = jax.lax.stop_gradient(points @ intrinsics[:2].T / points[:, 2:])
    visible = in_depth & (det > 0) & jnp.isfinite(det) & jnp.isfinite(centres).all(axis=-1)
    points = jnp.where(visible[:, None], points, ahead)
    axes = jnp.where(visible[:, None, None], axes, 0.0)
    means2d = (points @ intrinsics[:2].T) / points[:, 2:]
    sharp = on_screen(points, axes)
    covariances = sharp + blur
    det = _determinant(covariances)
    covariances = jnp.where(
        visible[:, None, None], covariances, jnp.eye(2, dtype=sharp.dtype)[None]
    )
    det = jnp.where(visible, det, 1.0)
    if options.mode == "antialiased":
        ratio = _determinant(sharp) / det
        floor = options.min_compensation
        positive = ratio > floor**2
        opacities = opacities * jnp.where(
            positive, jnp.sqrt(jnp.where(positive, ratio, 1.0)), floor
        )
    visible &= opacities >= _MIN_ALPHA
    extent = jnp.minimum(3.33, jnp.sqrt(2 * jnp.log(jnp.where(visible, 255 * opacities, 1.0))))
    radii = jnp.ceil(
        extent[:, None] * jnp.sqrt(jnp.stack([covariances[:, 0, 0], covariances[:, 1, 1]], -1))
    )
    size = jnp.array([[config.width, config.height]], points.dtype)
    visible &= jnp.any(radii > options.radius_clip, axis=-1)
    visible &= jnp.all((means2d + radii > 0) & (means2d - radii < size), axis=-1)
    means2d = jnp.where(visible[:, None], means2d, 0.0)
    a, b, d = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    conics = jnp.stack([d, -b, -b, a], axis=-1).reshape(-1, 2, 2) / det[:, None, None]

    order = jnp.argsort(points[:, 2].astype(jnp.float32), stable=True)
    rows, columns = jnp.meshgrid(
        jnp.arange(config.height) + 0.5, jnp.arange(config.width) + 0.5, indexing="ij"
    )
    pixels = jnp.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(points.dtype)
    offsets = means2d[order][None] - pixels  # (P, N, 2)
    sigma = 0.5 * jnp.einsum("pni,nij,pnj->pn", offsets, conics[order], offsets)
    alpha = jnp.minimum(options.max_alpha, opacities[order][None] * jnp.exp(-sigma))
    alpha = jnp.where(visible[order][None] & (sigma >= 0) & (alpha >= _MIN_ALPHA), alpha, 0.0)

    def blend(transmittance, alpha):
        running, blended = transmittance
        running = running * (1 - alpha)
        alpha = jnp.where(running > _STOP, alpha, 0.0)
        return (running, blended * (1 - alpha)), blended * alpha

    one = manual_axes.vary_like(jnp.ones(alpha.shape[0], alpha.dtype), alpha)
    (_, transmittance), weights = jax.lax.scan(blend, (one, one), alpha.T)
    weights = weights.T
    shape = (config.height, config.width)
    return (
        (weights @ features[order]).reshape(*shape, -1),
        transmittance.reshape(shape),
        (weights @ points[order, 2]).reshape(shape),
    )


def rasterize(operands: Operands, config: RasterizeConfig) -> CoreOutput:
    """Renders S scenes from C cameras each; `num_intersections` is 0, there are no tiles."""
    scenes, cameras = operands.viewmats.shape[:2]
    gaussians = [
        jnp.tile(array, (scenes // array.shape[0],) + (1,) * (array.ndim - 1))
        for array in operands[:5]
    ]

    def one_camera(*arrays):
        return _render_one(*arrays, config=config)

    over_cameras = jax.vmap(one_camera, in_axes=(None,) * 5 + (0, 0))
    # GPUs and TPUs would round the factors of products to 10 bits; gradients inherit this, too.
    with jax.default_matmul_precision("highest"):
        image, transmittance, depth = jax.vmap(over_cameras)(
            *gaussians, operands.viewmats, operands.intrinsics
        )
    return CoreOutput(image, transmittance, depth, jnp.zeros((scenes, cameras), jnp.int32))
