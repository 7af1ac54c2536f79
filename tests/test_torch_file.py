"""PyTorch's files without PyTorch: read, refused, damaged."""

import copyreg
import io
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from instant_gs import torch_file

SMALL = pathlib.Path(__file__).parent / "data" / "small_checkpoint.pth"
RAMP = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


def test_reads_what_pytorch_wrote():
    content = torch_file.read(SMALL)
    tensors = content["E_state_dict"]
    for name, want, dtype in (
        ("plain", RAMP, np.float32),
        ("transposed", RAMP.T, np.float32),
        ("row", RAMP[2], np.float32),
        ("half", RAMP, np.float16),
        ("bfloat", RAMP, ml_dtypes.bfloat16),
        ("double", RAMP, np.float64),
        ("count", np.array(1000), np.int64),
        ("flags", np.array([True, False]), np.bool_),
        ("empty", np.zeros((0, 3)), np.float32),
        ("parameter", RAMP[0] + 1, np.float32),
    ):
        assert tensors[name].dtype == dtype and tensors[name].shape == want.shape, name
        assert np.array_equal(tensors[name].astype(np.float64), want), name
    norm = content["M_state_dict"]
    assert list(norm) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert np.array_equal(norm["running_var"], np.ones(3)) and norm["num_batches_tracked"] == 0
    assert content["step"] == 12
    assert np.array_equal(content["history"][0], RAMP[:1, :2])
    assert content["history"][1:] == ["text", None, (1.5, True)]
    assert "torch" not in sys.modules


class Evil:
    """Its pickle runs a command."""

    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


def write(path, program: bytes, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_runs_nothing(tmp_path, protocol):
    marker = tmp_path / "it_ran"
    program = pickle.dumps({"weight": Evil(marker)}, protocol)
    with pytest.raises(ValueError, match=r"bad\.pth: .*wants to build \w+\.system, .*save"):
        torch_file.read(write(tmp_path / "bad.pth", program))
    assert not marker.exists()
    pickle.loads(program)
    assert marker.exists(), "the program was harmless and the test proved nothing"


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cbuiltins\n__import__\n(Vos\ntR.",
        b"ctorch.serialization\nload\n.",
        b"ctorch._utils\n_rebuild_device_tensor_from_numpy\n.",
        b"cnumpy\nload\n.",
        b"ccollections\nnamedtuple\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    ],
)
def test_refuses_every_other_name(tmp_path, program):
    with pytest.raises(ValueError, match="wants to build"):
        torch_file.read(write(tmp_path / "bad.pth", program))


def test_names_of_other_programs_are_refused(tmp_path):
    """EXT1 takes a function from a cache that every pickle of the process fills."""
    marker = tmp_path / "it_ran"
    copyreg.add_extension("os", "mkdir", 240)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")
        call = b"\x80\x02\x82\xf0X" + struct.pack("<I", len(str(marker))) + str(marker).encode()
        with pytest.raises(ValueError, match="uses EXT1"):
            torch_file.read(write(tmp_path / "bad.pth", call + b"\x85R."))
    finally:
        copyreg.remove_extension("os", "mkdir", 240)
    assert not marker.exists()
    for program, name in {
        b"(ios\nsystem\n.": "INST",
        b"\x96" + bytes(8) + b"\x97.": "BYTEARRAY8",
    }.items():
        with pytest.raises(ValueError, match=f"uses {name}"):
            torch_file.read(write(tmp_path / "bad.pth", program))


def test_attributes_of_a_state_dict_are_left_out(tmp_path):
    """They could hide its entries, and copying them a million times fills the memory."""
    program = b"ccollections\nOrderedDict\n)RVkey\nI1\ns}Vitems\nNsb."
    assert torch_file.read(write(tmp_path / "good.pth", program)) == {"key": 1}


def test_messages_are_one_short_line(tmp_path):
    name = "\x1b[2J\n" + "a" * 500
    program = b"X" + struct.pack("<I", len(name)) + name.encode() + b"X\x01\0\0\0b\x93."
    with pytest.raises(ValueError, match=r"build \\x1b\[2J\\naaa") as caught:
        torch_file.read(write(tmp_path / "bad.pth", b"\x80\x04" + program))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    storage = tensor().partition(b"_rebuild_tensor_v2\n(")[2].partition(b"Q")[0] + b"Q."
    with pytest.raises(ValueError, match="a storage outside of a tensor"):
        torch_file.read(write(tmp_path / "bad.pth", storage))


def test_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD sets attributes; what stands for PyTorch's functions has none."""
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(N}V__call__\nI1\nstb."
    with pytest.raises(ValueError, match="not read"):
        torch_file.read(write(tmp_path / "bad.pth", program))
    assert len(torch_file.read(SMALL)["E_state_dict"]) == 10


def tensor(storage="torch\nFloatStorage", size=4, offset=0, shape=(2, 2), strides=(2, 1)):
    """The program of one tensor."""

    def numbers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    pid = b"(Vstorage\nc" + storage.encode() + b"\nV0\nVcpu\nI%d\ntQ" % size
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return head + pid + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"I00\nNtR."


def test_a_program_of_one_tensor(tmp_path):
    data = {"data/0": np.arange(4, dtype="<f4").tobytes()}
    got = torch_file.read(write(tmp_path / "good.pth", tensor(), **data))
    assert np.array_equal(got, [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("LongStorage", "<i8"),
        ("IntStorage", "<i4"),
        ("ShortStorage", "<i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
    ],
)
def test_whole_numbers_keep_their_type(tmp_path, name, dtype):
    limits = np.iinfo(dtype)
    want = np.array([[limits.min, 0], [1, limits.max]], dtype)
    program = tensor(storage=f"torch\n{name}")
    got = torch_file.read(write(tmp_path / "good.pth", program, **{"data/0": want.tobytes()}))
    assert got.dtype == want.dtype and np.array_equal(got, want)


def test_refuses_what_could_be_read_in_two_ways(tmp_path):
    data = {"data/0": bytes(16)}
    with pytest.raises(ValueError, match="saved on a big-endian machine"):
        torch_file.read(write(tmp_path / "big.pth", tensor(), byteorder=b"big", **data))
    both = b"(" + tensor()[:-1] + tensor(storage="torch\nIntStorage")[:-1] + b"t."
    with pytest.raises(ValueError, match="data/0 is used as two kinds of numbers"):
        torch_file.read(write(tmp_path / "kinds.pth", both, **data))
    path = write(tmp_path / "programs.pth", tensor(), **data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", tensor())
    with pytest.raises(ValueError, match=r"expected one data\.pkl, got 2"):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 5}, "expected 20 bytes"),
        ({"offset": 1}, "reaches beyond"),
        ({"strides": (3, 1)}, "reaches beyond"),
        ({"shape": (100_000, 100_000), "strides": (0, 0)}, "reaches beyond"),
        ({"offset": -1}, "record"),
        ({"strides": (1,)}, "expected a tensor's record"),
        ({"storage": "torch\nLongStorage"}, "expected 32 bytes"),
    ],
)
def test_refuses_views_that_are_none(tmp_path, changes, message):
    data = {"data/0": np.arange(4, dtype="<f4").tobytes()}
    with pytest.raises(ValueError, match=message):
        torch_file.read(write(tmp_path / "bad.pth", tensor(**changes), **data))


