"""Photometric, region and residual losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs.losses import photometric, region, residual


def _images():
    rng = np.random.default_rng(1)
    return rng.random((2, 3, 8, 6, 3), np.float32), rng.random((2, 3, 8, 6, 3), np.float32)


def test_l1_keeps_the_leading_axes():
    prediction, target = _images()
    value = photometric.l1(prediction, target)
    assert value.shape == (2, 3)
    np.testing.assert_allclose(value, np.abs(prediction - target).mean((-3, -2, -1)), rtol=1e-6)
    with pytest.raises(ValueError, match="equal shapes"):
        photometric.l1(prediction, target[..., :1])


def test_region_l1_averages_over_the_region_only():
    prediction, target = _images()
    regions = np.zeros(prediction.shape[:-1], np.uint8)
    regions[..., 2:4, 1:3] = 2
    regions[..., 6, 5] = 3
    expected = np.abs(prediction - target)[regions > 0].reshape(2, 3, 5, 3).mean((-2, -1))
    value = region.region_l1(prediction, target, regions, (2, 3))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert float(value.min()) > 0.05


def test_empty_region_is_zero_with_zero_gradient():
    prediction, target = _images()
    regions = np.zeros(prediction.shape[:-1], np.uint8)
    regions[0, 0, 0, 0] = 2

    def loss(x):
        return region.region_l1(x, target, regions, (2, 3)).sum()

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(prediction))
    assert np.isfinite(float(value)) and float(value) > 0
    assert np.isfinite(gradient).all()
    touched = np.abs(np.asarray(gradient)).max(-1) > 0
    assert touched[0, 0, 0, 0] and touched.sum() == 1


def test_residual_norm():
    residuals = jnp.array([[[3.0, 4.0], [0.0, 0.0]]])
    np.testing.assert_allclose(residual.norm(residuals), 2.5, rtol=1e-5)
    gradient = jax.grad(residual.norm)(residuals)
    np.testing.assert_allclose(gradient[0, 0], [0.3, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(gradient[0, 1], 0)
