"""The live loop: what a camera's pictures make of a photo, one after the other."""

import dataclasses

import cv2
import numpy as np
import pytest

from instant_gs import cli
from instant_gs import config as config_lib
from instant_gs.geometry import camera
from instant_gs.inference import animate, camera_path, level_of_detail, live, live_box, source
from instant_gs.portrait import alignment, matting, tracking
from tests.inference import fake, tiny


@pytest.fixture(autouse=True)
def painted(monkeypatch, request):
    if "detector" not in request.fixturenames:
        monkeypatch.setattr(matting, "_network", fake.Segmenter)


def face(x=130.0, rotation=None):
    return fake.Face(fake.landmarks(x, 90, 120, rotation))


def turned(yaw):
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return face(rotation=np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]))


def make(answers, **options):
    options = {"fps": 10.0, **options}
    detector = fake.Detector(face(), *answers)  # the first is the photo's
    return live.Live(fake.Engine(), fake.picture(), detector=detector, **options)


def rest_in_grey(monkeypatch, driven):
    grey = np.full_like(driven.source.image, 9)
    monkeypatch.setattr(driven._puppet, "_source", alignment.AlignedFace(grey))


def bright(count):
    """Pictures of a head that grows redder."""
    redder = (fake.picture() + np.array([8 * index, 0, 0]) for index in range(count))
    return [np.clip(picture, 0, 255).astype(np.uint8) for picture in redder]


ANSWERS = [None, None, face(), face(), face(131), face(133), None, None, None, face(134), face(133)]


@pytest.mark.parametrize("hold", [0.0, 0.2])
@pytest.mark.parametrize("steady", [True, False])
def test_apart_from_the_box_live_is_animate(monkeypatch, hold, steady):
    monkeypatch.setattr(tracking, "_steady", lambda rows, fps, box: rows)
    monkeypatch.setattr(live_box.LiveBox, "__call__", lambda self, crop, seconds: crop)
    frames = bright(len(ANSWERS))
    driven = make(ANSWERS, hold=hold, steady=steady, yaw=10, expression=0.7)
    got, found = [], []
    for frame in frames:
        got.append(driven(frame))
        found.append(driven.found)
    still = source.align(fake.picture(), fake.Detector(face()), fake.SIZE)
    tracked = tracking.track("clip", frames, fake.Detector(*ANSWERS), fps=10)
    drivers = tracking.drivers(frames, tracked, fake.SIZE, hold=2 if hold else 0)
    cameras = camera_path.orbit(len(frames), yaw=10, fps=10)
    options = {"size": fake.SIZE, "fps": 10, "steady": steady, "expression": 0.7}
    made = animate.frames(fake.Engine(), still.image, drivers, cameras, **options)
    np.testing.assert_array_equal(got, [frame.image for frame in made])
    assert found == tracked.found.tolist()
    assert len({picture.tobytes() for picture in got}) > 4, "they move"


def test_the_box_follows_and_does_not_tremble():
    random, box = np.random.default_rng(0), live_box.LiveBox(25)
    noise = 120 * live_box.BOX_NOISE * random.normal(size=(80, 2))
    path = np.where(np.arange(80) < 50, 100.0, 160.0)
    rows = []
    for x, (there, wider) in zip(path, noise, strict=True):
        crop = box(alignment.Crop(x + there, 90, 120 + wider, yaw_rad=0.1))
        rows.append((crop.x, crop.side))
        assert crop.yaw_rad == 0.1 and crop.y == pytest.approx(90)
    change = np.abs(np.diff(rows, axis=0))[5:49].mean(0)
    assert (change < 0.35 * np.abs(np.diff(noise, axis=0))[5:49].mean(0)).all()
    assert rows[51][0] > 100 + 0.9 * 60, "half the head in a frame is followed within two"
    assert box(None) is None
    assert box(alignment.Crop(160, 90, 120)).x == pytest.approx(160, abs=2)


def test_the_box_goes_by_time_and_a_gap_lets_it_go():
    def second(*calls):
        box = live_box.LiveBox(25)
        box(alignment.Crop(160, 90, 120))
        for call in calls:
            box(*call)
        return box(alignment.Crop(160.2, 90, 120.4, roll_rad=0.002))

    quick, late, gone = second(), second((alignment.Crop(160, 90, 120), 60.0)), second((None, 60.0))
    for name, by in {"x": 160.0, "side": 120.0, "roll_rad": 0.0}.items():
        whole = getattr(alignment.Crop(160.2, 90, 120.4, roll_rad=0.002), name) - by
        assert getattr(quick, name) - by < 0.6 * whole
        assert getattr(late, name) - by < 0.6 * whole
        assert getattr(gone, name) - by > 0.95 * whole


