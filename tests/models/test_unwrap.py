"""A photo on the rough head: a place of the head lands in its cell, whatever the view."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import head_surface, instantiation, motion, refinement, reprojection, unwrap

SIDE = 16
CELL = (7, 9)  # row and column: near the middle of the face


def _camera(*yaws_rad):
    poses = np.stack([camera_lib.look_at(yaw, 0.1, roll_rad=0.05) for yaw in yaws_rad])
    return types.Camera(poses, np.broadcast_to(camera_lib.intrinsics(), (len(yaws_rad), 3, 3)))


def _photo_with_a_dot(point, camera, size=96):
    """A white dot where the camera sees a point, everything else black."""
    at = camera_lib.view_matrix(camera.cam2world[0]) @ np.append(point, 1)
    pixel = np.asarray(camera_lib.pixel_intrinsics(camera.intrinsics[0], (size, size)) @ at[:3])
    x, y = pixel[:2] / pixel[2]
    rows, columns = np.mgrid[:size, :size] + 0.5
    dot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)
    return jnp.asarray(np.repeat(dot[None, ..., None], 3, -1), jnp.float32)


def test_a_place_of_the_head_lands_in_its_cell_from_every_side():
    row, column = CELL
    point = head_surface.points(SIDE).reshape(SIDE, SIDE, 3)[row, column]
    for yaw in (-0.6, 0.0, 0.6):
        camera = _camera(yaw)
        laid = np.asarray(unwrap.unwrap(_photo_with_a_dot(point, camera), camera, SIDE))
        assert laid.shape == (1, SIDE, SIDE, unwrap.CHANNELS)
        brightest = np.unravel_index(laid[0, :, :, 0].argmax(), (SIDE, SIDE))
        assert brightest == CELL and laid[0, row, column, 0] > 0.9, yaw

        assert laid[0, row, SIDE - 1 - column, 7] > 0.9, yaw  # the mirrored half begins there
        photo = np.asarray(_photo_with_a_dot(point, camera)).reshape(SIDE, 6, SIDE, 6, 3)
        np.testing.assert_allclose(laid[0, ..., -3:], photo.mean((1, 3)), atol=0.2)  # as it is


def test_what_stands_off_the_head_lands_in_its_cell_of_the_outer_shell():
    row, column = CELL[0], 12
    point = head_surface.points(SIDE).reshape(SIDE, SIDE, 3)[row, column]
    camera = _camera(0.0)
    photo = _photo_with_a_dot(1.25 * point, camera)
    laid = np.asarray(jax.jit(unwrap.unwrap, static_argnums=2)(photo, camera, SIDE))
    assert laid[0, row, column, 3:6].min() > 0.9 > 0.1 > laid[0, row, column, :3].max()


def test_points_land_where_any_camera_of_a_pack_sees_them():
    """Also with two focal lengths, a skew and another centre: the rasterizer heeds them all."""
    lens = np.array([[2.9, 0.3, 0.45], [0, 3.6, 0.55], [0, 0, 1]], np.float32)
    camera = types.Camera(jnp.asarray(camera_lib.look_at(0.4, 0.2)), jnp.asarray(lens))
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (20, 3)).astype(np.float32)
    local = np.c_[points, np.ones(20)] @ np.asarray(camera_lib.view_matrix(camera.cam2world)).T
    x, y, depth = lens @ local[:, :3].T
    seen = unwrap.project(jnp.asarray(points), camera)
    np.testing.assert_allclose(seen, [2 * x / depth - 1, 2 * y / depth - 1], atol=1e-5)


def test_cells_know_whether_they_face_the_camera():
    camera = _camera(0.7)  # from the head's left, which is at +x
    facing = np.asarray(unwrap.unwrap(jnp.zeros((1, 8, 8, 3)), camera, SIDE))[0, :, :, 6]
    assert facing[8, 12] > 0.8 > 0.2 > facing[8, 2]
    assert np.abs(facing).max() <= 1 + 1e-6


def test_pose_error_is_zero_for_the_true_pose_and_grows_with_the_angle():
    angles = jnp.array([[0.3, 0.1, 0.05]])
    errors = [
        float(unwrap.pose_error(angles + offset, _camera(0.3))[0]) for offset in (0.0, 0.02, 0.04)
    ]
    assert errors[0] < 1e-10 and 2 < errors[2] / errors[1] < 6  # about quadratic
    gradient = jax.grad(lambda a: unwrap.pose_error(a, _camera(0.3)).sum())(angles + 0.02)
    assert (np.asarray(gradient) > 0).all()


def test_the_surface_is_symmetric_and_finest_in_the_face():
    points = head_surface.points(32).reshape(32, 32, 3)
    np.testing.assert_allclose(points[:, ::-1] * [-1, 1, 1], points, atol=1e-6)
    spacing = np.linalg.norm(np.diff(points[16], axis=0), axis=-1)
    assert spacing[15] < 0.7 * spacing[2]
    np.testing.assert_allclose(np.linalg.norm(head_surface.outward(32), axis=-1), 1, atol=1e-5)


def test_the_head_turns_about_an_axis_behind_the_origin():
    middle = head_surface.points(33).reshape(33, 33, 3)[16]
    np.testing.assert_allclose(middle[16], [0, 0, 0.24 - 0.05], atol=1e-6)
    widest = middle[middle[:, 0].argmax()]
    np.testing.assert_allclose(widest, [0.23, 0, -0.05], atol=0.02)
    assert middle[0, 2] < -0.05 > middle[-1, 2], "past the ears"


def test_cells_look_away_from_the_heads_axis():
    """Sideways as they lie around it, the upper ones a little up, the lower ones down."""
    x, y, z = head_surface.points(32).T
    right, up, front = head_surface.outward(32).T
    axis = np.array([x, z + 0.05])  # it lies behind the origin
    sideways = np.array([right, front])
    lengths = np.linalg.norm(axis, axis=0) * np.linalg.norm(sideways, axis=0)
    np.testing.assert_allclose((axis * sideways).sum(0) / lengths, 1, atol=1e-5)
    assert (np.sign(up) == np.sign(y)).all() and np.abs(up[np.abs(y) < 0.2]).max() < 0.4


def test_what_is_no_background_has_any_colour():
    colors = jnp.array([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.0, 0.2], [4 / 255, 0.0, 0.0]])
    np.testing.assert_allclose(unwrap.presence(colors)[:, 0], [0, 1, 1, 0.5], atol=1e-6)


def test_the_pose_is_read_from_outlines(monkeypatch):
    """Of a photo in [-1, 1]: a dark head before black is there."""
    seen = []

    def spy(x, widths, hidden):
        seen.append(x)
        return x[:, 0, 0]

    monkeypatch.setattr(motion, "convolutions", spy)
    photo = jnp.full((1, 8, 8, 3), -1.0).at[:, 2:6, 2:5].set(-0.9)
    last = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    unwrap.PoseEncoder().apply({"params": {"angles": last}}, photo)
    outline = np.zeros((8, 8))
    outline[2:6, 2:5] = 1
    np.testing.assert_allclose(seen[0][..., 1], [outline, outline[:, ::-1]], atol=1e-6)


def test_a_mirrored_photo_has_the_mirrored_pose():
    keys = jax.random.split(jax.random.key(0))
    size = unwrap.POSE_IMAGE_SIZE
    photo = jax.random.uniform(keys[0], (2, size, size, 3), minval=-1)
    encoder = unwrap.PoseEncoder()
    params = jax.jit(encoder.init)(keys[1], photo)
    angles, mirrored = (jax.jit(encoder.apply)(params, x) for x in (photo, photo[:, :, ::-1]))
    assert np.abs(angles).max() > 1e-4
    np.testing.assert_allclose(mirrored, np.asarray(angles) * [-1, 1, -1], atol=1e-6)


def test_coordinates_are_multiplied_in_float32():
    """At default precision a TPU would round them to bfloat16."""
    batch = jax.tree.map(jnp.asarray, _camera(0.3))
    one = jax.tree.map(lambda array: array[0], batch)
    points = jnp.ones((16, 3))
    calls = (
        (lambda view: unwrap.project(points, view), one),
        (lambda view: unwrap.unwrap(jnp.ones((1, 8, 8, 3)), view, 4), batch),
        (lambda view: instantiation.camera_rays(view, 4), one),
        (lambda view: reprojection.facing(4, view), one),
        (lambda view: refinement._depth(points, view), one),
        (lambda view: camera_lib.view_matrix(view.cam2world), one),
    )
    for function, view in calls:
        text = jax.jit(function).lower(view).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert products and all("HIGHEST" in line for line in products), text
