"""What a still face's pictures differ by."""

import numpy as np
import pytest

from instant_gs.inference import tremble
from tests.inference import fake


def test_disturbance_is_small_and_leaves_the_background_black():
    face = fake.picture(64, 64, 32, 28, 40)[::2, ::2].copy()
    face[:, :6] = 0
    random = np.random.default_rng(0)
    images = np.stack([tremble.disturb(face, random) for _ in range(20)]).astype(int)
    assert images.shape == (20, 32, 32, 3) and not images[:, :, :4].any()
    inside = images[:, 4:-4, 10:-4]
    assert 1 < inside.std(0).mean() < 20
    bias = np.abs(inside.mean(0) - face[4:-4, 10:-4]).mean()
    assert bias < 15, "edges are blurred, and nothing else happens on average"


def test_sensor_noise_and_crop_are_off_by_what_is_said():
    random = np.random.default_rng(0)
    flat = tremble.disturb(np.full((64, 64, 3), 100, np.uint8), random)[2:-2, 2:-2]
    assert flat.mean() == pytest.approx(100, abs=0.1) and flat.std() == pytest.approx(2, abs=0.1)
    spot = np.zeros((15, 15, 3), np.uint8)
    spot[5:10, 5:10] = 200
    images = np.stack([tremble.disturb(spot, random) for _ in range(100)]).mean(-1)
    rows, columns = np.mgrid[:15, :15] - 7
    moved = [(images * axis).sum((1, 2)) / images.sum((1, 2)) for axis in (rows, columns)]
    assert 0.9 < np.abs(moved).max() < 1.1 and abs(np.corrcoef(moved)[0, 1]) < 0.3
    np.testing.assert_allclose(np.std(moved, axis=1), 1 / np.sqrt(3), rtol=0.15)
