"""The weights that ship draw whole heads in pictures larger than their own."""

import math

import jax
import numpy as np
import pytest

import instant_gs
from instant_gs import rendering
from instant_gs.geometry import camera


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "small"])
def test_no_gaussian_is_left_out(name):
    engine = instant_gs.load(name).with_culling("none")
    photo = np.full((engine.image_size,) * 2 + (3,), 128, np.uint8)
    gaussians = engine.rest(engine.encode(photo))
    view = camera.orbit_camera(0.5, math.radians(60), fov_degrees=engine.fov_degrees)

    def overflow(size):  # of this alone nothing is blended
        options, side = engine.raster_options(size), (size, size)
        draw = jax.jit(lambda *seen: rendering.render(*seen, image_size=side, options=options)[-1])
        return int(draw(gaussians, view))

    assert [overflow(times * engine.image_size) for times in (1, 2, 4)] == [0, 0, 0]
