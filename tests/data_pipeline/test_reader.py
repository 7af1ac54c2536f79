"""The reader trusts no file: every damage is an error that names where it is."""

import json
import random
import threading

import numpy as np
import pytest

from instant_gs.data import digest, packed_index, reader, validate
from instant_gs.data.error import PackError


def test_index_matches_records(packed_pack):
    pack = reader.Pack(packed_pack)
    for index in range(len(pack)):
        clip, frame = pack.locate(index)
        item = pack.read(index)
        assert (item.identity, item.performance, item.view, item.frame) == (
            clip.identity,
            clip.performance,
            clip.view,
            frame,
        )
        assert clip.camera_known == np.isfinite(item.cam2world).all()
    for wrong in (-1, len(pack)):
        with pytest.raises(IndexError, match="has records 0 to 223"):
            pack.read(wrong)
    assert len(pack.identities("train")) == 6 + 1
    assert len(pack.identities("test")) == 3
    assert pack.attributes["blob_0"] == {"blob": True}


def test_threads(packed_pack):
    pack = reader.Pack(packed_pack)
    found = {}

    def read(start):
        for index in range(start, len(pack), 4):
            found[index] = pack.read(index).image

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(pack)
    np.testing.assert_array_equal(found[100], reader.Pack(packed_pack).read(100).image)


def test_flipped_bit_names_shard_and_record(copied_pack):
    shard = copied_pack / "shards" / "00001.array_record"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    pack = reader.Pack(copied_pack)
    errors = []
    for index in range(len(pack)):
        try:
            pack.read(index)
        except PackError as error:
            errors.append((pack.locate(index), str(error)))
    assert len(errors) == 1, "only the damaged record is lost"
    (clip, frame), message = errors[0]
    record = clip.shard_first + frame
    assert f"00001.array_record record {record} ({clip.identity}/{clip.name} frame {frame})" in (
        message
    )
    assert "restore the shard" in message
    with pytest.raises(PackError, match=r"00001\.array_record: differs from its sha256"):
        reader.Pack(copied_pack).verify_shards()


def test_any_flipped_bit_is_harmless_or_an_error(copied_pack, packed_pack):
    """Whatever bit flips in a shard: never a wrong image, never anything but a PackError."""
    chosen = random.Random(0)
    whole = reader.Pack(packed_pack)
    shard = copied_pack / "shards" / "00000.array_record"
    original = shard.read_bytes()
    spots = [chosen.randrange(len(original)) for _ in range(12)]
    spots += [chosen.randrange(256) for _ in range(6)]
    # ArrayRecord's own index and footer are at the end.
    spots += [len(original) - 1 - chosen.randrange(2000) for _ in range(12)]
    failures = 0
    for spot in spots:
        data = bytearray(original)
        data[spot] ^= 1 << chosen.randrange(8)
        shard.write_bytes(data)
        pack = reader.Pack(copied_pack)
        with pytest.raises(PackError, match="differs from its sha256"):
            pack.verify_shards()
        for index in range(0, 60, 3):
            try:
                image = pack.read(index).image
            except PackError:
                failures += 1
            else:
                np.testing.assert_array_equal(image, whole.read(index).image)
    assert failures > 0


def test_truncated_shard(copied_pack):
    shard = sorted((copied_pack / "shards").iterdir())[-1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(PackError, match=r"00003\.array_record: \d+ bytes instead of \d+, trunc"):
        reader.Pack(copied_pack)
    # Cut after opening, as on a failing disk: reading names the record.
    shard.write_bytes(data)
    pack = reader.Pack(copied_pack)
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(PackError, match=r"00003\.array_record record 7 \(.*/smile_v0 frame 3\)"):
        pack.read(len(pack) - 1)


@pytest.mark.parametrize("name", ["shards/00001.array_record", "index/00001.json"])
def test_missing_file(copied_pack, name):
    (copied_pack / name).unlink()
    with pytest.raises(PackError, match=f"{name}: missing"):
        reader.Pack(copied_pack)


def test_swapped_shards(copied_pack):
    """Whole files in the wrong place: sizes betray them at once or the records do."""
    first, second = (copied_pack / "shards" / f"0000{i}.array_record" for i in (0, 1))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(PackError, match=r"0000\d\.array_record"):
        reader.Pack(copied_pack).read(0)


def test_foreign_record(copied_pack):
    """A valid record that is not the one the index promises."""
    path = copied_pack / "index" / "00000.json"
    index = packed_index.load_index(path)
    clips = index["identities"][0]["clips"]
    clips[0]["view"], clips[1]["view"] = clips[1]["view"], clips[0]["view"]
    _rewrite(copied_pack, path, index)
    with pytest.raises(PackError, match=r"record 0 \(blob_0/jaw_v0 frame 0\): it is \('blob_0'"):
        reader.Pack(copied_pack).read(0)
    clips[0]["view"], clips[1]["view"] = clips[1]["view"], clips[0]["view"]
    clips[0]["first"] = 1  # the right clip, another frame of it
    _rewrite(copied_pack, path, index)
    with pytest.raises(PackError, match=r"jaw_v0 frame 0\): it is \('blob_0', 'jaw', '0', 1\)"):
        reader.Pack(copied_pack).read(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version 2, this reader knows 1"),
        ({"format": "instant_gs.teacher"}, "this is a source pack; pack it"),
        ({"format": "tar"}, "expected format 'instant_gs.packed', got 'tar'"),
        ({"image_size": [64, 64]}, "its content changed after packing"),
    ],
)
def test_manifest_is_checked(copied_pack, change, reason):
    path = copied_pack / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PackError, match=reason):
        reader.Pack(copied_pack)


