"""The converter: every key accounted for, and a directory that loads."""

import functools
import io
import json
import pathlib
import pickle
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

import instant_gs
from instant_gs import cli, convert
from instant_gs import config as config_lib
from instant_gs.inference import motion_bank
from instant_gs.models import checkpoint_map
from instant_gs.training import weights
from tests import own_flags, own_process

SMALL = "tests/data/small_checkpoint.pth"


def zeros(part):
    """A state dict of zeros: right in every key and shape, and almost nothing in a file."""
    return {
        entry.key: np.broadcast_to(np.float32(0), entry.shape)
        for entry in checkpoint_map.entries(part)
    }


def ramps(part):
    """Every tensor another, so that a mix-up shows; broadcast to stay small in memory."""
    entries = checkpoint_map.entries(part)
    return {e.key: np.broadcast_to(np.float32(i + 1), e.shape) for i, e in enumerate(entries)}


@pytest.mark.parametrize("part", ["E", "M"])
def test_every_key_is_used_once_in_its_place(part):
    state = ramps(part)
    assert checkpoint_map.problems(part, state) == []
    params = checkpoint_map.to_params(part, state)
    used = [entry for entry in checkpoint_map.entries(part) if entry.path]
    assert len(jax.tree.leaves(params)) == len(used)
    for entry in used:
        array = functools.reduce(lambda tree, name: tree[name], entry.path, params)
        back = array.transpose(np.argsort(entry.transpose)) if entry.transpose else array
        assert np.array_equal(back, state[entry.key]), entry.key


def test_kernels_are_transposed_not_reshaped():
    state = zeros("E")
    key = "decoder.net.0.weight"
    state[key] = np.arange(96 * 48, dtype=np.float32).reshape(96, 48)
    stem = "backbone.deep_lab_v3.encoder.conv1.weight"
    state[stem] = np.arange(64 * 5 * 49, dtype=np.float32).reshape(64, 5, 7, 7)
    params = checkpoint_map.to_params("E", state)
    assert params["decoder"]["fc1"]["kernel"][3, 7] == state[key][7, 3]
    assert params["backbone"]["resnet"]["conv1"]["kernel"][1, 2, 3, 4] == state[stem][4, 3, 1, 2]


TYPES = {
    "model.model.conv1.weight": np.complex64,
    "model.model.bn1.weight": np.int64,
    "model.model.bn1.bias": np.bool_,
    "model.model.bn1.running_mean": "<U3",
    # These are taken.
    "model.model.bn1.running_var": ml_dtypes.bfloat16,
    "model.model.bn1.num_batches_tracked": np.int32,
}


def test_one_error_lists_everything():
    encoder, motion = zeros("E"), zeros("M")
    del encoder["decoder.net.2.bias"], motion["model.pe"]
    encoder["decoder.net.4.bias"] = np.zeros(3, np.float32)
    encoder["decoder.net.0.weight"] = np.zeros((48, 96), np.float32)
    encoder["decoder.net.0.bias"] = np.full(96, np.nan, np.float32)
    motion["model.final_proj.bias"] = "text"
    for name, dtype in TYPES.items():
        motion[name] = motion[name].astype(dtype)
    with pytest.raises(ValueError) as caught:
        convert.from_state_dicts(encoder, motion)
    lines = [line.strip().rstrip(";") for line in str(caught.value).splitlines()]
    assert lines[0].startswith("10 tensors")
    assert set(lines[1:]) == {
        "missing: decoder.net.2.bias",
        "missing: model.pe",
        "unknown: decoder.net.4.bias",
        "shape of decoder.net.0.weight: expected (96, 48), got (48, 96)",
        "not finite: decoder.net.0.bias",
        "not an array: model.final_proj.bias is str",
        *(
            f"type of {name}: expected floats, got {np.dtype(dtype)}"
            for name, dtype in list(TYPES.items())[:4]
        ),
    }


