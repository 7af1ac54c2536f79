"""The command: files in, files out, and one clear line with an exit code for bad input."""

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from instant_gs import cli, inference
from instant_gs import config as config_lib
from instant_gs.geometry import camera as geometry
from instant_gs.inference import animate, camera_path, export
from instant_gs.portrait import alignment, matting, photo, tracking, video
from tests import own_flags
from tests.inference import fake


@pytest.fixture(scope="module")
def command():
    """The command's module, its flags defined while these tests run and not a moment longer."""
    with own_flags.alone():
        module = importlib.import_module("instant_gs.animate")
        flags.FLAGS(["animate"])
        yield module
    del sys.modules[module.__name__]


@pytest.fixture
def run(command):
    """Runs the command in this process; returns its exit status."""

    def call(**values):
        arguments = [f"--{name}={value}" for name, value in values.items()]
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
            cli.run(command.main, ["animate", *arguments])
        return caught.value.code or 0

    return call


@pytest.fixture
def inputs(tmp_path, monkeypatch, command):
    """A photo, a video of the same painted head, a fake model and a fake detector."""
    picture = fake.picture()
    Image.fromarray(picture).save(tmp_path / "photo.png")
    with video.Writer(tmp_path / "video.mp4", fps=10) as writer:
        for index in range(6):
            writer.append(np.roll(picture, 2 * index, axis=1))
    with video.Writer(tmp_path / "aligned.mp4", fps=10) as writer:
        for index in range(5):
            writer.append(np.full((48, 48, 3), 40 * index + 20, np.uint8))
    monkeypatch.setattr(inference, "load", lambda directory: fake.Engine())
    monkeypatch.setattr(matting, "_network", fake.Segmenter)
    detector = fake.Detector(fake.Face(fake.landmarks(130, 90, 120)))
    monkeypatch.setattr(command, "_detector", lambda: detector)
    return tmp_path


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
    assert len(export.read_ply(inputs / "frame.ply").means) == 4
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


def test_a_recording_of_other_weights_is_refused(inputs, run, monkeypatch, capsys):
    values = aligned(inputs, inputs / "aligned.mp4", inputs / "a.mp4")
    assert run(**values, record=inputs / "motion.npz") == 0

    monkeypatch.setattr(inference, "load", lambda directory: fake.Engine(weight=2.0))
    replay = {"source": inputs / "photo.png", "driving": inputs / "motion.npz"}
    assert run(**replay, out=inputs / "b.mp4") == 1
    assert f"error: {inputs}/motion.npz: recorded with other weights" in capsys.readouterr().err
    assert not (inputs / "b.mp4").exists()


def test_a_lost_face_comes_to_rest(inputs, run, command, monkeypatch):
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
    means = [frame.mean() for frame in decode(inputs / "a.mp4")]
    assert max(means[:3]) < 0.6 * min(means[3:]), "dark for the frame and the two that are held"


@pytest.mark.parametrize(("encoder", "expected"), [("learned", True), ("fan", False)])
def test_drivers_are_matted_if_their_encoder_expects_it(
    inputs, run, monkeypatch, encoder, expected
):
    seen, drivers = [], tracking.drivers

    def spy(*frames, matte, **options):
        seen.append(matte)
        return drivers(*frames, matte=matte, **options)

    class Engine(fake.Engine):
        config = config_lib.Config(
            model=config_lib.ModelConfig(motion=config_lib.MotionConfig(encoder=encoder))
        )

    monkeypatch.setattr(tracking, "drivers", spy)
    monkeypatch.setattr(inference, "load", lambda directory: Engine())
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "overwrite": True}
    for given in ({}, {"driving_matte": True}, {"driving_matte": False}):
        assert run(**values, out=inputs / "a.mp4", max_frames=1, **given) == 0
    assert seen == [expected, True, False]


def test_culling_is_the_users_choice(inputs, run, monkeypatch):
    chosen = []

    class Engine(fake.Engine):
        def with_culling(self, way):
            chosen.append(way)
            return self

    monkeypatch.setattr(inference, "load", lambda directory: Engine())
    values = {"source": inputs / "photo.png", "pose": "orbit", "max_frames": 1}
    assert run(**values, out=inputs / "a.mp4") == 0 and chosen == []
    assert run(**values, out=inputs / "b.mp4", culling="source") == 0 and chosen == ["source"]
    assert run(**values, out=inputs / "c.mp4", culling="teeth") == 2


