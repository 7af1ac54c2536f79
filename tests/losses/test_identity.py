"""The face network against TensorFlow.js, and whether it tells people apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs.losses import identity

# Made once with @tensorflow/tfjs 4.22.0 (CPU) from the graph that the weights were converted from:
# sum and norm of the embedding of `_waves()`, and its entries that are not zero among the first 12.
TENSORFLOW = {"sum": 19.329007, "norm": 5.310989, "entries": {7: 2.494048, 11: 0.015231}}


def _waves():
    row, column, channel = np.mgrid[:224, :224, :3]
    wave = np.sin(0.05 * column * (channel + 1) + 0.031 * row + channel)
    return (127.5 + 127.5 * wave).astype(np.float32)


@pytest.fixture(scope="module")
def loss():
    return identity.IdentityLoss()


def test_equals_tensorflow(loss):
    features = np.asarray(jax.jit(loss._features)(_waves()[None]))[0]
    # Weights are float16 there and here, but here multiplied by the batch norms' factors.
    np.testing.assert_allclose(features.sum(), TENSORFLOW["sum"], rtol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(features), TENSORFLOW["norm"], rtol=5e-3)
    for index in range(12):
        expected = TENSORFLOW["entries"].get(index, 0.0)
        np.testing.assert_allclose(features[index], expected, rtol=5e-3, atol=2e-3)


def test_value_shape_and_gradient(loss):
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 2, 48, 48, 3), np.float32)
    second[0, 1] = first[0, 1]

    @jax.jit
    def both(x, y):
        return jax.value_and_grad(lambda x: loss(x, y).sum())(x), loss(x, y)

    (_, gradient), value = both(first, second)
    assert value.shape == (1, 2) and value.dtype == jnp.float32
    assert float(value[0, 0]) > 1e-3 and abs(float(value[0, 1])) < 1e-5
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient[0, 0]).max()) > 1e-6
    # Along the gradient the distance grows as fast as the gradient says.
    direction = gradient / jnp.linalg.norm(gradient)
    step = 0.05
    ahead, behind = (both(first + sign * step * direction, second)[1] for sign in (1, -1))
    slope = float((ahead - behind)[0, 0]) / (2 * step)
    np.testing.assert_allclose(slope, float(jnp.linalg.norm(gradient)), rtol=0.05)


def test_hair_and_shoulders_do_not_count(loss):
    image = np.random.default_rng(0).random((1, 100, 100, 3), np.float32)
    other = image.copy()
    other[:, :16], other[:, -16:], other[:, :, :16], other[:, :, -16:] = 0, 1, 0, 1
    assert float(jax.jit(loss)(image, other).max()) < 1e-5


def test_refuses_what_is_not_aligned(loss):
    with pytest.raises(ValueError, match=r"\(…, S, S, 3\)"):
        loss.embed(np.zeros((1, 64, 48, 3), np.float32))


@pytest.mark.slow
def test_people_are_told_apart():
    """Four people of the procedural teacher, two expressions from two sides each."""
    from instant_gs.data import format as data_format
    from instant_gs.geometry import camera
    from instant_gs.teacher.procedural import render

    rows = np.zeros((2, 52), np.float32)
    rows[1, data_format.COEFFICIENT_NAMES.index("jawOpen")] = 0.7
    sides = [camera.orbit_camera(yaw, 0.0) for yaw in (0.0, 0.5)]
    cameras = jax.tree.map(lambda *parts: np.stack(parts), *sides)
    views = [render.render_identity(0, person, rows, cameras, 96) for person in range(4)]
    pictures = np.stack([view.image.reshape(4, 96, 96, 3) for view in views]) / np.float32(255)
    embedded = np.asarray(jax.jit(identity.IdentityLoss().embed)(pictures)).reshape(16, -1)
    cosine = embedded @ embedded.T
    person = np.arange(16) // 4
    same = (person[:, None] == person) & ~np.eye(16, dtype=bool)
    other = person[:, None] != person
    assert cosine[same].mean() > 0.7 and cosine[other].mean() < 0.6
    closer = (cosine[same][:, None] > cosine[other][None]).mean()
    assert closer > 0.95, closer
