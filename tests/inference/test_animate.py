"""The animate command: files in, files out."""

import itertools
import re
import subprocess
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.inference import animate, camera_path, motion_file, tremble
from instant_gs.portrait import photo, tracking, video
from tests.inference import fake


def decode(path):
    return list(video.open_video(path).frames())


def test_photo_and_video_to_video(inputs, run, capsys):
    out = inputs / "out.mp4"
    status = run(source=inputs / "photo.png", driving=inputs / "video.mp4", out=out)
    assert status == 0
    assert len(decode(out)) == 6 and video.open_video(out).fps == 10
    printed = capsys.readouterr()
    assert f"{out}: 6 frames of 32x32 at 10 a second" in printed.out
    speed = r"(frames per second|seconds a frame): motion code, animation and rendering"
    assert re.search(speed, printed.out)
    assert "making the avatar and the first frame" in printed.err
    assert "animate: " in printed.err and "/6 " in printed.err  # how often depends on the speed


def test_an_odd_size_is_said_as_it_is_written(inputs, run, capsys):
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 1, "size": 17}
    assert run(**values, out=inputs / "odd.mp4") == 0
    assert f"{inputs}/odd.mp4: 1 frames of 18x18" in capsys.readouterr().out


def test_slow_is_said_in_seconds():
    assert animate.Clock(frames=4, seconds=2.0).speed() == "2.0 frames per second"
    assert animate.Clock(frames=4, seconds=10.0).speed() == "2.5 seconds a frame"


def test_variable_frame_rate_keeps_the_time_to_the_end(inputs, run):
    """A second of 20 frames, then two of 5 by which the picture brightens at once."""
    path, out = inputs / "phone.mp4", inputs / "out.mp4"
    picture = "color=black:size=48x48:rate=20:duration=3,geq=lum='if(lt(T,2),60,200)':cb=128:cr=128"
    thin = "select='lt(t,1)+not(mod(n,4))'"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
    subprocess.run([*command, "-i", f"{picture},{thin}", "-fps_mode", "vfr", path], check=True)
    assert run(**aligned(inputs, path, out)) == 0
    made = video.open_video(out)
    bright = [index for index, frame in enumerate(made.frames()) if frame.mean() > 128]
    assert bright[0] / made.fps == pytest.approx(2.0, abs=0.2)
    assert made.expected_frames / made.fps == pytest.approx(3.0, abs=0.3)


def aligned(inputs, driving, out):
    Image.new("RGB", (64, 64), (9, 9, 9)).save(inputs / "aligned.png")
    source = {"source": inputs / "aligned.png", "source_aligned": True}
    return source | {"driving": driving, "driving_aligned": True, "out": out, "steady": False}


def test_everything_at_once(inputs, run):
    status = run(
        source=inputs / "photo.png",
        driving=inputs / "video.mp4",
        out=inputs / "out.mp4",
        size=40,
        side_by_side=True,
        yaw=10,
        pitch=-5,
        pose="orbit",
        orbit=20,
        ply=inputs / "frame.ply",
        ply_frame=2,
        show_crop=inputs / "crop.png",
        max_frames=4,
        fps=5,
        driving_box="fixed",
    )
    assert status == 0
    frames = decode(inputs / "out.mp4")
    assert len(frames) == 4 and frames[0].shape == (40, 120, 3)
    assert video.open_video(inputs / "out.mp4").fps == 5
    assert b"element vertex 4\n" in (inputs / "frame.ply").read_bytes()
    assert photo.read(inputs / "crop.png").image.shape == (512, 1536, 3)
    leftovers = [path.name for path in inputs.iterdir() if "partial" in path.name]
    assert leftovers == []


@pytest.mark.parametrize("steady", [True, False])
def test_aligned_inputs_need_no_detector(inputs, run, command, monkeypatch, steady):
    monkeypatch.setattr(command, "_detector", lambda: pytest.fail("no face detection expected"))
    values = aligned(inputs, inputs / "aligned.mp4", inputs / "out.mp4")
    status = run(**(values | {"steady": steady}))
    means = [frame.mean() for frame in decode(inputs / "out.mp4")]
    assert status == 0
    # The fake model shows the driver's mean colour: a ramp, which the filter follows, behind it.
    assert np.allclose(means, [20, 60, 100, 140, 180], atol=25 if steady else 4)


@pytest.mark.parametrize(("reader", "faces"), [("landmarks", 7), ("encoder", 0), (None, 0)])
def test_the_landmark_network_reads_if_told(inputs, run, model, monkeypatch, reader, faces):
    """Photo and six frames; these weights did not learn from coefficients."""
    read = []
    monkeypatch.setattr(
        model, "code_from_coefficients", lambda known: read.append(known) or np.zeros(4)
    )
    monkeypatch.setattr(model, "motion_code", lambda image: np.zeros(4))
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    values |= {"reader": reader} if reader else {}
    assert run(**values, out=inputs / "out.mp4", steady=False) == 0
    assert len(read) == faces