def test_a_late_picture_is_calmed_by_its_time(monkeypatch):
    """What was a minute ago says nothing of now: pose and motion are those that are seen."""
    monkeypatch.setattr(live_box.LiveBox, "__call__", lambda self, crop, seconds: crop)
    seen = []

    class Engine(fake.Engine):
        def frame(self, avatar, motion, camera, size):
            seen.append((float(camera.cam2world[0, 3]), float(motion.scale[0])))
            return super().frame(avatar, motion, camera, size)

    monkeypatch.setattr(fake, "Engine", Engine)
    frames = bright(2)

    def change(seconds, steady=True):
        driven = make([turned(0.0), turned(0.02)], pose="driver", steady=steady)
        driven(frames[0])
        driven(frames[1], seconds)
        return np.subtract(seen[-1], seen[-2])

    plain = change(0.1, steady=False)
    assert (np.abs(plain) > 0.01).all()
    assert (change(0.1) / plain < 0.9).all() and (change(60.0) / plain > 0.97).all()


def test_a_lost_face_is_held_for_seconds(monkeypatch):
    lost = np.zeros((200, 260, 3), np.uint8)
    driven = make([face(), None], hold=0.35, steady=False)
    rest_in_grey(monkeypatch, driven)
    pictures = [driven(fake.picture()), *(driven(lost, 0.3) for _ in range(2))]
    assert [picture.max() == 9 for picture in pictures] == [False, False, True]


def test_options_are_heeded(monkeypatch):
    frame, answers = fake.picture(), [face(), face()]
    cut_out, kept = (make(answers, matte=matte)(frame).astype(int) for matte in (True, False))
    assert (kept[..., 1] > cut_out[..., 1] + 20).all(), "the wall is green"
    np.testing.assert_array_equal(make(answers)(frame), cut_out)  # what this encoder expects

    counts = []
    monkeypatch.setattr(level_of_detail, "order", lambda engine, avatar, *_, **__: avatar)
    monkeypatch.setattr(
        level_of_detail, "prefix", lambda avatar, count: counts.append(count) or avatar
    )
    make(answers)
    make(answers, gaussians=7)
    assert counts == [7]


def test_missing_gaussians_are_counted(monkeypatch):
    dropped = iter([7, 0])

    class Engine(fake.Engine):
        def frame(self, *arguments):
            return super().frame(*arguments)._replace(overflow=np.int32(next(dropped)))

    monkeypatch.setattr(fake, "Engine", Engine)
    driven = make([face()])
    for want in (7, 0):
        driven(fake.picture())
        assert driven.overflow == want


def test_weights_of_another_view_get_their_crops_and_cameras(monkeypatch):
    sides, cameras = [], []

    class Engine(fake.Engine):
        config = config_lib.Config()

        def frame(self, avatar, motion, camera, size):
            cameras.append(camera)
            return super().frame(avatar, motion, camera, size)

    Engine.config.model.fov_degrees = camera.FOV_LEGACY_DEGREES
    cut = tracking.cut

    def record(frame, crop, *rest, **options):
        sides.append(crop.side)
        return cut(frame, crop, *rest, **options)

    monkeypatch.setattr(tracking, "cut", record)
    monkeypatch.setattr(fake, "Engine", Engine)
    for pose in live.POSES:
        driven = make([face()], pose=pose)
        driven(fake.picture())
        sides.append(driven.source.crop.side)
    assert sides == pytest.approx([120 * 3.43311 / 4.26339] * 4, rel=1e-4)
    for seen in cameras:
        assert seen.intrinsics[0, 0] == pytest.approx(4.26339, rel=1e-5)


def test_a_lost_face_is_held_or_comes_to_rest(monkeypatch):
    frames = [fake.picture()] * 2 + [np.zeros((200, 260, 3), np.uint8)] * 6
    own = make([None])(frames[0])
    held = make([face(), face(), None])
    pictures = [held(frame) for frame in frames]
    assert all(np.array_equal(picture, pictures[1]) for picture in pictures)
    resting = make([face(), face(), None], hold=0.35, steady=False)
    rest_in_grey(monkeypatch, resting)
    pictures = [resting(frame, 0.1) for frame in frames]
    at_rest = [picture.max() == 9 for picture in pictures]
    assert at_rest == [False] * 6 + [True] * 2 and own.max() > 9


def test_the_drivers_head_moves_the_camera(monkeypatch):
    seen = []

    class Engine(fake.Engine):
        def frame(self, avatar, motion, camera, size):
            place = camera.cam2world[:3, 3]
            seen.append(np.degrees(np.arctan2(place[0], place[2])))
            return super().frame(avatar, motion, camera, size)

    monkeypatch.setattr(fake, "Engine", Engine)
    answers = [turned(0.3), None, turned(0.0)]
    for pose, want in {"driver": [5, 5 + np.degrees(0.3), 5 + np.degrees(0.3), 5]}.items():
        driven = make([None, *answers], pose=pose, yaw=5, steady=False)
        for frame in bright(4):
            driven(frame)
        np.testing.assert_allclose(seen, want, atol=1e-3)
    seen.clear()
    driven = make(answers, yaw=5)
    driven(fake.picture())
    np.testing.assert_allclose(seen, [5], atol=1e-4)


