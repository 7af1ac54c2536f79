"""Bad input of the animate command: one clear line and an exit code, and nothing is left behind."""

import pytest
from PIL import Image

from instant_gs import cli
from instant_gs import config as config_lib
from instant_gs.data import digest
from tests import own_process
from tests.inference import fake

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
    "a table without a rate": (
        {"driving": "take.csv"},
        2,
        "--fps is missing: say how many rows of {}/take.csv are a second",
    ),
    "pose of a table": (
        {"driving": "take.csv", "pose": "driver", "fps": 60},
        2,
        "--pose=driver: the recording {}/take.csv does not tell",
    ),
    "missing table": ({"driving": "gone.csv", "fps": 60}, 1, "{}/gone.csv: no such file"),
    "text as table": (
        {"driving": "take.csv", "fps": 60, "reader": "landmarks"},
        1,
        "{}/take.csv: the first line, 'This",
    ),
    "text as recording": ({"driving": "text.npz"}, 1, "{}/text.npz: not a motion file"),
    "missing recording": ({"driving": "gone.npz"}, 1, "{}/gone.npz: no such file"),
    "record's ending": ({"record": "motion.txt"}, 2, "--record: {}/motion.txt must end in .npz"),
    "record exists": ({"record": "text.npz"}, 1, "--record: {}/text.npz exists already"),
    "below a file": (
        {"out": "photo.png/out.mp4"},
        1,
        "--out: {0}/photo.png/out.mp4: {0}/photo.png is no folder; choose another path",
    ),
    "out where no file can be": (  # and the video is not looked at
        {"out": "/proc/out.mp4", "driving": "text.txt"},
        1,
        "--out: /proc/out.mp4: no file can be made in /proc (",
    ),
    "record below a file": ({"record": "photo.png/m.npz"}, 1, "--record: {}/photo.png/m.npz: "),
    "picture of the crop, then no video": (
        {"show_crop": "crop.png", "driving": "text.txt"},
        1,
        "{}/text.txt: not a video",
    ),
    "tracking of crops": (
        {"driving": "aligned.mp4", "driving_aligned": True, "hold": 1},
        2,
        "--hold: has no effect with --driving_aligned",
    ),
    "landmarks of crops": (
        {"reader": "landmarks", "driving": "aligned.mp4", "driving_aligned": True},
        2,
        "--reader=landmarks: in pictures that are cut out no face is looked for; leave out --driv",
    ),
    "tracking of nothing": (
        {"driving": None, "pose": "orbit", "driving_box": "fixed"},
        2,
        "--driving_box: has no effect with no --driving",
    ),
    "too many": ({"gaussians": 10**6}, 2, "--gaussians: expected at most 262144, which these"),
    "hold": ({"hold": -1}, 2, "--hold: expected 0 or more seconds"),
    "expression": ({"expression": -1}, 2, "--expression: expected 0 to 10, got -1"),
    "per cent": ({"expression": 150}, 2, "--expression: expected 0 to 10, got 150; 1 is"),
    "whose expression": (
        {"driving": None, "pose": "orbit", "expression": 2},
        2,
        "--expression: has no effect with no --driving",
    ),
    "no expression": ({"expression": "nan"}, 2, "--expression: expected a number, got nan"),
    "swing of a fixed camera": ({"pose": "fixed", "orbit": 9}, 2, "--orbit: has no effect with"),
    "wrong flag": ({"sorce": "x"}, 2, "unknown flag --sorce: did you mean --source?"),
    "wrong value": ({"size": "big"}, 2, "--size"),
    "tiny size": ({"size": 3}, 2, "--size: expected 16 to 4096"),
    "too slow": ({"fps": 0.009}, 2, "--fps: expected 0.01 to 1000, or 0 (the video's), got 0.009"),
    "pole": ({"pitch": 90}, 2, "--pitch: expected -80 to 80"),
    "not a number": ({"yaw": "nan"}, 2, "--yaw: expected a number"),
    "ending": ({"out": "out.gif"}, 2, "out.gif must end in .mp4"),
    "photo as another ending": ({"out": "photo.png"}, 2, "photo.png must end in .mp4"),
    "exists": ({"out": "aligned.mp4"}, 1, "--out: {}/aligned.mp4 exists already"),
    "photo as result": (
        {"show_crop": "photo.png", "overwrite": True},
        2,
        "--show_crop: {}/photo.png would replace --source",
    ),
    "driver as result": (
        {"out": "video.mp4", "overwrite": True},
        2,
        "--out: {}/video.mp4 would replace --driving",
    ),
    "recording as result": (
        {"driving": "text.npz", "record": "text.npz", "overwrite": True},
        2,
        "--record: {}/text.npz would replace --driving",
    ),
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
    (inputs / "take.csv").write_text("This is a letter, not a table.")
    (inputs / "text.npz").write_text("This is a letter, not a recording.")
    Image.new("RGB", (1, 1)).save(inputs / "dot.png")
    data = (inputs / "video.mp4").read_bytes()
    (inputs / "cut.mp4").write_bytes(data[: data.index(b"mdat") + 60])
    before = sorted(inputs.iterdir())
    values = {"source": "photo.png", "driving": "video.mp4", "out": "out.mp4", **changes}
    files = ("source", "driving", "out", "ply", "mask", "record", "show_crop")
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