@pytest.mark.parametrize("reader", ["landmarks", "encoder"])
def test_a_photo_is_read_as_the_recorded_driver_was(
    inputs, run, model, monkeypatch, capsys, reader
):
    read = []
    monkeypatch.setattr(
        model, "code_from_coefficients", lambda known: read.append(known) or np.zeros(4)
    )
    files = {"source": inputs / "photo.png", "record": inputs / "motion.npz"}
    assert run(**files, driving=inputs / "video.mp4", out=inputs / "a.mp4", reader=reader) == 0
    assert motion_file.load(files.pop("record")).reader == reader
    read.clear()
    files["driving"] = inputs / "motion.npz"
    assert run(**files, out=inputs / "b.mp4") == 0
    assert len(read) == (reader == "landmarks") and "was read by" not in capsys.readouterr().err
    other = {"landmarks": "encoder", "encoder": "landmarks"}[reader]
    assert run(**files, out=inputs / "c.mp4", reader=other) == 0
    warning = f"its driver was read by the {reader}, the photo is by the {other}"
    assert warning in capsys.readouterr().err


def test_a_cut_out_photo_of_a_recording_by_landmarks_is_the_encoders(inputs, run, capsys):
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    record = {"record": inputs / "motion.npz", "reader": "landmarks"}
    assert run(**values, **record, out=inputs / "a.mp4") == 0
    values = {"source": inputs / "cut.png", "driving": inputs / "motion.npz"}
    Image.new("RGB", (48, 48), (90, 60, 40)).save(values["source"])
    assert run(**values, source_aligned=True, out=inputs / "b.mp4") == 0
    assert "was read by the landmarks, the photo is by the encoder" in capsys.readouterr().err


def test_frames_are_calm_unless_told_otherwise():
    drivers = [np.full((32, 32, 3), 100 + (-1) ** index, np.uint8) for index in range(30)]

    def colors(steady):
        cameras = camera_path.orbit(30)
        made = animate.frames(
            fake.Engine(), drivers[0], drivers, cameras, size=16, fps=25, steady=steady
        )
        return [int(frame.image[0, 0, 0]) for frame in made]

    assert colors(False) == [101, 99] * 15 or colors(False) == [99, 101] * 15
    assert len(set(colors(True)[10:])) == 1


@pytest.mark.parametrize(("expression", "color"), [(0.0, 40), (0.5, 70), (1.0, 100), (2.0, 160)])
def test_the_photos_expression_goes_part_of_the_way_or_beyond(expression, color):
    class Engine(fake.Engine):
        def motion_code(self, image):
            return np.ones(4)

        def motion(self, code_source, code_driving):  # of the photo alone 30, driven by itself 40
            value = 30 * code_source.mean() + 10 * code_driving.mean()
            return types.Motion(*np.full((2, 3), value, np.float32))

    driver, camera = np.full((32, 32, 3), 100, np.uint8), list(camera_path.orbit(1))
    options = {"size": 16, "fps": 25, "steady": False, "expression": expression}
    (frame,) = animate.frames(
        Engine(), fake.picture(32, 32, 16, 14, 20), [driver], camera, **options
    )
    assert frame.image[0, 0, 0] == color
    assert np.allclose(frame.motion.scale, color - 30), "what a recording keeps"
    recorded = types.Motion(*np.full((2, 3), 70, np.float32))  # the driver's part of 100
    (again,) = animate.frames(Engine(), driver, [recorded], camera, **options)
    assert again.image[0, 0, 0] == color


def test_an_exaggerated_expression_is_calm():
    drivers = [np.full((32, 32, 3), 100 + (-1) ** index, np.uint8) for index in range(30)]
    cameras = camera_path.orbit(31)
    options = {"size": 16, "fps": 25, "expression": 2.0}
    made = list(animate.frames(fake.Engine(), drivers[0], drivers, cameras, **options))
    assert len({int(frame.image[0, 0, 0]) for frame in made[10:]}) == 1, "filtered first"


def test_the_expression_is_a_flag(inputs, run):
    values = aligned(inputs, inputs / "aligned.mp4", inputs / "out.mp4")
    assert run(**(values | {"steady": False, "expression": 0.5})) == 0
    means = [frame.mean() for frame in decode(inputs / "out.mp4")]
    assert np.allclose(means, [10, 30, 50, 70, 90], atol=4)


