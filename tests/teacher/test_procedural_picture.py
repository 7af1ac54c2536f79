"""What the procedural teacher's pictures show."""

import dataclasses

import numpy as np
import pytest

from instant_gs import types
from instant_gs.data import format as pack_format
from instant_gs.geometry import camera
from instant_gs.teacher.procedural import identity, light, performance, render, scene, skin

SEED = 4
REGION = {name: label for label, name in enumerate(pack_format.REGIONS)}


@pytest.fixture(scope="module")
def view():
    """An identity with hair: neutral, jaw open, smile with teeth."""
    rows = np.stack(
        [
            performance.pose(),
            performance.pose(jawOpen=1.0),
            performance.pose(mouthSmile=1.0, mouthUpperUp=0.7, jawOpen=0.2),
        ]
    )
    return render.render_identity(SEED, 0, rows, camera.orbit_camera(0.0, 0.0), 128)


def test_shapes_and_values(view):
    assert view.image.shape == (3, 1, 128, 128, 3) and view.image.dtype == np.uint8
    assert view.alpha.shape == view.regions.shape == (3, 1, 128, 128)
    assert view.cam2world.shape == (3, 1, 4, 4) and view.intrinsics.shape == (3, 1, 3, 3)
    assert view.coefficients.shape == (3, 1, 52)
    share = (view.alpha[0, 0] > 127).mean()
    assert 0.35 < share < 0.85, "head, neck and shoulders inside the frame"
    assert view.image[view.alpha == 0].max() == 0, "black behind the person"
    assert 60 < view.image[0, 0][view.regions[0, 0] == REGION["skin"]].mean() < 220


def test_every_region_is_there_and_where_it_belongs(view):
    labels = view.regions[0, 0]
    assert set(np.unique(labels)) == set(range(len(pack_format.REGIONS)))
    height = {name: np.nonzero(labels == label)[0].mean() for name, label in REGION.items()}
    assert height["brows"] < height["eyes"] < height["mouth"] < height["neck_ears"]
    assert height["mouth"] < height["clothes"]
    assert (labels[view.alpha[0, 0] == 0] == 0).all()


def test_the_mouth_reaches_its_corners(view):
    left, right = (render.LANDMARK_NAMES.index(name) for name in ("mouth_left", "mouth_right"))
    points = render.landmarks(SEED, 0, [performance.pose()])[0]
    lips = (points[left, 0] - points[right, 0]) * camera.focal_length() / camera.RADIUS * 128
    columns = np.nonzero((view.regions[0, 0] == REGION["mouth"]).any(axis=0))[0]
    assert 0.9 * lips < np.ptp(columns) < 2 * lips


def test_the_most_frequent_label_of_a_block_wins():
    labels = np.array([[1, 2, 3, 3], [2, 2, 3, 1]], np.uint8)
    assert scene._vote(labels).tolist() == [[2, 3]]


def test_the_head_fits_the_frame(view):
    solid = view.alpha[0, 0] > 127
    assert solid[0].mean() < 0.15, "at most single strands of voluminous hair touch the top"
    assert solid[-1].mean() > 0.5, "shoulders at the bottom"


def test_an_open_jaw_grows_the_mouth_and_is_dark_inside(view):
    mouth = [(view.regions[n, 0] == REGION["mouth"]).sum() for n in range(3)]
    assert mouth[1] > 1.2 * mouth[0]
    for n in (0, 1):
        assert (view.regions[n, 0] == REGION["eyes"]).sum() > 100
    dark = view.image[1, 0][view.regions[1, 0] == REGION["mouth"]].max(axis=-1)
    assert (dark < 70).mean() > 0.1, "the cavity is dark"


def test_teeth_show_in_a_smile(view):
    def bright(n):
        pixels = view.image[n, 0][view.regions[n, 0] == REGION["mouth"]].astype(float)
        whiteness = pixels.min(axis=-1) / (pixels.max(axis=-1) + 1)
        return (whiteness > 0.72).mean()

    assert bright(2) > bright(0) + 0.03


def test_cameras_turn_around_the_head():
    cameras = camera.orbit_camera(0.0, 0.0)
    poses = np.stack([camera.look_at(yaw, 0.0) for yaw in (-0.6, 0.0, 0.6)])
    lens = np.broadcast_to(cameras.intrinsics, (3, 3, 3))
    view = render.render_identity(
        SEED, 5, [performance.pose()], type(cameras)(poses, lens), image_size=64
    )
    assert view.image.shape[:2] == (1, 3)
    columns = [np.nonzero(view.regions[0, v] == REGION["mouth"])[1].mean() for v in range(3)]
    # A camera moved to +x (the person's left) sees the face turned to the image's left.
    assert columns[0] > columns[1] + 3 > columns[2] + 6