def test_orbit_without_a_video(inputs, run):
    status = run(source=inputs / "photo.png", out=inputs / "o.mp4", pose="orbit", max_frames=7)
    assert status == 0 and len(decode(inputs / "o.mp4")) == 7


def test_orbit_is_a_pose_of_the_camera(inputs, run, command, monkeypatch):
    yaws = record_yaws(command, monkeypatch)
    values = {"source": inputs / "photo.png", "out": inputs / "o.mp4", "pose": "orbit"}
    assert run(**values, fps=10, yaw=5) == 0
    assert max(yaws) == pytest.approx(35, abs=0.2) and min(yaws) == pytest.approx(-25, abs=0.2)


def test_the_drivers_head_leads_the_camera(inputs, run, command, monkeypatch):
    yaws = record_yaws(command, monkeypatch)
    pose = geometry.look_at(math.radians(20), 0.0)
    turned = fake.landmarks(130, 90, 120, pose[:3, :3].T @ np.diag([1.0, -1.0, -1.0]))
    monkeypatch.setattr(command, "_detector", lambda: fake.Detector(fake.Face(turned)))
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "overwrite": True}
    assert run(**values, out=inputs / "a.mp4", pose="driver", yaw=-5) == 0
    assert yaws == pytest.approx([15] * 6, abs=0.01)
    yaws.clear()
    assert run(**values, out=inputs / "a.mp4", yaw=-5) == 0
    assert yaws == pytest.approx([-5] * 6), "fixed is the default"


def test_weights_of_another_view_get_their_crops_and_cameras(inputs, run, monkeypatch):
    config, seen = config_lib.Config(), []
    config.model.fov_degrees = geometry.FOV_LEGACY_DEGREES
    locate = alignment.locate

    class Engine(fake.Engine):
        def frame(self, avatar, motion, camera, size):
            seen.append(float(camera.intrinsics[0, 0]))
            return super().frame(avatar, motion, camera, size)

    def spy(landmarks, *, fov_degrees):
        seen.append(fov_degrees)
        return locate(landmarks, fov_degrees=fov_degrees)

    engine = Engine()
    engine.config = config
    monkeypatch.setattr(inference, "load", lambda directory: engine)
    monkeypatch.setattr(alignment, "locate", spy)
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    assert run(**values, out=inputs / "a.mp4", max_frames=2) == 0
    assert seen == pytest.approx([18.837] * 3 + [4.26339] * 2, abs=1e-4)


def record_yaws(command, monkeypatch):
    """Degrees of the cameras that the engine gets, filled while the command runs."""
    yaws = []

    class Engine(fake.Engine):
        def frame(self, avatar, motion, camera, size):
            place = camera.cam2world[:3, 3]
            yaws.append(math.degrees(math.atan2(place[0], place[2])))
            return super().frame(avatar, motion, camera, size)

    monkeypatch.setattr(inference, "load", lambda directory: Engine())
    return yaws


