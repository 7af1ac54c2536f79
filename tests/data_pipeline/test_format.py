"""Names, hashes and splits: what must never change."""

import collections
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from instant_gs.data import digest, record, synthetic
from instant_gs.data import format as pack_format
from instant_gs.data.error import PackError


def test_names():
    names = pack_format.COEFFICIENT_NAMES
    assert len(names) == len(set(names)) == 52
    assert list(names) == sorted(names), "MediaPipe's order is alphabetical"
    assert names[8:10] == ("eyeBlinkLeft", "eyeBlinkRight")
    assert names[24] == "jawOpen"
    assert names[51] == "tongueOut"
    assert pack_format.REGIONS.index("eyes") == 2
    assert pack_format.REGIONS.index("mouth") == 3
    assert pack_format.REGION_UNKNOWN >= len(pack_format.REGIONS)


def test_split_never_moves():
    # Pinned: a change here moves identities between train and test of every existing pack.
    expected = {"ada": "train", "blob_0": "train", "p0000-00001": "train"}
    assert {name: digest.split_of(name) for name in expected} == expected
    assert synthetic.names_in_split("test", 2) == ["blob_25", "blob_35"]
    assert synthetic.names_in_split("validation", 2) == ["blob_18", "blob_46"]


def test_split_shares():
    counts = collections.Counter(digest.split_of(f"person {i}") for i in range(4000))
    assert counts["train"] / 4000 == pytest.approx(0.90, abs=0.015)
    assert counts["validation"] / 4000 == pytest.approx(0.05, abs=0.01)
    assert counts["test"] / 4000 == pytest.approx(0.05, abs=0.01)
    assert digest.in_split("anybody", "all")
    with pytest.raises(ValueError, match="split: expected one of train, validation, test, all"):
        digest.in_split("anybody", "val")


def test_folder_hash_is_the_documented_one(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_bytes(b"1")
    (tmp_path / "a.png").write_bytes(b"2")
    (tmp_path / "00000.png").write_bytes(b"3")
    (tmp_path / "00001.png").write_bytes(b"4")
    (tmp_path / "100000.png").write_bytes(b"5")
    for stray in ("0.png", "00000 copy.png", "00000.png.png", "b/00000.png"):
        (tmp_path / stray).write_bytes(b"6")
    text = (Path(__file__).parents[2] / "docs" / "teacher_pack.md").read_text()
    frames = " ".join(re.search(r"`(find [^`]*sha256sum)`", text)[1].split())
    everything = re.sub("-regex '.*?' ", "", frames)
    for command, ours in (
        (frames, digest.path_sha256(tmp_path)),
        (everything, digest.folder_sha256(tmp_path)),
    ):
        shell = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert shell.stdout.split()[0] == ours
    before = digest.path_sha256(tmp_path)
    (tmp_path / "00001.png").rename(tmp_path / "00002.png")
    assert digest.path_sha256(tmp_path) != before, "names count"


@pytest.fixture(name="encoded")
def fixture_encoded():
    return record.encode(**_frame(), codec="png")


def _frame():
    rng = np.random.default_rng(0)
    return {
        "identity": "ada",
        "performance": "jaw",
        "view": "left",
        "frame": 7,
        "image": rng.integers(0, 256, (20, 20, 3), dtype=np.uint8),
        "alpha": rng.integers(0, 256, (20, 20), dtype=np.uint8),
        "regions": rng.integers(0, 8, (20, 20), dtype=np.uint8),
        "camera": (
            rng.normal(size=(4, 4)).astype(np.float32),
            rng.normal(size=(3, 3)).astype(np.float32),
        ),
        "coefficients": rng.random(52).astype(np.float32),
    }


@pytest.mark.parametrize("codec", sorted(record.CODECS))
def test_record_round_trip(codec):
    frame = _frame()
    item = record.decode(record.encode(**frame, codec=codec))
    camera = frame.pop("camera")
    for name, value in frame.items():
        np.testing.assert_array_equal(getattr(item, name), value, err_msg=name)
    np.testing.assert_array_equal(item.cam2world, camera[0])
    np.testing.assert_array_equal(item.intrinsics, camera[1])


def test_record_without_extras():
    frame = _frame() | {"camera": None, "coefficients": None, "regions": None}
    item = record.decode(record.encode(**frame))
    assert np.isnan(item.cam2world).all()
    assert item.cam2world.shape == (4, 4)
    assert np.isnan(item.intrinsics).all()
    assert item.intrinsics.shape == (3, 3)
    assert np.isnan(item.coefficients).all()
    assert (item.regions == pack_format.REGION_UNKNOWN).all()


def test_record_notices_every_flipped_byte(encoded):
    for position in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[position] ^= 0x10
        with pytest.raises(PackError):
            record.decode(bytes(damaged))


def test_record_notices_truncation(encoded):
    for length in (0, 3, 15, 16, 100, len(encoded) - 1):
        with pytest.raises(PackError):
            record.decode(encoded[:length])


def test_resize_by_area_and_nearest():
    frame = _frame()
    frame["regions"] = np.where(frame["regions"] < 4, 1, 6).astype(np.uint8)  # none between them
    item = record.decode(record.encode(**frame))
    small = record.resize(item, (10, 10))
    means = item.image.reshape(10, 2, 10, 2, 3).mean((1, 3))
    np.testing.assert_allclose(small.image, means, atol=0.51)
    shares = item.alpha.reshape(10, 2, 10, 2).mean((1, 3))
    np.testing.assert_allclose(small.alpha, shares, atol=0.51)
    assert small.regions.shape == (10, 10)
    assert record.resize(item, (10, 20)).image.shape == (10, 20, 3)
    assert set(np.unique(small.regions)) == {1, 6}, "labels are never mixed"
    np.testing.assert_array_equal(small.intrinsics, item.intrinsics)
    with pytest.raises(ValueError, match="larger than the stored"):
        record.resize(item, (40, 40))
