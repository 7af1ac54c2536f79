"""Gaussians land where the camera says."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import rendering, types
from instant_gs.geometry import camera


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

    trained = share(32, rendering.options_at(32, 32))
    assert 0.85 < share(96, rendering.options_at(96, 32)) / trained < 1.15
    assert share(96, None) / trained < 0.3, "without, it shrinks with the pixels"
    assert rendering.options_at(16, 32) == rendering.options_at(32, 32)


def test_antialiased_pictures_keep_their_filter():
    """That mode takes away as much opacity as the filter adds width."""
    speck = ball([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], opacity=0.9, scale=0.01)

    def share(size):
        options = rendering.options_at(size, 32, "antialiased")
        assert (options.mode, options.eps2d) == ("antialiased", rendering.options_at(9, 9).eps2d)
        out = rendering.render(
            speck,
            camera.orbit_camera(0.0, 0.0),
            image_size=(size, size),
            options=options,
        )
        return float(out.alpha.sum()) / size**2

    assert 0.8 < share(96) / share(32) < 1.25