def test_where_the_first_driver_shows_nothing_the_photo_tells_the_noise():
    class Engine(fake.Engine):
        def read_motion(self, code_source, driver):
            return types.Motion(*np.full((2, 3), driver[8:24, 8:24].mean(), np.float32))

    logo, random = np.zeros((32, 32, 3), np.uint8), np.random.default_rng(3)
    logo[-4:, -4:] = 200
    still = fake.picture(32, 32, 16, 14, 20)
    drivers = [logo, *(tremble.disturb(still, random) for _ in range(60))]

    def flicker(steady):
        cameras = camera_path.orbit(len(drivers))
        made = animate.frames(Engine(), still, drivers, cameras, size=16, fps=25, steady=steady)
        return np.abs(np.diff([frame.motion.scale[0] for frame in made])[10:]).mean()

    assert flicker(True) < 0.5 * flicker(False)


def test_a_recorded_motion_drives_another_photo(inputs, run, capsys):
    values = aligned(inputs, inputs / "aligned.mp4", inputs / "a.mp4") | {"steady": True}
    assert run(**values, record=inputs / "motion.npz") == 0
    assert f"{inputs}/motion.npz: the motion of 5 frames" in capsys.readouterr().out
    replay = {"source": inputs / "photo.png", "driving": inputs / "motion.npz"}
    assert run(**replay, out=inputs / "b.mp4") == 0
    assert np.array_equal(decode(inputs / "a.mp4"), decode(inputs / "b.mp4"))
    assert video.open_video(inputs / "b.mp4").fps == 10
    assert run(**replay, out=inputs / "c.mp4", max_frames=2, fps=5, pose="orbit") == 0
    made = video.open_video(inputs / "c.mp4")
    assert made.fps == 5 and len(list(made.frames())) == 2


def test_a_recording_of_other_weights_is_refused(inputs, run, model, capsys):
    values = aligned(inputs, inputs / "aligned.mp4", inputs / "a.mp4")
    assert run(**values, record=inputs / "motion.npz") == 0
    model.params = fake.Engine(weight=2.0).params
    replay = {"source": inputs / "photo.png", "driving": inputs / "motion.npz"}
    assert run(**replay, out=inputs / "b.mp4") == 1
    assert f"error: {inputs}/motion.npz: recorded with other weights" in capsys.readouterr().err
    assert not (inputs / "b.mp4").exists()


def test_a_lost_face_comes_to_rest(inputs, run, command, monkeypatch, capsys):
    found = fake.Face(fake.landmarks(130, 90, 120))
    detectors = iter([fake.Detector(found), fake.Detector(found, None)])  # photo, video
    with video.Writer(inputs / "dark.mp4", fps=10) as writer:
        for _ in range(6):
            writer.append(fake.picture() // 3)

    def detector():
        return next(detectors)

    monkeypatch.setattr(command, "_detector", detector)
    values = {"source": inputs / "photo.png", "driving": inputs / "dark.mp4"}
    assert run(**values, out=inputs / "a.mp4", hold=0.2, steady=False) == 0
    said = "the expression before is held for 0.2 s, then the photo's own returns"
    assert said in capsys.readouterr().err
    means = [frame.mean() for frame in decode(inputs / "a.mp4")]
    assert max(means[:3]) < 0.6 * min(means[3:]), "dark for the frame and the two that are held"


@pytest.mark.parametrize("steady", [True, False])
def test_until_the_first_face_the_photos_expression_is_shown(
    inputs, run, command, monkeypatch, steady, capsys
):
    found = fake.Face(fake.landmarks(130, 90, 120))
    detectors = iter([fake.Detector(found), fake.Detector(None, None, found)])  # photo, video
    monkeypatch.setattr(command, "_detector", lambda: next(detectors))
    with video.Writer(inputs / "dark.mp4", fps=10) as writer:
        for _ in range(6):
            writer.append(fake.picture() // 3)
    values = {"source": inputs / "photo.png", "driving": inputs / "dark.mp4"}
    assert run(**values, out=inputs / "a.mp4", steady=steady) == 0
    means = [frame.mean() for frame in decode(inputs / "a.mp4")]
    assert max(means[2:]) < 0.6 * min(means[:2]) and len(means) == 6
    assert "in 2 of 6 frames" in capsys.readouterr().err


def test_black_aligned_frames_show_the_photos_expression(inputs, run, capsys):
    with video.Writer(inputs / "late.mp4", fps=10) as writer:
        for level in (0, 0, 200, 200, 0):
            writer.append(np.full((48, 48, 3), level, np.uint8))
    values = aligned(inputs, inputs / "late.mp4", inputs / "out.mp4")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(values["source"])
    assert run(**values) == 0
    means = [frame.mean() for frame in decode(inputs / "out.mp4")]
    assert means == pytest.approx([90, 90, 200, 200, 90], abs=4)
    assert f"{inputs}/late.mp4: 3 of 5 frames are black; the photo's" in capsys.readouterr().err


@pytest.mark.parametrize(("encoder", "expected"), [("learned", True), ("fan", False)])
def test_drivers_are_matted_if_their_encoder_expects_it(
    inputs, run, model, monkeypatch, encoder, expected
):
    seen, drivers = [], tracking.drivers

    def spy(*frames, matte, **options):
        seen.append(matte)
        return drivers(*frames, matte=matte, **options)

    model.config = config_lib.Config()
    model.config.model.motion.encoder = encoder
    monkeypatch.setattr(tracking, "drivers", spy)
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "overwrite": True}
    shown = {"side_by_side": True}
    for given in ({}, {"driving_matte": True}, {"driving_matte": False}, shown):
        assert run(**values, out=inputs / "a.mp4", max_frames=1, **given) == 0
    assert seen == [expected, True, False, True]


@pytest.mark.parametrize(
    ("function", "given", "argument", "expected"),
    [
        ("drivers", {"hold": 0.05}, "hold", 1),  # at 10 frames a second; 0 would be for ever
        ("drivers", {"hold": 0.25}, "hold", 3),
        ("track", {"driving_box": "fixed"}, "box", "fixed"),
        ("track", {}, "box", "smoothed"),
    ],
)
def test_the_driving_face_is_followed_as_told(
    inputs, run, monkeypatch, function, given, argument, expected
):
    seen, real = [], getattr(tracking, function)

    def spy(*arguments, **options):
        seen.append(options[argument])
        return real(*arguments, **options)

    monkeypatch.setattr(tracking, function, spy)
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    assert run(**values, out=inputs / "a.mp4", max_frames=1, **given) == 0
    assert seen == [expected]


def test_a_mask_says_what_of_the_photo_is_the_person(inputs, run, model):
    seen = []
    model.encode = lambda image, code: seen.append(image)
    left = np.zeros(fake.picture().shape[:2], np.uint8)
    left[:, :130] = 255  # to the middle of the head
    Image.fromarray(left).save(inputs / "mask.png")
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 1}
    assert run(**values, out=inputs / "a.mp4", mask=inputs / "mask.png") == 0
    (image,) = seen
    assert image[:, 18:].max() < 30 and image[12:20, 4:14].min() > 30, "the wall is kept, too"


