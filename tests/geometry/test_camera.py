"""Cameras against the facts of the reference release."""

import math

import numpy as np
import pytest

from instant_gs.geometry import camera


def test_focal_lengths_are_those_of_the_release():
    assert camera.focal_length(18.837) == pytest.approx(4.26339, abs=1e-5)
    assert camera.focal_length(23.28) == pytest.approx(3.43311, abs=1e-5)


@pytest.mark.parametrize("view", [18.837, 23.28, 60.0])
def test_the_view_of_a_focal_length_is_that_which_has_it(view):
    assert camera.fov_degrees(camera.focal_length(view)) == pytest.approx(view, rel=1e-12)


def test_frontal_pose():
    expected = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]
    np.testing.assert_allclose(camera.look_at(0, 0), expected, atol=1e-6)


def test_yaw_moves_right_pitch_moves_up():
    assert camera.look_at(0.3, 0)[0, 3] == pytest.approx(2.7 * math.sin(0.3), rel=1e-6)
    assert camera.look_at(0, 0.3)[1, 3] == pytest.approx(2.7 * math.sin(0.3), rel=1e-6)


def test_roll_turns_the_camera_clockwise():
    right = camera.look_at(0, 0, roll_rad=0.3)[:3, 0]
    np.testing.assert_allclose(right, [math.cos(0.3), -math.sin(0.3), 0], atol=1e-6)


@pytest.mark.parametrize("yaw, pitch, roll", [(0.5, -0.2, 0.1), (-1.2, 0.4, 0.0), (3.0, 0.0, -0.3)])
def test_pose_is_rigid_and_looks_at_the_origin(yaw, pitch, roll):
    pose = camera.look_at(yaw, pitch, roll_rad=roll)
    rotation = pose[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-6)
    origin_in_camera = np.asarray(camera.view_matrix(pose))[:3, 3]
    np.testing.assert_allclose(origin_in_camera, [0, 0, 2.7], atol=1e-5)


def test_view_matrix_inverts_a_batch_of_poses():
    poses = np.stack([camera.look_at(0.4, 0.1), camera.look_at(-0.7, -0.3, roll_rad=0.2)])
    product = np.asarray(camera.view_matrix(poses)) @ poses
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-6)


def test_pixel_intrinsics_scale_both_axes():
    pixels = np.asarray(camera.pixel_intrinsics(camera.intrinsics(), (100, 200)))
    np.testing.assert_allclose(pixels[0], [686.62, 0, 100], rtol=1e-4)
    np.testing.assert_allclose(pixels[1], [0, 343.31, 50], rtol=1e-4)
    assert pixels[2, 2] == 1


def test_a_pole_is_refused():
    with pytest.raises(ValueError, match="pitch_rad"):
        camera.look_at(0.0, math.pi / 2)
