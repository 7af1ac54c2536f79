"""The crop is where the head is, however large, turned or leaning it is."""

import math

import numpy as np
import pytest

from instant_gs.portrait import alignment
from tests.inference import fake


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    """Picture axes; positive: to the picture's right, up, clockwise."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (-yaw, -pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@pytest.mark.parametrize("yaw", [-0.7, 0.0, 0.5])
@pytest.mark.parametrize("roll", [-0.3, 0.0, 0.6])
def test_pose_and_box_are_recovered(yaw, roll):
    crop = alignment.locate(fake.landmarks(310.0, 205.0, 180.0, rotation(yaw, 0.0, roll)))
    assert (crop.x, crop.y, crop.side) == pytest.approx((310, 205, 180), abs=1e-6)
    assert crop.yaw_rad == pytest.approx(yaw if roll == 0 else crop.yaw_rad)
    assert crop.roll_rad == pytest.approx(roll)


def test_yaw_and_pitch_have_the_documented_signs():
    crop = alignment.locate(fake.landmarks(0, 0, 100, rotation(yaw=0.4)))
    assert crop.yaw_rad == pytest.approx(0.4)
    crop = alignment.locate(fake.landmarks(0, 0, 100, rotation(pitch=0.3)))
    assert crop.pitch_rad == pytest.approx(0.3)
    # A head that looks to the right shows its nose right of the crop's centre.
    nose = fake.landmarks(0, 0, 100, rotation(yaw=0.4))[5]
    assert nose[0] > 10


def test_expression_does_not_move_the_box():
    quiet = fake.landmarks(100, 100, 80)
    loud = quiet.copy()
    for lip in (13, 14, 61, 291, 0, 17, 152):
        loud[lip, 1] += 15
    assert alignment.locate(quiet) == alignment.locate(loud)


@pytest.mark.parametrize("bad", [np.zeros((478, 3)), np.full((478, 3), np.nan), np.ones((68, 2))])
def test_landmarks_that_are_no_face_are_refused(bad):
    with pytest.raises(ValueError, match="landmarks: expected"):
        alignment.locate(bad)


def test_warp_centres_and_turns_upright():
    image = np.zeros((200, 300), np.uint8)
    lean = math.radians(30)
    crop = alignment.Crop(160.0, 110.0, 80.0, roll_rad=lean)
    # A bar along the head's up direction: from the centre, up and to the right.
    for distance in np.linspace(0, 38, 200):
        column = int(160 + math.sin(lean) * distance)
        row = int(110 - math.cos(lean) * distance)
        image[row, column] = 255
    out = alignment.warp(image, crop, 40)
    assert out.shape == (40, 40)
    assert out[:20, 18:22].sum() > 0.9 * out.sum() > 0, "the bar stands upright after the warp"


def test_warp_of_the_whole_picture_is_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = alignment.Crop(32.0, 32.0, 64.0)
    np.testing.assert_array_equal(alignment.warp(image, whole, 64), image)
    for factor in (2, 4):  # averaged: no pixel is skipped
        size = 64 // factor
        smaller = image.reshape(size, factor, size, factor, 3).mean((1, 3))
        np.testing.assert_allclose(alignment.warp(image, whole, size), smaller, atol=1)


def test_no_similarity_is_a_reflection():
    points = np.random.default_rng(0).normal(size=(9, 3))
    for target in (points * [-1, 1, 1], points * [1, 1, 0]):
        _, rotation, _ = alignment.similarity(points, target)
        assert np.linalg.det(rotation) == pytest.approx(1)


def test_points_follow_the_pixels():
    crop = alignment.Crop(50.0, 60.0, 40.0, roll_rad=0.4)
    np.testing.assert_allclose(alignment.to_crop(np.array([50.0, 60.0]), crop, 96), [48, 48])
    corners = alignment.to_crop(crop.corners(), crop, 96)
    np.testing.assert_allclose(corners, [[0, 0], [96, 0], [96, 96], [0, 96]], atol=1e-9)
