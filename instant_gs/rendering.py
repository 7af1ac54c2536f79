"""Gaussians seen by cameras: the only place that calls the rasterizer."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

import kernels
from instant_gs import types
from instant_gs.geometry import camera as camera_lib


class Rendered(NamedTuple):
    """What a camera sees.

    Attributes:
        image: (…, H, W, 3) RGB, about [0, 1], not clamped.
        alpha: (…, H, W) in [0, 1].
        depth: (…, H, W) accumulated depth, world units times alpha.
        overflow: (…) int, tile intersections dropped for lack of capacity; 0 is normal.
    """

    image: jax.Array
    alpha: jax.Array
    depth: jax.Array
    overflow: jax.Array


def options_at(size: int, trained_size: int, mode: str = "classic") -> kernels.RasterizeOptions:
    """Options for pictures larger than those that a model was trained on.

    The rasterizer widens every Gaussian by a filter of about half a pixel, and a model learns
    sizes that close its surface together with that filter. Larger pictures keep the filter's
    width on the head, or gaps would open between Gaussians. In mode "antialiased" a narrower filter
    is no gap: it takes less of the opacity away.

    Args:
        size: Side of the picture in pixels.
        trained_size: Side of the model's own pictures in pixels.
        mode: The model's ``raster_mode``.

    Returns:
        Default options of that mode but for ``eps2d``; its default where ``size`` is not larger.
    """
    options = kernels.RasterizeOptions(mode=mode)
    if mode == "antialiased" or size <= trained_size:
        return options
    return dataclasses.replace(options, eps2d=options.eps2d * (size / trained_size) ** 2)


def render(
    gaussians: types.Gaussians,
    camera: types.Camera,
    *,
    image_size: tuple[int, int],
    options: kernels.RasterizeOptions | None = None,
) -> Rendered:
    """Renders Gaussians, one camera a scene; leading axes are batched in one launch.

    Args:
        gaussians: Arrays (…, N, ·).
        camera: Arrays with the same leading axes.
        image_size: (height, width) in pixels, static.
        options: Rasterizer options; None is the default of ``kernels``.

    Returns:
        Rendered, over black, by the best backend for the platform; differentiable in every array
        of ``gaussians`` and ``camera``.
    """
    options = options or kernels.RasterizeOptions()

    def one(gaussians: types.Gaussians, camera: types.Camera) -> Rendered:
        out = kernels.rasterize(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            gaussians.colors,
            camera_lib.view_matrix(camera.cam2world)[None],
            camera_lib.pixel_intrinsics(camera.intrinsics, image_size)[None],
            image_size=image_size,
            options=options,
        )
        return Rendered(out.image[0], out.alpha[0], out.depth[0], out.stats.overflow.sum())

    for _ in range(jnp.ndim(gaussians.means) - 2):
        one = jax.vmap(one)
    return one(gaussians, jax.tree.map(jnp.asarray, camera))
