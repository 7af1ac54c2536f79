"""The procedural teacher's mesh, names, blinks and cameras."""

import dataclasses

import numpy as np
import pytest

from instant_gs import types
from instant_gs.data import format as pack_format
from instant_gs.geometry import camera
from instant_gs.models import unwrap
from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import (
    light,
    part,
    performance,
    raster,
    render,
    scene,
    subdivision,
)

SEED = 4
SIZE = 256


@pytest.fixture(scope="module")
def person():
    return scene.person(SEED, 5)  # bald: nothing covers the landmarks


def _visible_eye_pixels(person, coefficients):
    model = head_model.load()
    moved = scene.frame(person, coefficients)
    screen = np.empty_like(moved.positions)
    focal = camera.focal_length() * SIZE
    world2cam = np.linalg.inv(camera.look_at(0.0, 0.0).astype(np.float64))
    raster.project(moved.positions, world2cam, focal, focal, SIZE / 2, SIZE / 2, screen)
    double = (model.material != part.SKIN).astype(np.uint8)
    index, _, _ = raster.visibility(screen, model.triangles, double, SIZE, SIZE)
    return int((model.material[index[index >= 0]] == part.EYE).sum())


def test_subdivision_keeps_planes_and_counts():
    # A 3x3 grid of quads: subdivision of a flat sheet stays flat and inside its outline.
    quads = part._grid_quads(4, 4, 0)
    points = np.stack([*np.meshgrid(np.arange(4.0), np.arange(4.0)), np.zeros((4, 4))], -1)
    points = points.reshape(-1, 3)
    matrix, fine = subdivision.catmull_clark(quads, 16)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1.0, atol=1e-6)
    moved = matrix @ points
    assert moved.shape == (16 + 24 + 9, 3)
    assert fine.shape == (36, 4)
    assert np.abs(moved[:, 2]).max() == 0
    assert moved[:, :2].min() >= 0 and moved[:, :2].max() <= 3
    inner = moved[5]
    np.testing.assert_allclose(inner, points[5], atol=1e-6)


def test_colours_of_a_slanted_triangle_are_in_perspective():
    """The weights at a pixel give the point in the world that the camera sees there."""
    corners = np.array([[-1, -1, 2], [1, -1, 6], [-1, 1, 4]], np.float32)  # of the camera's axes
    screen, lens = np.empty_like(corners), (24.0, 24.0, 16.0, 16.0)
    raster.project(corners, np.eye(4), *lens, screen)
    triangle = np.array([[0, 1, 2]], np.int32)
    index, weights, depth = raster.visibility(screen, triangle, np.ones(1, np.uint8), 32, 32)
    rows, columns = np.nonzero(index == 0)
    assert len(rows) > 50
    second, third = weights[rows, columns].T
    points = np.stack([1 - second - third, second, third], axis=-1) @ corners
    shown = np.empty_like(points)
    raster.project(points, np.eye(4), *lens, shown)
    np.testing.assert_allclose(shown[:, 0], columns + 0.5, atol=1e-3)
    np.testing.assert_allclose(shown[:, 1], rows + 0.5, atol=1e-3)
    np.testing.assert_allclose(points[:, 2], depth[rows, columns], rtol=1e-4)


def test_skin_and_eyes_shine_where_the_key_light_is_reflected(person):
    moved = scene.frame(person, performance.pose())
    dull = dataclasses.replace(person.lights, key_radiance=0 * person.lights.key_radiance)
    shots = [
        scene.picture(
            dataclasses.replace(person, lights=lights), moved, camera.look_at(0.0, 0.0),
            camera.intrinsics(), (48, 48),
        ).image.astype(int)
        for lights in (person.lights, dull)
    ]  # fmt: skip
    change = shots[0] - shots[1]
    assert change.max() > 5 and change.min() >= 0


def test_hair_shades_the_head_below():
    who, model = scene.person(SEED, 0), head_model.load()
    moved = scene.frame(who, performance.pose())
    nothing = [(depth, np.zeros_like(density)) for depth, density in who.lights.hair]
    bare = dataclasses.replace(who.lights, hair=nothing)
    lit, *_ = light.irradiance(model, bare, moved.positions, moved.normals)
    skin = model.masks["skin"] > 0
    assert moved.light[skin].mean() < 0.95 * lit[skin].mean()


def test_face_units_move_the_side_they_name():
    model = head_model.load()
    skin = model.masks["skin"] > 0
    left, right = skin & (model.rest[:, 0] > 0.05), skin & (model.rest[:, 0] < -0.05)
    for row, name in enumerate(pack_format.COEFFICIENT_NAMES):
        size = np.linalg.norm(model.units[row], axis=1)
        assert size.max() > 0.01, f"{name} moves nothing"
        # These turn the jaw or the mouth towards a side, they do not act on it.
        if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            drift = model.units[row][:, 0].sum()
            assert (drift > 0) == name.endswith("Left"), name
        elif name.endswith("Left"):
            assert size[left].sum() > 2 * size[right].sum(), name
        elif name.endswith("Right"):
            assert size[right].sum() > 2 * size[left].sum(), name