def test_in_memory_it_wants_the_parts_and_not_the_whole():
    whole = {"E_state_dict": {}, "M_state_dict": {}}
    with pytest.raises(ValueError, match=r"encoder: .*pass checkpoint\['E_state_dict'\]"):
        convert.from_state_dicts(whole)
    with pytest.raises(ValueError, match="encoder: expected a dictionary of arrays, got NoneType"):
        convert.from_state_dicts(None)


def test_in_memory_it_does_what_the_command_does(capfd):
    xnemo = {key.removeprefix("model."): value for key, value in ramps("M").items()}
    model = convert.from_state_dicts(zeros("E"), xnemo)
    want = checkpoint_map.to_params("M", ramps("M"))
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params["motion_encoder"], want))
    assert model.provenance["licence"] == convert.LICENCE
    assert model.provenance["tensors"] == {"E": 126, "M": 407}
    assert f"convert.from_state_dicts: {convert.LICENCE}\n" in capfd.readouterr().err
    with pytest.raises(ValueError, match=r"motion_encoder: model\.pe: there twice"):
        convert.from_state_dicts({}, {"pe": 1, "model.pe": 1})
    with pytest.raises(ValueError, match="encoder: expected named tensors"):
        convert.from_state_dicts({1: 1})


def save(path, **states):
    np.savez_compressed(path, **{k: v for state in states.values() for k, v in state.items()})
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A weights directory that the command wrote from .npz files, as a user would run it."""
    folder = tmp_path_factory.mktemp("convert")
    few = {f"M_state_dict.{key}": value for key, value in list(zeros("M").items())[:3]}
    save(folder / "ckpt.npz", encoder=zeros("E"), replaced=few)
    # X-NeMo's own file lacks the outer "model.".
    xnemo = {key.removeprefix("model."): value for key, value in zeros("M").items()}
    xnemo["pe"] = np.full((1, 32, 16), 0.25, np.float32)
    save(folder / "xnemo.npz", motion=xnemo, ignored={"E_state_dict.x": np.zeros(1)})
    given = [f"--checkpoint={folder}/ckpt.npz", f"--motion_encoder={folder}/xnemo.npz"]
    done = own_process.run("-m", "instant_gs.convert", *given, f"--out={folder}/weights")
    assert done.returncode == 0, done.stderr
    return folder / "weights", done.stdout


def test_the_directory_loads_and_tells_its_licence(converted, capfd):
    folder, printed = converted
    assert "E: 126, M: 407" in printed and "CC BY-NC 4.0" in printed
    loaded = instant_gs.load(folder)
    assert "no commercial use" in capfd.readouterr().err
    assert loaded.config.model == convert.released_config().model
    assert (loaded.culling, loaded.config.model.gaussians.cull) == ("envelope", "source")
    assert sum(leaf.size for leaf in jax.tree.leaves(loaded.params)) == 54_147_830 + 61_681_017
    assert (np.asarray(loaded.params["motion_encoder"]["constants"]["pe"]) == 0.25).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype(np.float32)}
    assert loaded.stored_bank.shape == (19, 512)
    assert loaded.config.model.motion.crop == convert.CROP != config_lib.MotionConfig().crop
    record = json.loads((folder / "provenance.json").read_text())
    assert [file["name"] for file in record["files"]] == ["ckpt.npz", "xnemo.npz"]
    assert all(len(file["sha256"]) == 64 for file in record["files"])
    assert record["tensors"] == {"E": 126, "M": 407}
    assert record["unused_groups"] == ["M_state_dict of ckpt.npz", "E_state_dict of xnemo.npz"]
    assert "not used: M_state_dict of ckpt.npz, E_state_dict of xnemo.npz\n" in printed
    with pytest.raises(cli.UserError, match="exists already"):
        convert.convert(folder.parent / "ckpt.npz", None, folder)


def test_names_that_files_give(tmp_path):
    state = dict(list(zeros("M").items())[:3])
    wrapped = {f"M_state_dict.module.{key}": value for key, value in state.items()}
    found, unused = convert.read(save(tmp_path / "wrapped.npz", all=wrapped))
    assert list(found) == ["M"] and list(found["M"]) == list(state) and not unused
    twice = {"pe": state["model.pe"], "model.pe": state["model.pe"]}
    with pytest.raises(ValueError, match=r"model\.pe: there twice"):
        convert.read(save(tmp_path / "twice.npz", all=twice))
    found, unused = convert.read(SMALL)
    assert set(found) == {"E", "M"} and unused == ["step", "history"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_vanishes_without_a_word(tmp_path):
    inner = {"E_state_dict": {"a": 1}, "other": 0}
    tree = {"state_dict": inner, "M_state_dict": {"b": 2}, "optimizer": {}}
    with zipfile.ZipFile(tmp_path / "wrapped.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(tree, 2))
    found, unused = convert.read(tmp_path / "wrapped.pth")
    assert found == {"E": {"a": 1}} and unused == ["M_state_dict", "optimizer", "other"]

    one = np.zeros(1, np.float32)
    two_names = {"E_state_dict.a": one, "a": one}
    with pytest.raises(ValueError, match=r"names\.npz: a: there twice"):
        convert.read(save(tmp_path / "names.npz", all=two_names))
    path = save(tmp_path / "entries.npz", all={"a": one})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.npy", archive.read("a.npy"))
    with pytest.raises(ValueError, match=r"entries\.npz: a: there twice"):
        convert.read(path)


def damaged_files(folder):
    """Wrong bytes in a directory, its size, an array, its header; 2**52 bytes promised."""
    whole = pathlib.Path(SMALL).read_bytes()
    (folder / "directory.pth").write_bytes(whole.replace(b"PK\x01\x02", b"XX\x01\x02", 1))
    noise = np.random.default_rng(0).integers(0, 50, (96, 48)).astype(np.float32)
    deflated = bytearray(save(folder / "a.npz", all={"decoder.net.0.weight": noise}).read_bytes())
    size = deflated.rindex(b"PK\x05\x06") + 12
    beyond = deflated[:size] + b"\xff\xff\xff\x7f" + deflated[size + 4 :]
    (folder / "size.npz").write_bytes(beyond)
    deflated[200:260] = (byte ^ 0x5A for byte in deflated[200:260])
    (folder / "deflated.npz").write_bytes(deflated)
    header = io.BytesIO()
    promise = {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(header, promise)
    cut = header.getvalue().replace(b"}", b" ")
    starts = {"promise.npz": header.getvalue(), "header.npz": cut}
    starts["indent.npz"] = b"\x93NUMPY\x01\0\x10\0if x:\n    a\n  b\n"
    for name, start in starts.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("a.npy", start + bytes(64))
    return "directory.pth", "size.npz", "deflated.npz", *starts


def test_bad_input_is_one_clear_line(tmp_path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    some = {"decoder.net.0.bias": np.arange(96, dtype=np.float32)}
    (tmp_path / "cut.npz").write_bytes(save(tmp_path / "a.npz", e=some).read_bytes()[:200])
    out = tmp_path / "weights"
    for path in ("text.pth", "cut.npz", *damaged_files(tmp_path)):
        with pytest.raises(ValueError, match=rf"{path}: expected a file of torch\.save"):
            convert.convert(tmp_path / path, None, out)
    np.savez(tmp_path / "objects.npz", a=np.array([None]))
    for path in ("text.pth", "objects.npz"):
        with pytest.raises(ValueError, match=path) as caught:
            convert.convert(tmp_path / path, None, out)
        assert "pickle" not in str(caught.value), "no advice of NumPy to run what a file says"
    with pytest.raises(FileNotFoundError):
        convert.convert(tmp_path / "missing.pth", None, out)
    with pytest.raises(
        ValueError, match=r"small_checkpoint\.pth: \d+ tensors do not fit"
    ) as caught:
        convert.convert(SMALL, None, out)
    listed = "model: missing: backbone.deep_lab_v3.encoder.conv1.weight; missing: backbone."
    assert listed in cli.describe(caught.value), "one line, and what it lists can be told apart"
    with pytest.raises(cli.UserError, match="--checkpoint"):
        convert.convert(None, None, out)
    with pytest.raises(cli.UserError, match="holds no M network"):
        convert.convert(None, save(tmp_path / "e.npz", e={"decoder.x": np.zeros(1)}), out)
    assert not out.exists()


class Touches:
    """Its pickle makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