def test_the_exported_frame_is_the_one_asked_for(inputs, run, model):
    frame, counts = model.frame, itertools.count(3)  # frame 0 has 3 Gaussians, frame 1 has 4
    model.frame = lambda *given: frame(*given)._replace(gaussians=fake.gaussians(next(counts)))
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 4}
    assert run(**values, out=inputs / "a.mp4", ply=inputs / "a.ply", ply_frame=2) == 0
    visible = 5 - 1
    assert f"element vertex {visible}\n".encode() in (inputs / "a.ply").read_bytes()


def test_culling_is_the_users_choice(inputs, run, model):
    chosen = []
    model.with_culling = lambda way: chosen.append(way) or model
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 1}
    assert run(**values, out=inputs / "a.mp4") == 0 and chosen == []
    assert run(**values, out=inputs / "b.mp4", culling="source") == 0 and chosen == ["source"]
    assert run(**values, out=inputs / "c.mp4", culling="teeth") == 2


def test_missing_gaussians_are_said(inputs, run, model, capsys):
    frame, chosen = model.frame, []
    model.frame = lambda *given: frame(*given)._replace(overflow=np.int32(0 if chosen else 900))
    model.raster_options = {48: SimpleNamespace(capacity=100)}.get
    model.with_capacity = lambda capacity: chosen.append(capacity) or model
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "size": 48}
    assert run(**values, out=inputs / "a.mp4") == 0
    said = f"warning: {inputs}/a.mp4: 6 of 6 frames: Gaussians are missing: 900 of 1000 places"
    printed = capsys.readouterr().err
    assert said in printed and "pass --capacity=2048" in printed
    assert run(**values, out=inputs / "b.mp4", capacity=2048) == 0 and chosen == [2048]
    assert "Gaussians are missing" not in capsys.readouterr().err


def test_slow_results(inputs, run):
    """Frames of a folder may be seconds apart, and a swing has one at least."""
    (inputs / "frames").mkdir()
    for index in range(2):
        Image.fromarray(fake.picture()).save(inputs / "frames" / f"{index}.png")
    for driving, pose, fps, count in (("frames", "fixed", 0.5, 2), (None, "orbit", 0.1, 1)):
        values = {"driving": inputs / driving} if driving else {}
        values |= {"source": inputs / "photo.png", "out": inputs / f"{pose}.mp4", "pose": pose}
        assert run(**values, fps=fps) == 0
        assert len(decode(inputs / f"{pose}.mp4")) == count
