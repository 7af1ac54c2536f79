"""PSNR, SSIM and region errors against scikit-image and plain numpy."""

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from instant_gs.metrics import image


def _pair():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:40, :36] / 40
    clean = np.stack([0.5 + 0.4 * np.sin(7 * x), y, 0.3 + 0 * x], -1).astype(np.float32)
    noise = 0.08 * rng.standard_normal(clean.shape).astype(np.float32)
    return clean, np.clip(clean + noise, 0, 1)


def test_psnr():
    clean, noisy = _pair()
    expected = skimage_metrics.peak_signal_noise_ratio(clean, noisy, data_range=1)
    assert 20 < expected < 30
    np.testing.assert_allclose(image.psnr(noisy, clean), expected, rtol=1e-5)
    np.testing.assert_allclose(image.psnr(clean, clean), 100.0, rtol=1e-5)
    assert image.psnr(np.stack([clean, noisy]), np.stack([clean, clean])).shape == (2,)


def test_ssim_equals_scikit_image_inside():
    clean, noisy = _pair()
    options = dict(data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5)
    _, expected = skimage_metrics.structural_similarity(
        clean, noisy, use_sample_covariance=False, full=True, **options
    )
    actual = np.asarray(image.ssim_map(noisy, clean))
    inside = (slice(5, -5), slice(5, -5))  # scikit-image mirrors the border, we pad with zeros
    np.testing.assert_allclose(actual[inside], expected[inside], atol=2e-4)
    assert 0.1 < float(image.ssim(noisy, clean)) < 0.95
    np.testing.assert_allclose(image.ssim(clean, clean), 1.0, rtol=1e-5)
    assert image.ssim(np.stack([clean] * 2)[None], np.stack([noisy] * 2)[None]).shape == (1, 2)


def test_region_error_is_nan_where_there_is_no_region():
    clean, noisy = _pair()
    regions = np.zeros((2, 40, 36), np.uint8)
    regions[0, 10:20, 5:9] = 2
    error = image.region_error(np.stack([noisy] * 2), np.stack([clean] * 2), regions, (2, 3))
    np.testing.assert_allclose(error[0], np.abs(noisy - clean)[10:20, 5:9].mean(), rtol=1e-5)
    assert np.isnan(error[1])


def test_shapes_must_agree():
    clean, _ = _pair()
    with pytest.raises(ValueError, match="equal shapes"):
        image.psnr(clean, clean[:-1])
