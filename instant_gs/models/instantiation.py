"""Where Gaussians are: planes to per-Gaussian features, by image cell or along rays.

"plane": the planes are averaged as images and resampled; every cell is one Gaussian. "ray":
rays of a camera are sampled coarsely, then where the density is (importance sampling), and
features are read from the three planes at the samples. Both have static shapes.
"""

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.geometry import camera as camera_lib

RAY_NEAR, RAY_FAR = 2.25, 3.5  # along the unit ray, world units, as released


def plane_features(planes, grid: int):
    """Averages the planes and resamples them bilinearly.

    Args:
        planes: (B, P, H, W, C).
        grid: Cells a side of the map.

    Returns:
        (B, grid * grid, C), row-major.
    """
    mean = planes.mean(1)
    batch, _, _, channels = mean.shape
    resized = jax.image.resize(mean, (batch, grid, grid, channels), "bilinear")
    return resized.reshape(batch, grid * grid, channels)


def sample_planes(planes, points):
    """Reads three planes at points of the box [-0.5, 0.5]^3 and averages them.

    Args:
        planes: (3, H, W, C), spanned by (x, y), (x, z) and (z, y); the first coordinate runs
            along the width, the second along the height without a flip.
        points: (M, 3) world units; zeros are read outside the box.

    Returns:
        (M, C).
    """
    coordinates = 2.0 * points
    pairs = ((0, 1), (0, 2), (2, 1))
    total = sum(
        bilinear(plane, coordinates[:, a], coordinates[:, b])
        for plane, (a, b) in zip(planes, pairs, strict=True)
    )
    return total / 3.0


def bilinear(plane, x, y):
    """Samples (H, W, C) at x, y (M,) in [-1, 1] (pixel edges at ±1), zeros outside: (M, C)."""
    height, width, _ = plane.shape
    column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    left, top = jnp.floor(column), jnp.floor(row)
    out = 0.0
    for dj in (0, 1):
        for di in (0, 1):
            j, i = left + dj, top + di
            weight = (1 - jnp.abs(column - j)) * (1 - jnp.abs(row - i))
            inside = (j >= 0) & (j < width) & (i >= 0) & (i < height)
            value = plane[
                jnp.clip(i, 0, height - 1).astype(int), jnp.clip(j, 0, width - 1).astype(int)
            ]
            out = out + jnp.where(inside, weight, 0.0)[:, None] * value
    return out


def camera_rays(camera: types.Camera, count: int):
    """Rays through the centres of ``count`` x ``count`` pixels.

    Returns:
        Origins (3,) and unit directions (count * count, 3), row-major.
    """
    position = (jnp.arange(count) + 0.5) / count
    x, y = jnp.meshgrid(position, position)
    k = camera.intrinsics
    y_camera = (y - k[1, 2]) / k[1, 1]
    x_camera = (x - k[0, 2] - k[0, 1] * y_camera) / k[0, 0]
    direction = jnp.stack([x_camera, y_camera, jnp.ones_like(x)], -1).reshape(-1, 3)
    direction = camera_lib.product(direction, camera.cam2world[:3, :3].T)
    return camera.cam2world[:3, 3], direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)


def ray_points(planes, camera: types.Camera, density_fn, key, *, rays: int, samples: int):
    """Two-pass sample points of one image.

    Args:
        planes: (3, H, W, C).
        camera: One camera.
        density_fn: (M, C) features to (M,) densities.
        key: Random key of the stratified jitter and of the importance draw.
        rays: Rays a side.
        samples: Coarse samples a ray, and as many fine ones.

    Returns:
        (rays * rays * 2 * samples, 3) points, no gradient; coarse before fine on every ray.
    """
    key_coarse, key_fine = jax.random.split(key)
    origin, direction = camera_rays(camera, rays)
    step = (RAY_FAR - RAY_NEAR) / (samples - 1)
    jitter = jax.random.uniform(key_coarse, (rays * rays, samples))
    coarse = jnp.linspace(RAY_NEAR, RAY_FAR, samples)[None] + jitter * step
    points = origin[None, None] + coarse[..., None] * direction[:, None]
    sigma = density_fn(sample_planes(planes, points.reshape(-1, 3))).reshape(coarse.shape)
    fine = jax.vmap(_importance_sample)(
        coarse, _weights(sigma), jax.random.uniform(key_fine, coarse.shape)
    )
    depth = jnp.concatenate([coarse, fine], -1)
    points = origin[None, None] + depth[..., None] * direction[:, None]
    return jax.lax.stop_gradient(points.reshape(-1, 3))


def _weights(sigma):
    """Blending weights of densities along rays, widened and floored as in EG3D."""
    alpha = 1.0 - jnp.exp(-sigma)
    through = jnp.cumprod(1.0 - alpha + 1e-10, -1)
    through = jnp.concatenate([jnp.ones_like(through[:, :1]), through[:, :-1]], -1)
    weight = alpha * through
    padded = jnp.pad(weight, ((0, 0), (1, 1)))  # weights are >= 0, so 0 pads a maximum
    widest = jnp.maximum(padded[:, 1:], padded[:, :-1])
    return 0.5 * (widest[:, 1:] + widest[:, :-1]) + 0.01


def _importance_sample(depth, weight, uniform):
    """Inverse-transform samples of one ray from the histogram of its weights."""
    edges = 0.5 * (depth[1:] + depth[:-1])
    pdf = weight[1:-1] + 1e-5
    cdf = jnp.concatenate([jnp.zeros(1), jnp.cumsum(pdf / pdf.sum())])
    above = jnp.searchsorted(cdf, uniform, side="right")
    below = jnp.clip(above - 1, 0, edges.size - 1)
    above = jnp.clip(above, 0, edges.size - 1)
    span = cdf[above] - cdf[below]
    span = jnp.where(span < 1e-5, 1.0, span)
    return edges[below] + (uniform - cdf[below]) / span * (edges[above] - edges[below])