def test_an_array_of_objects_runs_nothing(tmp_path):
    marker = tmp_path / "it_ran"
    np.savez(tmp_path / "bad.npz", a=np.array([Touches(marker)], object))
    with pytest.raises(ValueError, match=r"bad\.npz: expected a file of torch\.save"):
        convert.read(tmp_path / "bad.npz")
    assert not marker.exists()


def test_the_first_release_is_drawn_as_it_was(tmp_path, monkeypatch):
    """Along rays, in the narrow view, antialiased: in memory, to a folder and by the command."""
    monkeypatch.setattr(convert, "_to_params", lambda states: {"x": {"y": np.zeros(1, np.float32)}})
    monkeypatch.setattr(motion_bank, "codes", lambda engine: np.zeros((19, 512)))

    def command(legacy):
        with own_flags.alone(), flagsaver.flagsaver():
            convert._define_flags()
            arguments = [f"--checkpoint={SMALL}", f"--out={tmp_path}/by_command_{legacy}"]
            with pytest.raises(SystemExit) as caught:
                cli.run(convert.main, ["convert", *arguments, *["--legacy"] * legacy])
        assert not caught.value.code

    for legacy in (False, True):
        convert.convert(SMALL, None, tmp_path / f"{legacy}", legacy=legacy)
        command(legacy)
        configs = [convert.from_state_dicts({}, legacy=legacy).config]
        for name in (f"{legacy}", f"by_command_{legacy}"):
            configs.append(weights.load(tmp_path / name)[0])
        for config in configs:
            model = config.model
            got = (model.gaussians.instantiation, model.raster_mode, model.fov_degrees)
            want = ("ray", "antialiased", 18.837) if legacy else ("plane", "classic", 23.28)
            assert got == want
            assert config.name == ("released_legacy" if legacy else "released")


