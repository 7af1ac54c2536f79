"""The template's measurement finds a template that is known."""

import itertools

import numpy as np
import pytest

from instant_gs.inference import calibration
from instant_gs.portrait import alignment, template

VIEWS = list(itertools.product((-40, 0, 40), (-15, 0, 15)))


def shapes(points, random=None):
    turns = np.stack([calibration.head_to_picture(*view) for view in VIEWS])
    seen = np.einsum("mij,kj->mki", turns, points)
    seen[..., 2] += np.linspace(-1, 1, len(VIEWS))[:, None]  # a detector's depth has no zero
    noise = 0 if random is None else random.normal(0, 0.003, seen.shape)
    return seen + noise, turns


def test_known_points_are_found():
    seen, turns = shapes(template.POINTS)
    np.testing.assert_allclose(calibration.fit(seen, turns), template.POINTS, atol=1e-6)


def test_noise_averages_out_and_symmetry_is_kept():
    found = calibration.fit(*shapes(template.POINTS, np.random.default_rng(0)))
    assert np.abs(found - template.POINTS).max() < 0.005
    order = [template.LANDMARKS.index(mark) for mark in template.MIRROR]
    np.testing.assert_allclose(found, found[order] * [-1, 1, 1], atol=1e-9)


def test_axes_are_those_of_alignment():
    landmarks = np.tile(template.POINTS[:1], (478, 1))
    landmarks[list(template.LANDMARKS)] = template.POINTS
    crop = alignment.locate(landmarks @ calibration.head_to_picture(30, 0).T)
    # The camera at the head's left sees it look to the picture's left.
    assert np.degrees(crop.yaw_rad) == pytest.approx(-30, abs=1e-3)
    assert (crop.x, crop.y, crop.side) == pytest.approx((0, 0, 1), abs=1e-6)
    crop = alignment.locate(landmarks @ calibration.head_to_picture(0, 20).T)
    assert np.degrees(crop.pitch_rad) == pytest.approx(-20, abs=1e-3), "seen from above"


def test_template_is_symmetric_and_of_the_documented_size():
    order = [template.LANDMARKS.index(mark) for mark in template.MIRROR]
    np.testing.assert_allclose(template.POINTS, template.POINTS[order] * [-1, 1, 1])
    eyes = dict(zip(template.LANDMARKS, template.POINTS, strict=True))
    assert eyes[263][0] - eyes[33][0] == pytest.approx(0.276, abs=0.01)
