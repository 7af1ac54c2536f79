"""Gaussians seen by cameras: the only place that calls the rasterizer."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from kernels import constants
from kernels.rasterize import api


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


def options_at(
    size: int, trained_size: int, count: int, mode: str = "classic"
) -> kernels.RasterizeOptions:
    """Options for pictures larger than those that a model was trained on.

    The rasterizer widens every Gaussian by a filter of about half a pixel, and a model learns
    sizes that close its surface together with that filter. Larger pictures keep the filter's
    width on the head, or gaps would open between Gaussians. In mode "antialiased" a narrower filter
    is no gap: it takes less of the opacity away.

    Gaussians then touch more tiles, at most as many more as there are more tiles: the capacity
    grows with these and a quarter beyond, so that what fits at the trained size fits at any. Most
    of it stays empty, which costs memory and time (docs/animation.md). It follows the model's
    number of Gaussians and not how many are drawn: a part of them is as large a surface.

    Args:
        size: Side of the picture in pixels.
        trained_size: Side of the model's own pictures in pixels.
        count: Gaussians of the model.
        mode: The model's ``raster_mode``.

    Returns:
        Options of that mode with a capacity, and with ``eps2d`` where ``size`` is larger.
    """
    larger = max(1.0, size / trained_size) ** 2
    room = larger * (1.0 + constants.CAPACITY_HEADROOM) if larger > 1.0 else 1.0
    side = min(size, trained_size)
    capacity = math.ceil(api.automatic_capacity(count, (side, side)) * room)
    options = kernels.RasterizeOptions(mode=mode, capacity=min(capacity, constants.MAX_CAPACITY))
    if mode == "antialiased":
        return options
    return dataclasses.replace(options, eps2d=options.eps2d * larger)


def filter_width(trained_size: int, fov_degrees: float, mode: str = "classic") -> float:
    """How much the rasterizer's filter widens the head's Gaussians, where it belongs to them.

    Args:
        trained_size: Side of the model's own pictures in pixels.
        fov_degrees: What they show, ``config.model.fov_degrees``.
        mode: The model's ``raster_mode``.

    Returns:
        Standard deviation in world units, at the head's distance from the reference cameras. 0 in
        mode "antialiased", whose Gaussians are as wide as their scales say.
    """
    if mode == "antialiased":
        return 0.0
    focal = camera_lib.focal_length(fov_degrees) * trained_size
    return math.sqrt(kernels.RasterizeOptions().eps2d) * camera_lib.RADIUS / focal


def shortage(overflow, capacity: int) -> str:
    """What to tell a user whose pictures lack Gaussians.

    Args:
        overflow: ``Rendered.overflow`` of any number of pictures.
        capacity: What they were drawn with.

    Returns:
        What is wrong and which flag helps; "" where nothing was dropped.
    """
    dropped = int(np.max(overflow, initial=0))
    if dropped <= 0:
        return ""
    needed = capacity + dropped
    return (
        f"Gaussians are missing: {dropped} of {needed} places where they touch a tile of the "
        f"picture did not fit; pass --capacity={api.propose_from_count(needed)}, or draw smaller"
    )


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