BAD_INPUTS = {
    "no source": ({"source": None}, 2, "--source is missing"),
    "no out": ({"out": None}, 2, "--out is missing"),
    "no driving": ({"driving": None}, 2, "--driving is missing"),
    "driver's pose of nobody": ({"driving": None, "pose": "driver"}, 2, "--driving is missing"),
    "driver's pose of crops": (
        {"pose": "driver", "driving_aligned": True},
        2,
        "--pose=driver: frames that are cut out already",
    ),
    "beside a recording": (
        {"driving": "motion.npz", "side_by_side": True},
        2,
        "--side_by_side: has no effect with the recording {}/motion.npz",
    ),
    "pose of a recording": (
        {"driving": "motion.npz", "pose": "driver"},
        2,
        "--pose=driver: the recording {}/motion.npz does not tell",
    ),
    "text as recording": ({"driving": "text.npz"}, 1, "{}/text.npz: not a motion file"),
    "missing recording": ({"driving": "gone.npz"}, 1, "{}/gone.npz: no such file"),
    "record's ending": ({"record": "motion.txt"}, 2, "--record: {}/motion.txt must end in .npz"),
    "record exists": ({"record": "text.npz"}, 1, "--record: {}/text.npz exists already"),
    "hold": ({"hold": -1}, 2, "--hold: expected 0 or more seconds"),
    "swing of a fixed camera": ({"pose": "fixed", "orbit": 9}, 2, "--orbit: has no effect with"),
    "wrong flag": ({"sorce": "x"}, 2, "unknown flag --sorce: did you mean --source?"),
    "wrong value": ({"size": "big"}, 2, "--size"),
    "tiny size": ({"size": 3}, 2, "--size: expected 16 to 4096"),
    "pole": ({"pitch": 90}, 2, "--pitch: expected -80 to 80"),
    "not a number": ({"yaw": "nan"}, 2, "--yaw: expected a number"),
    "ending": ({"out": "out.gif"}, 2, "out.gif must end in .mp4"),
    "exists": ({"out": "aligned.mp4"}, 1, "--out: {}/aligned.mp4 exists already"),
    "missing photo": ({"source": "gone.png"}, 1, "{}/gone.png: no such file"),
    "text as photo": ({"source": "text.txt"}, 1, "{}/text.txt: this is not an image"),
    "1x1 photo": ({"source": "dot.png"}, 1, "{}/dot.png: the image is 1x1 pixels"),
    "missing video": ({"driving": "gone.mp4"}, 1, "{}/gone.mp4: no such file"),
    "text as video": ({"driving": "text.txt"}, 1, "{}/text.txt: not a video"),
    "truncated video": ({"driving": "cut.mp4"}, 1, "{}/cut.mp4: the video is damaged or cut off"),
    "ply frame": ({"ply": "a.ply", "ply_frame": 6}, 1, "--ply_frame: the result has 6 frames"),
    "mask size": ({"mask": "dot.png"}, 1, "{}/dot.png: the mask is 1x1"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_one_clear_line(inputs, run, capsys, case):
    changes, status, message = BAD_INPUTS[case]
    (inputs / "text.txt").write_text("This is a letter, not a picture.")
    (inputs / "text.npz").write_text("This is a letter, not a recording.")
    Image.new("RGB", (1, 1)).save(inputs / "dot.png")
    data = (inputs / "video.mp4").read_bytes()
    (inputs / "cut.mp4").write_bytes(data[: data.index(b"mdat") + 60])
    before = sorted(inputs.iterdir())
    values = {"source": "photo.png", "driving": "video.mp4", "out": "out.mp4", **changes}
    files = ("source", "driving", "out", "ply", "mask", "record")
    arguments = {
        name: inputs / value if name in files else value
        for name, value in values.items()
        if value is not None
    }
    assert run(**arguments) == status
    printed = capsys.readouterr().err.strip()
    last = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(last) == 1 and message.format(inputs) in last[0], printed
    assert "Traceback" not in printed
    assert sorted(inputs.iterdir()) == before, "nothing is left behind"


def test_no_face_in_photo_or_video(inputs, run, command, capsys, monkeypatch):
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    monkeypatch.setattr(command, "_detector", lambda: fake.Detector(None))
    assert run(**values, out=inputs / "out.mp4") == 1
    assert f"error: {inputs}/photo.png: no face found" in capsys.readouterr().err
    found = fake.Face(fake.landmarks(130, 90, 120))
    detector = fake.Detector(found, None)
    monkeypatch.setattr(command, "_detector", lambda: detector)
    assert run(**values, out=inputs / "out.mp4") == 1
    assert f"error: {inputs}/video.mp4: no face in any of 6 frames" in capsys.readouterr().err
    assert not (inputs / "out.mp4").exists()


def test_missing_weights_in_a_process_of_its_own(inputs):
    paths = {"source": "photo.png", "driving": "video.mp4", "out": "out.mp4", "weights": "nowhere"}
    arguments = [f"--{name}={inputs / path}" for name, path in paths.items()]
    done = subprocess.run(
        [sys.executable, "-m", "instant_gs.animate", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"error: {inputs}/nowhere: no such folder of weights; give one that ")
    assert "python -m instant_gs.convert --checkpoint=ckpt.pth --out=FOLDER" in message
    assert message.endswith("/instant_gs/weights/demo)"), "what ships, and where it is"
    assert not (inputs / "out.mp4").exists()


def test_missing_face_detector_says_how_to_install_it(command, monkeypatch):
    def broken():
        raise ImportError("the network is missing; run `pip install x`")

    monkeypatch.setattr("instant_gs.metrics.face.FaceLandmarker", broken)
    command._detector.cache_clear()
    with pytest.raises(cli.UserError, match=r"finding faces: .*pip install x"):
        command._detector()