def test_every_frame_may_have_a_camera_of_its_own():
    rows = np.stack([performance.pose(), performance.pose(jawOpen=1.0)])
    poses = np.stack([camera.look_at(0.0, 0.0), camera.look_at(0.4, 0.1)])[:, None]
    lens = np.stack([camera.intrinsics(), camera.intrinsics(40.0)])[:, None]
    both = render.render_identity(SEED, 5, rows, types.Camera(poses, lens), 32)
    last = types.Camera(poses[1], lens[1])
    one = render.render_identity(SEED, 5, rows[1:], last, 32)
    for name, array in vars(one).items():
        np.testing.assert_array_equal(getattr(both, name)[1:], array)


def test_a_lens_scales_and_shifts_each_axis_by_itself():
    lens = camera.intrinsics()
    other = lens * np.array([[1], [0.8], [1]], np.float32)
    other[1, 2] = 0.6
    pose = camera.look_at(0.0, 0.0)
    cameras = types.Camera(np.stack([pose, pose]), np.stack([lens, other]))
    view = render.render_identity(SEED, 5, [performance.pose()], cameras, (64, 96))
    mouths = [np.argwhere(view.regions[0, v] == REGION["mouth"]) + 0.5 for v in range(2)]
    (row, column), found = (mouth.mean(axis=0) for mouth in mouths)
    np.testing.assert_allclose(found, [0.8 * (row - 32) + 0.6 * 64, column], atol=0.5)
    assert np.ptp(mouths[0][:, 1]) == pytest.approx(np.ptp(mouths[1][:, 1]), abs=1)
    assert abs(column - 48) < 2


def test_landmarks_follow_the_expression():
    rows = [performance.pose(), performance.pose(jawOpen=1.0), performance.pose(mouthSmile=1.0)]
    points = render.landmarks(SEED, 0, rows)
    name = render.LANDMARK_NAMES.index
    chin, nose = name("chin"), name("nose_tip")
    assert points.shape == (3, len(render.LANDMARK_NAMES), 3)
    assert points[1, chin, 1] < points[0, chin, 1] - 0.02
    assert np.linalg.norm(points[1, nose] - points[0, nose]) < 0.01
    for left in (one for one in render.LANDMARK_NAMES if one.endswith("_left")):
        right = left.replace("_left", "_right")
        assert points[0, name(left), 0] > 0.01 > -0.01 > points[0, name(right), 0], left
    width = points[:, name("mouth_left"), 0] - points[:, name("mouth_right"), 0]
    assert width[2] > 1.05 * width[0]


def test_pupils_have_the_contract_distance():
    distances = []
    left, right = (render.LANDMARK_NAMES.index(n) for n in ("pupil_left", "pupil_right"))
    for index in range(6):
        points = render.landmarks(SEED, index, [performance.pose()])[0]
        distances.append(np.linalg.norm(points[left] - points[right]))
    assert 0.13 < np.mean(distances) < 0.165, distances


def test_people_differ():
    people = [identity.attributes(SEED, index) for index in range(60)]
    assert len({who.hair_style for who in people}) >= 7
    assert 15 < sum(who.male > 0.5 for who in people) < 45
    tones = np.array([who.melanin for who in people])
    assert tones.min() < 0.2 and tones.max() > 0.7
    assert identity.attributes(SEED, 3) == identity.attributes(SEED, 3)
    assert identity.attributes(SEED, 3) != identity.attributes(SEED + 1, 3)


def test_more_melanin_is_darker_skin():
    tones = [skin.tone(melanin).mean() for melanin in np.linspace(0, 1, 9)]
    assert tones == sorted(tones, reverse=True) and tones[1] > 2 * tones[-2]


def test_the_key_light_stands_where_the_person_says():
    """At +x, the head's left, if its azimuth is positive, as for cameras."""
    who = identity.attributes(SEED, 0)
    for azimuth in (-0.8, 0.8):
        rig = light.rig(dataclasses.replace(who, key_azimuth=azimuth))
        x, y, z = rig.key
        assert np.arctan2(x, z) == pytest.approx(azimuth, abs=1e-5)
        assert np.arcsin(y) == pytest.approx(who.key_elevation, abs=1e-5)
    height, sky = rig.axes[light.KEY_SAMPLES :, 2, 1], rig.radiance[light.KEY_SAMPLES :].mean(1)
    assert sky[height > 0.5].mean() > 2 * sky[height < -0.5].mean(), "the sky is above"


def test_twice_the_exposure_is_twice_the_light():
    who = identity.attributes(SEED, 0)
    once, twice = (
        light.rig(dataclasses.replace(who, exposure=factor * who.exposure)) for factor in (1, 2)
    )
    for name in ("radiance", "key_radiance"):
        np.testing.assert_allclose(getattr(twice, name), 2 * getattr(once, name), rtol=1e-5)


@pytest.mark.parametrize(
    ("coefficients", "words"),
    [
        (np.zeros(52), "expected (n, 52)"),
        (np.zeros((2, 51)), "expected (n, 52)"),
        (np.full((1, 52), np.nan), "finite"),
    ],
)
def test_bad_coefficients_name_the_argument(coefficients, words):
    with pytest.raises(ValueError, match="coefficients") as caught:
        render.render_identity(SEED, 0, coefficients, camera.orbit_camera(0.0, 0.0), 32)
    assert words in str(caught.value)
