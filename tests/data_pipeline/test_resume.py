"""Packing that goes on: after a kill, a mended clip, a new identity."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instant_gs.data import digest, packing, reader, synthetic
from instant_gs.data.error import PackError

OPTIONS = packing.Options(image_size=32, records_per_shard=60)


def test_skip_broken_and_mend(source_pack, copied_source, tmp_path):
    path = copied_source / "blob_1" / "smile_v1" / "00003.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    skip = packing.Options(image_size=32, skip_broken=True)
    packing.pack(copied_source, tmp_path / "skipped", skip, workers=1)
    pack = reader.Pack(tmp_path / "skipped")
    pack.verify_shards()
    assert len(pack) == 220
    index = json.loads((tmp_path / "skipped" / "index" / "00000.json").read_text())
    skipped = [entry["skipped"] for entry in index["identities"] if entry["skipped"]]
    assert [list(entry) for entry in skipped] == [["smile_v1"]]

    packing.pack(copied_source, tmp_path / "out", OPTIONS, workers=1)
    path.write_bytes(whole)
    summary = packing.pack(copied_source, tmp_path / "out", OPTIONS, workers=1, resume=True)
    assert not summary.broken
    assert summary.new_records == 24, "only the mended identity"
    pack = reader.Pack(tmp_path / "out")
    pack.verify_shards()
    assert len(pack) == 224


def test_unfinished_identity_waits(copied_source, tmp_path):
    description = copied_source / "blob_3" / "identity.json"
    kept = description.read_text()
    description.unlink()
    summary = packing.pack(copied_source, tmp_path / "out", OPTIONS, workers=1)
    assert summary.unfinished == ["blob_3"]
    assert summary.identities == 9
    description.write_text(kept)
    summary = packing.pack(copied_source, tmp_path / "out", OPTIONS, workers=1, resume=True)
    assert (summary.identities, summary.new_records) == (10, 24)
    pack = reader.Pack(tmp_path / "out")
    pack.verify_shards()
    assert pack.read(pack.clips[-1].first).identity == "blob_3", "added behind the others"


def test_resume_replaces_a_truncated_shard(packed_pack, copied_pack, source_pack):
    shard = copied_pack / "shards" / "00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-100])
    packing.pack(source_pack, copied_pack, OPTIONS, workers=1, resume=True)
    assert digest.folder_sha256(copied_pack) == digest.folder_sha256(packed_pack)


def test_resume_counts_no_stray_index(packed_pack, copied_pack, source_pack):
    index = (copied_pack / "index" / "00000.json").read_bytes()
    strays = {"._00000.json": b"as macOS leaves them", "00000 copy.json": index}
    for name, data in strays.items():
        (copied_pack / "index" / name).write_bytes(data)
    packing.pack(source_pack, copied_pack, OPTIONS, workers=1, resume=True)
    for name in strays:
        (copied_pack / "index" / name).unlink()
    assert digest.folder_sha256(copied_pack) == digest.folder_sha256(packed_pack)


def test_resume_removes_what_a_killed_run_left(packed_pack, copied_pack, source_pack):
    for name in ("shards/.00001.0123abcd.partial.array_record", "index/.00001.89ab.partial.json"):
        (copied_pack / name).write_bytes(b"half")
    packing.pack(source_pack, copied_pack, OPTIONS, workers=1, resume=True)
    assert digest.folder_sha256(copied_pack) == digest.folder_sha256(packed_pack)


def test_killed_run_resumes_to_the_same_pack(tmp_path):
    """SIGKILL in the middle; nothing half-written counts, workers die, resume completes."""
    names = [f"person_{number:02d}" for number in range(8)]
    synthetic.write_pack(tmp_path / "source", names, frames=6, image_size=64)
    options = packing.Options(image_size=64, codec="webp", records_per_shard=36)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "instant_gs.data.pack", "--image_size=64", "--codec=webp"]
    command += [f"--source={tmp_path / 'source'}", f"--out={out}", "--records_per_shard=36"]
    process = subprocess.Popen([*command, "--workers=2"], cwd=Path(packing.__file__).parents[2])
    deadline = time.monotonic() + 60
    while not list(out.glob("index/*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    children = _children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists(), "killed too late to test anything"
    done = len(list(out.glob("index/*.json")))
    assert done >= 1
    with pytest.raises(PackError, match="did not finish"):
        reader.Pack(out)
    assert len(children) >= 2
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "workers outlive a killed packer"
        time.sleep(0.01)
    summary = packing.pack(tmp_path / "source", out, options, workers=1, resume=True)
    assert summary.records == 8 * 36
    assert summary.new_records < summary.records
    packing.pack(tmp_path / "source", tmp_path / "whole", options, workers=1)
    assert digest.folder_sha256(out) == digest.folder_sha256(tmp_path / "whole")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