def test_gaze_turns_the_eyeballs_where_the_name_says(person):
    # Both eyes to the person's left: the pupils move to +x.
    before = render.landmarks(SEED, 5, [performance.pose()])[0]
    away = performance.pose(eyeLookOutLeft=1.0, eyeLookInRight=1.0)
    after = render.landmarks(SEED, 5, [away])[0]
    pupils = [render.LANDMARK_NAMES.index(name) for name in ("pupil_left", "pupil_right")]
    assert (after[pupils, 0] - before[pupils, 0] > 0.005).all()
    up = render.landmarks(SEED, 5, [performance.pose(eyeLookUp=1.0)])[0]
    assert (up[pupils, 1] - before[pupils, 1] > 0.003).all()


@pytest.mark.parametrize("index", [0, 3, 7])
def test_blink_closes_fully_and_wide_opens(index):
    who = scene.person(SEED, index)
    neutral = _visible_eye_pixels(who, performance.pose())
    assert neutral > 80, "eyes must be open at rest"
    assert _visible_eye_pixels(who, performance.pose(eyeBlink=1.0)) <= 0.03 * neutral
    wink = _visible_eye_pixels(who, performance.pose(eyeBlinkLeft=1.0))
    assert 0.3 * neutral < wink < 0.7 * neutral
    assert _visible_eye_pixels(who, performance.pose(eyeWide=1.0)) > 1.1 * neutral


def _marker_centroid(person, moved, vertices, pose):
    """Where a bright patch of skin appears in a rendered picture, in pixels."""
    lens = camera.intrinsics()
    shots = []
    for gain in (0.0, 1.0):
        person.albedo[:] = 0.0
        person.albedo[vertices] = gain
        shots.append(scene.picture(person, moved, pose, lens, (SIZE, SIZE)).image)
    change = (shots[1].astype(float) - shots[0].astype(float)).sum(axis=-1)
    # Squared display values undo most of the tone curve, so that the centroid is unbiased.
    weight = change**2
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    assert weight.sum() > 0, "the marker is not visible"
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def test_rendered_points_lie_where_the_camera_says():
    who = scene.person(SEED, 5)
    who.fuzz.alpha[:] = 0
    who.fuzz.lash_alpha[:] = 0
    who.texture[:] = 1
    model = head_model.load()
    moved = scene.frame(who, performance.pose(jawOpen=0.3))
    flat = moved.light.copy()
    flat[:] = 0.5  # the same light everywhere, so that the centroid is the patch's centre
    moved.light = flat
    moved.open_sky[:] = 0
    moved.key_share[:] = 0
    poses = [camera.look_at(yaw, pitch) for yaw, pitch in ((0.0, 0.0), (0.5, 0.1), (-0.25, -0.2))]
    errors, epipolar = [], []
    skin = (model.masks["skin"] > 0) & (model.masks["inner"] == 0)
    for target in ((0.0, 7.75, 1.51), (0.3, 6.95, 1.4), (-0.3, 6.95, 1.4), (0.0, 6.35, 1.5)):
        distance = np.linalg.norm(model.rest - target, axis=1) + 10 * ~skin
        vertex = int(distance.argmin())
        seen = []
        for pose in poses:
            found = _marker_centroid(who, moved, [vertex], pose)
            view = types.Camera(pose, camera.intrinsics())
            true = np.ravel(unwrap.project(moved.positions[vertex][None], view))  # edges at ±1
            errors.append(np.linalg.norm(found - SIZE * (1 + true) / 2))
            seen.append(found)
        epipolar.append(_epipolar_distance(seen[0], seen[1], poses[0], poses[1]))
    assert np.median(errors) < 0.35, errors
    assert np.max(errors) < 1.2, errors
    assert np.median(epipolar) < 0.35, epipolar


def _epipolar_distance(first, second, pose_first, pose_second):
    """Distance in pixels of `second` from the epipolar line of `first`."""
    lens = camera.intrinsics().astype(np.float64) * [[SIZE], [SIZE], [1]]
    relative = np.linalg.inv(pose_second.astype(np.float64)) @ pose_first
    rotation, shift = relative[:3, :3], relative[:3, 3]
    cross = np.array([[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]])
    inverse = np.linalg.inv(lens)
    fundamental = inverse.T @ cross @ rotation @ inverse
    line = fundamental @ [*first, 1]
    return abs(line @ [*second, 1]) / np.hypot(line[0], line[1])
