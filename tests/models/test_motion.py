"""What the learned motion encoder sees: local contrast."""

import jax
import numpy as np
import pytest

from instant_gs.models import motion


def _face(seed: int = 0):
    return jax.random.uniform(jax.random.key(seed), (2, 32, 32, 3), minval=-0.5, maxval=0.5)


def test_exposure_cancels():
    image = _face()
    plain = np.asarray(motion.local_contrast(image))
    assert plain.shape == (2, 32, 32, 1) and 0.8 < plain.std() < 1.2
    brighter = np.asarray(motion.local_contrast(0.6 * image + 0.3))
    assert np.corrcoef(brighter.ravel(), plain.ravel())[0, 1] > 0.999


def test_surroundings_are_a_sixteenth_of_the_side():
    weights, position = motion._window(64), np.arange(64)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert np.sqrt(weights[32] @ (position - 32) ** 2) == pytest.approx(4, rel=1e-3)


def test_smooth_shading_nearly_cancels():
    ramp = np.linspace(-0.4, 0.4, 32, dtype=np.float32)[None, None, :, None]
    image = 0.5 * _face(1)
    plain, shaded = (np.asarray(motion.local_contrast(x)) for x in (image, image + ramp))
    inner = np.s_[:, 4:-4, 4:-4]
    assert np.corrcoef(plain[inner].ravel(), shaded[inner].ravel())[0, 1] > 0.98


def test_a_flat_picture_says_nothing():
    np.testing.assert_allclose(motion.local_contrast(0 * _face() + 0.2), 0, atol=1e-4)


def test_colours_count_as_they_are_seen():
    """Green most, then red, blue least; where the contrast is too faint to be scaled up."""
    pattern = 0.004 * (np.asarray(_face(2))[..., :1] > 0)
    spread = [
        float(motion.local_contrast(pattern * np.eye(3, dtype=np.float32)[channel]).std())
        for channel in range(3)
    ]
    np.testing.assert_allclose(np.array(spread) / sum(spread), [0.299, 0.587, 0.114], atol=0.003)
