"""Camera paths: a swing to both sides, and the driver's pose from landmarks back to a camera."""

import math

import numpy as np
import pytest

from instant_gs.geometry import camera
from instant_gs.inference import camera_path
from instant_gs.portrait import alignment
from tests.inference import fake


def angles(cameras):
    """(T, 2) yaw and pitch of where the cameras are, degrees."""
    places = np.array([c.cam2world[:3, 3] for c in cameras], np.float64)
    yaw = np.arctan2(places[:, 0], places[:, 2])
    return np.degrees(np.stack([yaw, np.arcsin(places[:, 1] / camera.RADIUS)], -1))


def test_orbit_swings_to_both_sides():
    yaws = angles(camera_path.orbit(100, yaw=10, swing=30, fps=25))[:, 0]
    assert yaws.max() == pytest.approx(40, abs=0.1) and yaws.min() == pytest.approx(-20, abs=0.1)
    assert yaws[0] == pytest.approx(10)
    slow = angles(camera_path.orbit(40, yaw=10, swing=30, fps=10))[:, 0]  # as many seconds
    np.testing.assert_allclose(slow[[0, 10, 20, 30]], yaws[[0, 25, 50, 75]], atol=1e-4)
    still = angles(camera_path.orbit(3, yaw=-5, pitch=7))
    np.testing.assert_allclose(still, np.tile([-5, 7], (3, 1)), atol=1e-4)


def test_the_view_is_the_models():
    (swing,) = camera_path.orbit(1, fov_degrees=camera.FOV_LEGACY_DEGREES)
    (led,) = camera_path.follow(np.zeros((1, 3)), fov_degrees=camera.FOV_LEGACY_DEGREES)
    for shown in (swing, led):
        assert shown.intrinsics[0, 0] == pytest.approx(4.26339, abs=1e-4)


def viewed(yaw, pitch, roll, **place):
    """Crop of a head that a camera at these angles sees."""
    pose = camera.look_at(*map(math.radians, (yaw, pitch)), roll_rad=math.radians(roll))
    turned = pose[:3, :3].T.astype(np.float64) @ np.diag([1.0, -1.0, -1.0])
    return alignment.locate(fake.landmarks(100, 80, 60, turned))


@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (-40, 15, 10), (25, -30, -20)])
def test_the_driver_is_seen_from_where_the_camera_was(pose):
    got = viewed(*pose).viewpoint()
    assert np.degrees(got) == pytest.approx(pose, abs=1e-3)
    (shown,) = camera_path.follow(np.array([got]), steady=False)
    want = camera.look_at(*np.radians(pose[:2]), roll_rad=math.radians(pose[2]))
    np.testing.assert_allclose(shown.cam2world, want, atol=1e-4)


def test_a_head_that_looks_to_the_pictures_right_is_seen_from_its_left_picture_side():
    # Its nose points to the picture's right: the camera stands at the head's right side, at -x.
    crop = alignment.Crop(0, 0, 1, yaw_rad=0.3)
    assert crop.viewpoint() == pytest.approx((-0.3, 0, 0))
    assert alignment.Crop(0, 0, 1, pitch_rad=0.3).viewpoint() == pytest.approx((0, -0.3, 0))


def test_follow_calms_a_still_head_and_follows_a_turn():
    random = np.random.default_rng(0)
    truth = np.zeros((120, 3))
    truth[60:] = np.radians([25, 0, 0])
    noisy = truth + np.radians(random.normal(0, camera_path.POSE_NOISE_DEGREES, truth.shape))
    calm, plain = (
        angles(camera_path.follow(noisy, steady=steady, yaw=5)) for steady in (True, False)
    )
    assert np.abs(np.diff(calm[5:60], axis=0)).mean() < 0.5 * np.abs(np.diff(plain[5:60], 0)).mean()
    assert calm[62, 0] > 5 + 0.9 * 25, "nine tenths of a turn within three frames"
    assert calm[30:60, 0].mean() == pytest.approx(5, abs=0.3)


def test_a_head_that_is_not_seen_keeps_its_pose():
    lost, camera_of = np.full(3, np.nan), camera_path.HeadCamera(yaw=5, steady=False)
    poses = [lost, np.radians([20, 10, 0]), lost, lost]
    got = angles([camera_of(pose) for pose in poses])
    np.testing.assert_allclose(got, [[5, 0], [25, 10], [25, 10], [25, 10]], atol=1e-4)


def test_poles():
    with pytest.raises(ValueError, match="pitch"):
        list(camera_path.orbit(1, pitch=90))
    with pytest.raises(ValueError, match="pitch"):
        list(camera_path.follow(np.zeros((1, 3)), pitch=-81))
    (top,) = camera_path.follow(np.array([[0, 1.2, 0]]), pitch=30)
    assert angles([top])[0, 1] == pytest.approx(80, abs=1e-3)