@pytest.fixture
def frames(inputs):
    """A folder of three driving frames."""
    (inputs / "frames").mkdir()
    for index in range(3):
        data = (inputs / "photo.png").read_bytes()
        (inputs / "frames" / f"{index}.png").write_bytes(data)
    return inputs / "frames"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", ["0.png", "new.png"])
def test_no_picture_becomes_a_driving_frame(inputs, frames, run, capsys, name, overwrite):
    values = {"source": inputs / "photo.png", "driving": frames, "overwrite": overwrite}
    before = digest.folder_sha256(frames)
    assert run(**values, out=inputs / "out.mp4", show_crop=frames / name) == 2
    message = f"--show_crop: {frames}/{name} would be a frame of --driving; choose another folder"
    assert message in capsys.readouterr().err
    assert digest.folder_sha256(frames) == before


def test_results_may_lie_beside_inputs_and_be_made_again(inputs, frames, run, capsys, monkeypatch):
    monkeypatch.chdir(frames)
    (frames / "weights").mkdir()
    values = {"source": inputs / "photo.png", "weights": "weights"}
    for driving, out in ((frames, frames / "a.mp4"), (".", "b.mp4"), (".", "weights/c.mp4")):
        values |= {"driving": driving, "out": out, "show_crop": inputs / "crop.png"}
        assert run(**values, overwrite=True) == 0
        capsys.readouterr()
        assert run(**values) == 1
        assert "exists already; choose another path or add --overwrite" in capsys.readouterr().err
        assert run(**values, overwrite=True) == 0
        assert "3 frames" in capsys.readouterr().out


def test_a_link_to_an_input_is_replaced_and_the_input_stays(inputs, run, capsys):
    before = (inputs / "video.mp4").read_bytes()
    (inputs / "link.mp4").symlink_to("video.mp4")
    values = {"source": inputs / "photo.png", "overwrite": True}
    for out in ("video.mp4", "link.mp4"):
        assert run(**values, driving=inputs / "link.mp4", out=inputs / out) == 2
        assert f"--out: {inputs}/{out} would replace --driving" in capsys.readouterr().err
    assert run(**values, driving=inputs / "video.mp4", out=inputs / "link.mp4") == 0
    assert (inputs / "video.mp4").read_bytes() == before
    assert not (inputs / "link.mp4").is_symlink()


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


def test_weights_that_read_no_expression_are_refused_at_once(inputs, run, model, capsys):
    del model.params["motion_encoder"]
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4", "weights": "w"}
    assert run(**values, out=inputs / "out.mp4") == 1
    assert "error: --weights: w holds no motion encoder" in capsys.readouterr().err


def test_weights_that_know_no_coefficients_take_no_landmarks(inputs, run, model, capsys):
    model.config = config_lib.Config()
    model.config.model.motion.encoder = "fan"
    values = {"source": inputs / "photo.png", "driving": inputs / "video.mp4"}
    assert run(**values, out=inputs / "out.mp4", reader="landmarks") == 2
    assert 'error: --reader: expected "encoder" for these weights' in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["fan", "learned"])
def test_weights_that_know_no_coefficients_take_no_table(inputs, run, model, capsys, encoder):
    model.config = config_lib.Config()
    model.config.model.motion.encoder = encoder
    model.config.motion_pretrain.steps = 0  # nothing says that they learned from coefficients
    (inputs / "take.csv").write_text("jawOpen\n0.5\n")
    values = {"source": inputs / "photo.png", "driving": inputs / "take.csv", "fps": 60}
    assert run(**values, out=inputs / "out.mp4") == 2
    assert "take.csv holds coefficients, and these weights do not say" in capsys.readouterr().err


def test_missing_weights_in_a_process_of_its_own(inputs):
    paths = {"source": "photo.png", "driving": "video.mp4", "out": "out.mp4", "weights": "nowhere"}
    arguments = [f"--{name}={inputs / path}" for name, path in paths.items()]
    done = own_process.run("-m", "instant_gs.animate", *arguments)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"error: {inputs}/nowhere: no such folder of weights; give a folder ")
    assert "python -m instant_gs.convert --checkpoint=ckpt.pth --out=FOLDER" in message
    assert message.endswith("or the name of shipped weights (small, demo)")
    assert not (inputs / "out.mp4").exists()


def test_missing_face_detector_says_how_to_install_it(command, monkeypatch):
    def broken():
        raise ImportError("the network is missing; run `pip install x`")

    monkeypatch.setattr("instant_gs.metrics.face.FaceLandmarker", broken)
    command._detector.cache_clear()
    with pytest.raises(cli.UserError, match=r"finding faces: .*pip install x"):
        command._detector()