def test_damaged_files(tmp_path):
    whole = SMALL.read_bytes()
    cut, flipped, text = (tmp_path / name for name in ("cut.pth", "flipped.pth", "text.pth"))
    cut.write_bytes(whole[: len(whole) // 2])
    at = whole.index(RAMP.tobytes()[8:40])
    flipped.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    text.write_text("no checkpoint")
    for path in (cut, flipped, text):
        with pytest.raises(ValueError, match=rf"{path.name}: expected a file of torch\.save"):
            torch_file.read(path)
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="data/0 is missing"):
        torch_file.read(write(tmp_path / "empty.pth", tensor()))
    directory = tmp_path / "directory.pth"
    directory.write_bytes(whole.replace(b"PK\x01\x02", b"XX\x01\x02", 1))
    assert torch_file.is_torch_file(SMALL) and not torch_file.is_torch_file(directory)


def doubled(levels):
    """The program of a tuple that holds one tuple twice, and so on: 2**levels when printed."""
    return b"N" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(levels))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"N\x96\0\0\0\0\0\x01\0\0.", "1099511627776"),  # bytes that are not there
        (doubled(60) + b"Q.", "record of a storage, got a tuple"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(N" + doubled(60) + b"))tR.", "tensor's record"),
        (b"}" + doubled(60) + b"Ns.", "dictionary's keys, got a tuple"),
        (b"}(" + doubled(60) + b"Nu.", "dictionary's keys, got a tuple"),
        (b"(" + doubled(60) + b"Nd.", "dictionary's keys, got a tuple"),
        (b"ccollections\nOrderedDict\n((" + doubled(60) + b"N\x86ttR.", "not read"),
        (b"\x8f(" + doubled(60) + b"\x90.", "uses EMPTY_SET"),
        (b"(" + doubled(60) + b"\x91.", "uses FROZENSET"),
        (doubled(60) + b"K\x01R.", "calls what does not rebuild a tensor"),
        (b"ccollections\nOrderedDict\n(" + b"N" * 17 + b"tR.", "calls what does not"),
        (b"}}K\x01Nsb.", "sets attributes of a dict"),
        (b"}(K\x01NK\x01Nu.", "1: there twice in one dictionary"),
        (b"}U\x01aNsU\x01aNs.", "a: there twice in one dictionary"),
    ],
)
def test_no_step_is_long_or_lost(tmp_path, program, message):
    """Each would run for years, fill the memory, or drop the first of two values."""
    with pytest.raises(ValueError, match=message):
        torch_file.read(write(tmp_path / "bad.pth", b"\x80\x04" + program))


def test_is_bounded(tmp_path):
    assert torch_file.read(write(tmp_path / "memo.pth", b"\x80\x02Nr\xff\xff\xff\xff.")) is None
    nested = io.BytesIO()
    value = []
    for _ in range(40):  # 2**40 entries by sharing
        value = [value, value]
    pickle.dump(value, nested, 2)
    with pytest.raises(ValueError, match="too deeply or too large"):
        torch_file.read(write(tmp_path / "shared.pth", nested.getvalue()))
    axes = tuple([1] * 65)
    with pytest.raises(ValueError, match="tensor's record"):
        torch_file.read(write(tmp_path / "axes.pth", tensor(shape=axes, strides=axes)))
    with pytest.raises(ValueError, match="byteorder: expected up to 16 bytes"):
        torch_file.read(write(tmp_path / "order.pth", b"N.", byteorder=bytes(17)))
    for name in ("data.pkl", "byteorder", "data/0"):
        entries = {"data.pkl": tensor(), "byteorder": b"little", "data/0": bytes(16)}
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
            for entry, content in entries.items():
                archive.writestr(f"archive/{entry}", content, 8 if entry == name else 0)
        with pytest.raises(ValueError, match=f"{name}: .*not compressed"):
            torch_file.read(tmp_path / "bomb.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice(tmp_path):
    path = write(tmp_path / "twice.pth", tensor(), **{"data/0": bytes(16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(ValueError, match=r"twice\.pth: .*data/0: there twice in the zip"):
        torch_file.read(path)