BAD_COMMANDS = {
    "no input": ([], 2, "--checkpoint is missing"),
    "no output": (["--checkpoint=text.pth", "--out="], 2, "--out is missing"),
    "wrong flag": (["--chekpoint=x"], 2, "unknown flag --chekpoint: did you mean --checkpoint?"),
    "no flag": (["text.pth"], 2, "text.pth: not expected; every option has a flag"),
    "no file": (["--checkpoint=gone.pth"], 1, "gone.pth: no such file"),
    "text": (["--checkpoint=text.pth"], 1, "text.pth: expected a file of torch.save"),
    "picture": (["--motion_encoder=dot.png"], 1, "dot.png: expected a file of torch.save"),
    "folder": (["--checkpoint=folder"], 1, "folder: this is a folder and a file is expected"),
    "array": (["--checkpoint=one.npz"], 1, "one.npz: expected a file of torch.save"),
    "others": (["--checkpoint=other.npz"], 1, "other.npz: "),
    "exists": (["--checkpoint=text.pth", "--out=folder"], 1, "--out: folder exists already"),
    "below a file": (
        ["--checkpoint=text.pth", "--out=text.pth/w"],
        1,
        "--out: text.pth/w: text.pth is no folder; choose another path",
    ),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_command_is_one_clear_line_and_writes_nothing(tmp_path, monkeypatch, capsys, case):
    arguments, status, message = BAD_COMMANDS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("This is a letter, not a checkpoint.")
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (1, 1)).save("dot.png")
    np.save("one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename("one.npz")
    np.savez("other.npz", weight=np.zeros(3, np.float32))
    before = sorted(tmp_path.rglob("*"))
    with own_flags.alone(), flagsaver.flagsaver():
        convert._define_flags()
        with pytest.raises(SystemExit) as caught:
            cli.run(convert.main, ["convert", "--out=weights", *arguments])
    printed = capsys.readouterr().err.strip()
    assert caught.value.code == status, printed
    (line,) = printed.splitlines()
    assert line.startswith(f"error: {message}"), printed
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"
