"""The weights that ship draw whole heads at any size, and a known face as they did."""

import functools
import math

import cv2
import jax
import numpy as np
import pytest

import instant_gs
from instant_gs import rendering
from instant_gs.geometry import camera
from instant_gs.inference import motion_bank
from instant_gs.metrics import image


@functools.cache
def shipped(name):
    """Both tests share what is compiled."""
    return instant_gs.load(name).with_culling("none")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "small"])
def test_no_gaussian_is_left_out(name):
    engine = shipped(name)
    photo = np.full((engine.image_size,) * 2 + (3,), 128, np.uint8)
    gaussians = engine.rest(engine.encode(photo))
    view = camera.orbit_camera(0.5, math.radians(60), fov_degrees=engine.fov_degrees)

    def overflow(size):  # of this alone nothing is blended
        options, side = engine.raster_options(size), (size, size)
        draw = jax.jit(lambda *seen: rendering.render(*seen, image_size=side, options=options)[-1])
        return int(draw(gaussians, view))

    assert [overflow(times * engine.image_size) for times in (1, 2, 4)] == [0, 0, 0]


#: Decibels to the photo or to the driver, measured with the weights that ship.
SCORES = {
    "at rest, to the photo": 35.71,
    "moved, to the photo": 31.91,
    "moved, to the driver": 30.22,
    "moved, from the left, to the photo": 17.92,
    "moved, from the right, to the photo": 18.20,
}


@pytest.mark.slow
def test_a_drawn_face_is_drawn_and_moved_as_before():
    """Every constant that the weights rely on counts here; new weights have new scores."""
    engine = shipped("demo")
    pictures = dict(zip(motion_bank.EXPRESSIONS, motion_bank.pictures(), strict=True))
    side = (engine.image_size,) * 2
    photo, laughing = (
        cv2.resize(pictures[name], side, interpolation=cv2.INTER_AREA)
        for name in ("neutral", "laugh")
    )
    code, driving = engine.motion_code(np.stack([photo, laughing]))
    avatar = engine.encode(photo)
    moved = engine.animate(avatar, engine.motion(code, driving))

    def decibels(gaussians, yaw, truth):
        view = camera.orbit_camera(yaw, 0.0, fov_degrees=engine.fov_degrees)
        drawn = np.asarray(engine.render(gaussians, view).image)
        return float(image.psnr(drawn, truth / np.float32(255)))

    scores = [
        decibels(engine.rest(avatar), 0.0, photo),
        decibels(moved, 0.0, photo),
        decibels(moved, 0.0, laughing),
        decibels(moved, 0.5, photo),
        decibels(moved, -0.5, photo),
    ]
    assert dict(zip(SCORES, scores, strict=True)) == pytest.approx(SCORES, abs=0.1)