@pytest.mark.parametrize("key", ["coefficient_names", "regions"])
def test_names_in_another_order_are_refused(copied_pack, key):
    manifest = packed_index.load_manifest(copied_pack)
    packed_index._write(copied_pack / "manifest.json", manifest | {key: manifest[key][::-1]})
    with pytest.raises(PackError, match=rf"{key} are not this version's; pack the source again"):
        reader.Pack(copied_pack)


def test_an_index_that_the_manifest_does_not_know(copied_pack):
    path = copied_pack / "index" / "00000.json"
    packed_index._write(path, packed_index.load_index(path) | {"records": 1})
    with pytest.raises(PackError, match=r"00000\.json: differs from its hash in the manifest"):
        reader.Pack(copied_pack)


def test_an_identity_in_two_shards(copied_pack):
    first, second = (copied_pack / "index" / f"0000{number}.json" for number in (0, 1))
    index = packed_index.load_index(second)
    index["identities"][0]["identity"] = "blob_0"
    assert "blob_0" in first.read_text()
    _rewrite(copied_pack, second, index)
    with pytest.raises(PackError, match="identity blob_0 is in two shards"):
        reader.Pack(copied_pack)


def test_records_of_another_size_than_the_pack_says(copied_pack):
    size = {"image_size": [64, 64]}
    for path in (copied_pack / "index").iterdir():
        _rewrite(copied_pack, path, packed_index.load_index(path) | size)
    manifest = packed_index.load_manifest(copied_pack)
    packed_index._write(copied_pack / "manifest.json", manifest | size)
    with pytest.raises(PackError, match=r"record 0 .*: it is \(32, 32\), the pack says \(64, 64\)"):
        reader.Pack(copied_pack).read(0)


def test_mismatched_image_size(copied_pack):
    manifest = packed_index.load_manifest(copied_pack)
    packed_index._write(copied_pack / "manifest.json", manifest | {"image_size": [64, 64]})
    with pytest.raises(PackError, match=r"image_size \[32, 32\], the manifest says \[64, 64\]"):
        reader.Pack(copied_pack)


def test_wrong_folder(tmp_path):
    with pytest.raises(PackError, match="no such folder"):
        reader.Pack(tmp_path / "nowhere")
    with pytest.raises(PackError, match="is this a teacher pack"):
        reader.Pack(tmp_path)


def test_validator_finds_every_kind(source_pack, copied_source, packed_pack, copied_pack):
    assert list(validate.source_problems(source_pack)) == []
    assert list(validate.packed_problems(packed_pack)) == []
    assert "10 identities (7 train, 0 validation, 3 test)" in validate.describe_packed(packed_pack)
    assert "(2 without a camera), 224 frames" in validate.describe_source(source_pack)

    (copied_source / "blob_0" / "jaw_v0" / "00001.png").unlink()
    (copied_source / "blob_1" / "identity.json").unlink()
    other = np.load(copied_source / "blob_2" / "smile_v0.npy") / 2
    for view in range(3):
        np.save(copied_source / "blob_2" / f"smile_v{view}.npy", other)
    content = json.loads((copied_source / "blob_2" / "identity.json").read_text())
    for clip in content["clips"]:
        name = clip["coefficients"]
        clip["sha256"][name] = digest.file_sha256(copied_source / "blob_2" / name)
    (copied_source / "blob_2" / "identity.json").write_text(json.dumps(content))
    frames = copied_source / "blob_2" / "jaw_v1"
    (frames / "00001.png").write_bytes((frames / "00000.png").read_bytes())
    problems = "\n".join(validate.source_problems(copied_source))
    assert f"blob_2/jaw_v1: {frames} differs from its sha256" in problems
    assert "blob_0/jaw_v0: " in problems
    assert "blob_1: unfinished" in problems
    assert "blob_2/smile_v0: performs smile differently from " in problems

    (copied_pack / "shards" / "00099.array_record").write_bytes(b"")
    (copied_pack / "shards" / ".00001.7.partial.array_record").write_bytes(b"")
    (copied_pack / "shards" / ".DS_Store").write_bytes(b"")
    (copied_pack / "index" / "._00000.json").write_bytes(b"")
    problems = list(validate.packed_problems(copied_pack))
    assert len(problems) == 4, problems
    assert all("not in the manifest; remove it" in problem for problem in problems)


def test_validator_compares_shards_and_misses_no_identity(source_pack, copied_pack, tmp_path):
    path = copied_pack / "index" / "00000.json"
    _rewrite(copied_pack, path, packed_index.load_index(path) | {"sha256": "0" * 64})
    (problem,) = validate.packed_problems(copied_pack)
    assert "00000.array_record: differs from its sha256" in problem
    manifest = tmp_path / "empty" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_bytes((source_pack / "manifest.json").read_bytes())
    assert list(validate.source_problems(manifest.parent)) == [
        f"{manifest.parent}: holds no identity"
    ]


def _rewrite(pack, path, index):
    """Writes an index with all hashes right, so that only its meaning is wrong."""
    packed_index._write(path, index)
    manifest = packed_index.load_manifest(pack)
    for entry in manifest["shards"]:
        entry["sha256"] = digest.file_sha256(pack / entry["index"])
    packed_index._write(pack / "manifest.json", manifest)