def test_without_a_rate_time_is_measured(monkeypatch):
    now = iter([0.0, 20.0, 20.5, 20.5, 120.0])  # the first call compiles: it ends at 20
    monkeypatch.setattr(live.time, "monotonic", lambda: next(now))
    driven, seconds = make([face()], fps=None), []
    monkeypatch.setattr(driven, "_box", lambda crop, step: seconds.append(step) or crop)
    for _ in range(4):
        driven(fake.picture())
    assert seconds == [None, 0.5, live._MIN_SECONDS, 99.5]
    driven(fake.picture(), 0.25)
    assert seconds[-1] == 0.25, "or as the caller says"


def test_a_large_camera_is_reduced_and_the_size_is_chosen():
    large = cv2.resize(fake.picture(), (2600, 2000))
    detector = fake.Detector(face())
    aligned = source.align(fake.picture(), detector, fake.SIZE)
    driven = live.Live(fake.Engine(), aligned, size=48, detector=detector)
    assert driven(large).shape == (48, 48, 3) and driven.source is aligned
    detector.shape = None
    driven(large)
    assert detector.shape == (985, 1280, 3)


def test_bad_frames_are_refused_and_forgotten():
    driven = make([face()])
    good = fake.picture()
    want = driven(good)
    for bad in (good[..., 0], np.dstack([good, good[..., :1]]), good / 255, good[None], None):
        with pytest.raises(ValueError, match=r"^frame: expected \(H, W, 3\) uint8 RGB, got "):
            driven(bad)
    with pytest.raises(cli.UserError, match="frame: the image is 9x9 pixels; a video of a face"):
        driven(good[:9, :9])
    with pytest.raises(ValueError, match="seconds: expected more than 0, got -1"):
        driven(good, -1)
    np.testing.assert_array_equal(driven(good), want)


def test_bad_settings_say_what_is_expected():
    for options, message in (
        ({"pose": "orbit"}, r"pose: expected one of \('fixed', 'driver'\), got 'orbit'"),
        ({"fps": 0.0}, "fps: expected more than 0, got 0"),
        ({"size": -1}, "size: expected pixels, or 0"),
        ({"hold": -1.0}, "hold: expected 0 or more seconds, got -1"),
        ({"hold": np.nan}, "hold: expected 0 or more seconds, got nan"),
        ({"expression": -1.0}, "expression: expected 0 to 10, got -1"),
        ({"expression": np.nan}, "expression: expected 0 to 10, got nan"),
        ({"pitch": 85.0}, "pitch: expected within"),
    ):
        with pytest.raises(ValueError, match=message):
            make([face()], **options)


@pytest.fixture(scope="module")
def engine():
    engine = tiny.build(residual_scale=0.03)  # of order one, an untrained decoder paints black
    return dataclasses.replace(engine, culling="none")


def test_astronaut_before_a_camera(detector, astronaut, engine):
    """Still: the picture stands, and is animate's; she moves: it follows; she leaves: it holds."""
    driven = live.Live(engine, astronaut, fps=25, pose="driver", detector=detector)
    assert driven.source.coefficients.max() > 0.5, "she smiles: that is what is read"
    still = [driven(astronaut) for _ in range(3)]
    compiled = (engine._code_from, engine._motion, engine._frame)
    before = [function._cache_size() for function in compiled]
    assert still[0].shape == (tiny.SIZE, tiny.SIZE, 3) and still[0].dtype == np.uint8
    assert all(np.array_equal(picture, still[0]) for picture in still)

    frames = [astronaut] * 3
    tracked = tracking.track("clip", frames, detector, fps=25)
    drivers = tracking.drivers(frames, tracked, tiny.SIZE)
    cameras = camera_path.follow(tracked.poses, fps=25)
    options = {"size": tiny.SIZE, "fps": 25}
    made = animate.frames(engine, driven.source.face, drivers, cameras, **options)
    np.testing.assert_array_equal(still, [frame.image for frame in made])

    leaning = cv2.getRotationMatrix2D((224, 120), 12, 1)
    moved = [driven(cv2.warpAffine(astronaut, leaning, (512, 512))) for _ in range(4)][-1]
    assert np.abs(moved.astype(int) - still[0]).mean() > 1
    gone = [driven(np.full_like(astronaut, 90)) for _ in range(8)]
    assert not driven.found
    np.testing.assert_allclose(gone[-1].astype(int), gone[-2], atol=1)
    assert np.abs(gone[-1].astype(int) - still[0]).mean() > 1
    assert [function._cache_size() for function in compiled] == before
    assert before[0] > 0 and not engine._read_motion._cache_size()
