"""Gaussians land where the camera says."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import rendering, types
from instant_gs.geometry import camera
from kernels import constants
from kernels.rasterize import api


def ball(center, color, opacity=0.99, scale=0.02):
    return types.Gaussians(
        means=jnp.array([center], jnp.float32),
        quats=jnp.array([[1.0, 0, 0, 0]]),
        scales=jnp.full((1, 3), scale),
        opacities=jnp.array([opacity]),
        colors=jnp.array([color], jnp.float32),
    )


def test_a_ball_appears_where_it_is():
    # The wide camera sees ±0.393 at the origin: x = 0.1965 is three quarters across, y is up.
    out = rendering.render(
        ball([0.1965, 0.1965, 0.0], [1.0, 0.5, 0.0]),
        camera.orbit_camera(0.0, 0.0),
        image_size=(64, 64),
    )
    row, column = np.unravel_index(np.argmax(out.alpha), (64, 64))
    assert abs(row + 0.5 - 16) <= 1 and abs(column + 0.5 - 48) <= 1
    peak = np.asarray(out.image)[row, column] / np.asarray(out.alpha)[row, column]
    np.testing.assert_allclose(peak, [1.0, 0.5, 0.0], atol=1e-5)
    assert abs(float(out.depth[row, column] / out.alpha[row, column]) - 2.7) < 1e-3


def test_leading_axes_equal_single_renders():
    balls = [ball([x, 0.0, 0.0], [x + 0.5, 0.2, 0.1], scale=0.05) for x in (-0.1, 0.0, 0.1, 0.2)]
    cameras = [camera.orbit_camera(yaw, 0.1) for yaw in (-0.5, 0.0, 0.3, 0.6)]

    def stack(trees):
        return jax.tree.map(lambda *a: jnp.stack(a).reshape(2, 2, *jnp.shape(a[0])), *trees)

    batched = rendering.render(stack(balls), stack(cameras), image_size=(24, 24))
    assert batched.image.shape == (2, 2, 24, 24, 3)
    for index in range(4):
        single = rendering.render(balls[index], cameras[index], image_size=(24, 24))
        np.testing.assert_allclose(
            batched.image.reshape(4, 24, 24, 3)[index], single.image, atol=1e-6
        )
    assert 0.01 < float(batched.alpha.mean()) < 0.9


def test_opacity_zero_leaves_black():
    out = rendering.render(
        ball([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], opacity=0.0),
        camera.orbit_camera(0.0, 0.0),
        image_size=(16, 16),
    )
    assert not np.asarray(out.image).any() and not np.asarray(out.alpha).any()


def test_a_larger_picture_keeps_a_speck_as_large():
    speck = ball([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], opacity=0.9, scale=1e-4)

    def share(size, options):
        out = rendering.render(
            speck, camera.orbit_camera(0.0, 0.0), image_size=(size, size), options=options
        )
        return float(out.alpha.sum()) / size**2

    trained = share(32, rendering.options_at(32, 32, 1))
    assert 0.85 < share(96, rendering.options_at(96, 32, 1)) / trained < 1.15
    assert share(96, None) / trained < 0.3, "without, it shrinks with the pixels"
    assert rendering.options_at(16, 32, 1).eps2d == rendering.options_at(32, 32, 1).eps2d


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_what_fits_at_the_trained_size_fits_in_larger_pictures(mode):
    """Also where a part of the Gaussians is drawn, widened to cover what all of them did."""
    random = np.random.default_rng(0)
    wide = types.Gaussians(
        means=random.uniform(-0.3, 0.3, (400, 3)).astype(np.float32),
        quats=random.normal(size=(400, 4)).astype(np.float32),
        scales=random.uniform(0.01, 0.05, (400, 3)).astype(np.float32),
        opacities=np.full(400, 0.9, np.float32),
        colors=np.ones((400, 3), np.float32),
    )

    def overflow(size, options):
        view, side = camera.orbit_camera(0.5, 0.5), (size, size)
        draw = jax.jit(lambda g, c: rendering.render(g, c, image_size=side, options=options))
        return int(draw(wide, view).overflow)

    for size in (64, 128, 160, 256):
        assert overflow(size, rendering.options_at(size, 64, 800, mode)) == 0
    plain = dataclasses.replace(rendering.options_at(256, 64, 800, mode), capacity=None)
    assert overflow(256, plain) > 1000, "else this test is of no use"


def test_capacity_grows_with_the_picture_beyond_the_trained_size():
    def capacity(size, count=100_000):
        return rendering.options_at(size, 64, count).capacity

    own = [api.automatic_capacity(100_000, (size, size)) for size in (32, 64)]
    assert [capacity(32), capacity(64)] == own and own[0] < own[1], "nothing is added there"
    assert capacity(128) == math.ceil(1.25 * 4 * own[1])
    assert capacity(96) == math.ceil(1.25 * 2.25 * own[1])
    assert capacity(1024, 10**7) == constants.MAX_CAPACITY, "slots have numbers of 32 bits"


def test_a_shortage_is_said_with_what_helps():
    assert rendering.shortage(np.zeros(3, int), 100) == ""
    assert rendering.shortage(np.zeros(0, int), 100) == "", "no picture lacks nothing"
    said = rendering.shortage([0, 900, 3], 100)
    assert "900 of 1000 places" in said and "--capacity=2048" in said


def test_antialiased_pictures_keep_their_filter():
    """That mode takes away as much opacity as the filter adds width."""
    speck = ball([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], opacity=0.9, scale=0.01)

    def share(size):
        options = rendering.options_at(size, 32, 1, "antialiased")
        assert (options.mode, options.eps2d) == ("antialiased", rendering.options_at(9, 9, 1).eps2d)
        out = rendering.render(
            speck,
            camera.orbit_camera(0.0, 0.0),
            image_size=(size, size),
            options=options,
        )
        return float(out.alpha.sum()) / size**2

    assert 0.8 < share(96) / share(32) < 1.25
