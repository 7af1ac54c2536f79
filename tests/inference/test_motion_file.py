"""Recorded drivers."""

import dataclasses
import zipfile

import numpy as np
import pytest

from instant_gs import cli, types
from instant_gs.inference import motion_file

PARAMS = {"motion_decoder": {"fc1": {"kernel": np.ones((48, 3))}, "fc2": {"kernel": np.ones(4)}}}


@pytest.fixture
def recording():
    generator = np.random.default_rng(0)
    motion = types.Motion(*generator.standard_normal((2, 30, 48)).astype(np.float32))
    return motion_file.Recording(motion, 29.97, motion_file.fingerprint(PARAMS))


def test_round_trip(tmp_path, recording):
    path = tmp_path / "driver.npz"
    motion_file.save(path, recording)
    back = motion_file.load(path, PARAMS)
    assert np.array_equal(back.motion.scale, recording.motion.scale)
    assert np.array_equal(back.motion.shift, recording.motion.shift)
    assert (back.fps, back.decoder) == (recording.fps, recording.decoder)
    assert path.stat().st_size < 30 * 96 * 4 + 3000, "96 numbers a frame and little else"
    with pytest.raises(cli.UserError, match="exists already"):
        motion_file.save(path, recording)


def test_who_read_the_driver_is_kept_and_was_the_encoder_once(tmp_path, recording):
    path = tmp_path / "driver.npz"
    motion_file.save(path, dataclasses.replace(recording, reader="landmarks"))
    assert motion_file.load(path).reader == "landmarks"
    with np.load(path) as file:
        before = {name: file[name] for name in file.files if name != "reader"}
    np.savez(path, **before)
    assert motion_file.load(path).reader == "encoder"


def test_the_ending_may_be_in_capitals(tmp_path, recording):
    path = tmp_path / "DRIVER.NPZ"
    motion_file.save(path, recording)
    assert np.array_equal(motion_file.load(path, PARAMS).motion.scale, recording.motion.scale)
    assert list(tmp_path.iterdir()) == [path]


def test_other_weights_are_refused(tmp_path, recording):
    motion_file.save(tmp_path / "driver.npz", recording)
    other = {"motion_decoder": {"fc1": {"kernel": np.zeros((2, 3))}, "fc2": {"kernel": np.ones(4)}}}
    with pytest.raises(cli.UserError, match="other weights"):
        motion_file.load(tmp_path / "driver.npz", other)
    motion_file.load(tmp_path / "driver.npz")


def test_every_parameter_of_the_motion_decoder_counts_and_no_other():
    def named(**changes):
        layers = {name: dict(layer) for name, layer in PARAMS["motion_decoder"].items()}
        for name, kernel in changes.items():
            layers[name]["kernel"] = kernel
        return motion_file.fingerprint({"decoder": len(changes), "motion_decoder": layers})

    plain = motion_file.fingerprint(PARAMS)
    assert named() == plain
    assert plain not in (named(fc1=np.zeros((48, 3))), named(fc2=np.ones(4) / 2))
    backwards = dict(reversed(PARAMS["motion_decoder"].items()))
    assert motion_file.fingerprint({"motion_decoder": backwards}) == plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": np.nan}, r"fps: expected 0.01 to 1000 frames a second, got nan"),
        ({"fps": 1e-5}, r"fps: .* got 1e-05"),
        ({"fps": 1e9}, r"fps: .* got 1e\+09"),
        ({"scale": np.zeros((8, 10)), "shift": np.zeros((8, 10))}, "expected 48 numbers a frame"),
        ({"scale": np.zeros((8, 48))}, r"one shape \(T, F\)"),
        ({"scale": np.full((30, 48), np.inf)}, "got nan or inf"),
        ({"version": 1}, r"version instant_gs\.motion 2, got instant_gs\.motion 1"),
    ],
)
def test_edited_to_what_no_avatar_can_show(tmp_path, recording, changes, message):
    path = tmp_path / "driver.npz"
    motion_file.save(path, recording)
    with np.load(path) as file:
        fields = dict(file) | changes
    np.savez(path, **fields)
    with pytest.raises(cli.UserError, match=message) as caught:
        motion_file.load(path, PARAMS)
    assert str(caught.value).startswith(str(path))


def test_bad_files(tmp_path, recording):
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "text.npz").write_text("no motion")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(cli.UserError, match="not a motion file"):
            motion_file.load(tmp_path / name)
    header = b"if x:\n    a\n  b\n"
    forged = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "forged.npz", "w") as archive:
        archive.writestr("format.npy", forged)
    with pytest.raises(cli.UserError, match=r"forged\.npz: not a motion file"):
        motion_file.load(tmp_path / "forged.npz")
    motion_file.save(tmp_path / "driver.npz", recording)
    data = (tmp_path / "driver.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(cli.UserError, match=r"cut\.npz"):
        motion_file.load(tmp_path / "cut.npz")
    with pytest.raises(cli.UserError, match=r"\.npz"):
        motion_file.save(tmp_path / "driver.txt", recording)
    with pytest.raises(ValueError, match=r"\(T, F\)"):
        motion_file.save(
            tmp_path / "flat.npz",
            motion_file.Recording(types.Motion(np.zeros(48), np.zeros(48)), 25.0, ""),
        )
