"""Sample pictures: what is in which column."""

import types as python_types

import jax.numpy as jnp
import numpy as np

from instant_gs import rendering, types
from instant_gs.geometry import camera as camera_lib
from instant_gs.training import objective, sample_grid


def test_side_views_are_named_by_the_sides_of_the_head(monkeypatch):
    """Its left is at +x, as everywhere (docs/conventions.md)."""

    def view(*lead):
        pose = np.broadcast_to(camera_lib.look_at(0.0, 0.0), (*lead, 4, 4))
        intrinsics = np.broadcast_to(camera_lib.intrinsics(), (*lead, 3, 3))
        image = np.zeros((*lead, 4, 4, 3), np.uint8)
        return types.View(image, image[..., 0], image[..., 0], pose, intrinsics, None)

    def render(gaussians, camera, *, image_size, options):
        """White where the camera stands at the head's left, grey ahead of it."""
        side = 0.5 + 0.5 * jnp.sign(camera.cam2world[..., 0, 3].round(3))
        image = jnp.broadcast_to(side[..., None, None, None], (*side.shape, *image_size, 3))
        return rendering.Rendered(image, None, None, None)

    some = jnp.zeros((1, 2, 3, 3))
    gaussians = types.Gaussians(some, some, some, some[..., 0], some)
    posed = objective.Posed(gaussians, jnp.zeros((1, 1, 3, 4)), None)
    monkeypatch.setattr(objective, "animated_and_rest", lambda *_: posed)
    monkeypatch.setattr(rendering, "render", render)
    model = python_types.SimpleNamespace(raster_options=lambda size: None)
    batch = types.Batch(view(1), view(1), view(1, 1), view(1, 1))
    picture = sample_grid.make(model, None)({}, batch)
    shown = picture.reshape(4, -1, 4, 3).mean((0, 2, 3))
    columns = dict(zip(sample_grid.COLUMNS, shown, strict=True))
    assert (columns["from its right"], columns["result"], columns["from its left"]) == (0, 128, 255)
