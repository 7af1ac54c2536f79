"""Tables of ARKit's blend shapes, as phones and animation programs write them."""

import numpy as np
import pytest

from instant_gs import cli, types
from instant_gs.data import format as data_format
from instant_gs.inference import coefficient_file, motion_file
from instant_gs.portrait import video

NAMES = data_format.COEFFICIENT_NAMES


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_phones_table(tmp_path):
    """Live Link Face: time code, count, ARKit's names from a capital letter on, angles."""
    titles = [name[0].upper() + name[1:] for name in reversed(NAMES)]
    numbers = np.random.default_rng(0).random((3, 52)).round(4)
    lines = [",".join(["Timecode", "BlendshapeCount", *titles, "HeadYaw", "LeftEyeYaw"])]
    for frame, row in enumerate(numbers):
        cells = [f"12:27:47:{47 + 2 * frame}.169", "61", *map(str, row[::-1]), "-3.1", "7.5"]
        lines.append(",".join(cells))
    rows, missing = coefficient_file.load(write(tmp_path / "take.csv", *lines))
    assert missing == [] and rows.dtype == np.float32
    np.testing.assert_allclose(rows, numbers, atol=1e-6)


def test_a_programs_table_of_some(tmp_path):
    """Names with a path, quotes, a byte order mark, Windows' line ends, empty lines."""
    header = '\ufefftime,"rig.blendShapes.JawOpen",blendShapes.eyeBlinkLeft\r\n'
    (tmp_path / "a.csv").write_bytes((header + "0.0,0.5,1e-1\r\n\r\n0.1,1.25,0\r\n").encode())
    rows, missing = coefficient_file.load(tmp_path / "a.csv")
    expected = np.zeros((2, 52))
    expected[:, NAMES.index("jawOpen")] = [0.5, 1.25]
    expected[:, NAMES.index("eyeBlinkLeft")] = [0.1, 0.0]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert missing == [n for n in NAMES if n not in ("jawOpen", "eyeBlinkLeft")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"the first line, '', names none of ARKit's blend shapes, such as eyeBlinkLeft"),
        (["jawOpen;eyeBlinkLeft", "0;0"], "'jawOpen;eyeBlinkLeft', .* with commas between them"),
        (["0.1,0.2"], "'0.1,0.2', names none"),
        (["jawOpen", '"0.1', "0.2"], "line 3: no CSV .* mend it"),
        (["jawOpen,x", "0.5,1", ",", "0.5,1"], "line 3, jawOpen: .* got ''; fill it in"),
        (["jawOpen"], "has no rows; give a row for each frame"),
        (["jawOpen,a.JawOpen", "0,0"], "two columns are jawOpen; leave one out"),
        (
            ["time,jawOpen", "0,0", "1"],
            "line 3 has 1 cells, the first line 2; fill it in, or delete",
        ),
        (["jawOpen,time", "0,0", "x,0"], "line 3, jawOpen: expected a number, 0 .* got 'x'"),
        (["jawOpen,time", ",0"], "line 2, jawOpen: expected a number, .* got ''"),
        (["jawOpen", "nan"], "line 2, jawOpen: .* got 'nan'"),
        (["jawOpen", "0.5", "45"], "line 3, jawOpen: .* got '45'; .* divide percentages by 100"),
        (["jawOpen", "2.1"], "got '2.1'"),
        (["jawOpen", "-1.1"], "got '-1.1'"),
    ],
)
def test_no_table(tmp_path, lines, message):
    path = write(tmp_path / "a.csv", *lines)
    with pytest.raises(cli.UserError, match=rf"a\.csv: .*{message}"):
        coefficient_file.load(path)


def test_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00jawOpen\n")
    with pytest.raises(cli.UserError, match=r"a\.csv: not a text in UTF-8; export it as CSV"):
        coefficient_file.load(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError):
        coefficient_file.load(tmp_path / "b.csv")


class _Engine:
    def __init__(self):
        self.params = {"motion_decoder": {"fc1": {"kernel": np.ones((3, 2))}}}

    def code_from_coefficients(self, coefficients):
        return 2 * coefficients[:, :4]

    def motion(self, code_source, code_driving):
        assert not code_source.any()
        return types.Motion(code_driving[:, :3], code_driving[:, 1:])


def test_known_expressions_are_a_recording_read_by_landmarks(tmp_path):
    coefficients = np.arange(2 * 52, dtype=np.float32).reshape(2, 52)
    engine = _Engine()
    made = motion_file.of_coefficients(engine, coefficients, 60.0)
    np.testing.assert_array_equal(made.motion.scale, 2 * coefficients[:, :3])
    np.testing.assert_array_equal(made.motion.shift, 2 * coefficients[:, 1:4])
    assert (made.fps, made.reader) == (60.0, "landmarks")
    motion_file.save(tmp_path / "a.npz", made)
    assert motion_file.load(tmp_path / "a.npz", engine.params).reader == "landmarks"


def test_a_table_of_coefficients_drives_a_photo(inputs, run, model, monkeypatch, capsys):
    """The fake model's motion is the jaw in its code; the photo is read by landmarks, too."""
    jaw, read = NAMES.index("jawOpen"), []

    def code(coefficients):
        read.append(np.shape(coefficients))
        return np.repeat(coefficients[..., jaw : jaw + 1], 4, -1)

    def motion(code_source, code_driving):
        scale = 100 * np.asarray(code_driving, np.float32)[..., :3]
        return types.Motion(scale, np.zeros_like(scale))

    monkeypatch.setattr(model, "code_from_coefficients", code)
    monkeypatch.setattr(model, "motion", motion)
    write(inputs / "take.csv", "Timecode,JawOpen", "0,0.5", "1,1.0", "2,1.5")
    values = {"source": inputs / "photo.png", "driving": inputs / "take.csv", "fps": 30}
    values["reader"] = "landmarks"  # these weights do not say that they learned from coefficients
    assert run(**values, out=inputs / "a.mp4", record=inputs / "motion.npz") == 0
    assert sorted(read) == [(3, 52), (52,)]
    printed = capsys.readouterr().err
    missing = "take.csv: no column for 51 of 52 blend shapes, which stay 0: browDownLeft, "
    assert missing in printed
    assert video.open_video(inputs / "a.mp4").fps == 30
    made = list(video.open_video(inputs / "a.mp4").frames())
    assert np.allclose([frame.mean() for frame in made], [50, 100, 150], atol=4)
    values["driving"] = inputs / "motion.npz"
    assert run(**values, out=inputs / "b.mp4") == 0
    assert np.array_equal(made, list(video.open_video(inputs / "b.mp4").frames()))
