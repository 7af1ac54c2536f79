"""The packer: what goes in comes out, and everything broken is named."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from instant_gs.data import digest, packing, reader, record, source, source_writer, synthetic
from instant_gs.data.error import BrokenClipError, PackError

IMAGE_SIZE = 32
OPTIONS = packing.Options(image_size=IMAGE_SIZE, records_per_shard=60)


def test_round_trip_is_exact(source_pack, packed_pack):
    pack = reader.Pack(packed_pack)
    pack.verify_shards()
    names, unfinished = source.list_identities(source_pack)
    assert pack.identities() == names
    assert not unfinished
    compared = 0
    clips = {(clip.identity, clip.name): clip for clip in pack.clips}
    for name in names:
        for clip in source.load_identity(source_pack, name).clips:
            packed = clips[clip.identity, clip.name]
            coefficients = source.load_coefficients(clip)
            for frame, images in enumerate(source.read_frames(clip, (IMAGE_SIZE,) * 2)):
                item = pack.read(packed.first + frame)
                np.testing.assert_array_equal(item.image, images[0])
                np.testing.assert_array_equal(item.alpha, images[1])
                if clip.regions is not None:
                    np.testing.assert_array_equal(item.regions, images[2])
                    np.testing.assert_array_equal(item.coefficients, coefficients[frame])
                    np.testing.assert_array_equal(item.cam2world, clip.cam2world[frame])
                    np.testing.assert_array_equal(item.intrinsics, clip.intrinsics)
                compared += 1
    assert compared == len(pack) == 224
    assert 30 < pack.read(0).image.max() and 0.3 < (pack.read(0).alpha > 0).mean() < 0.9


def test_every_worker_count_gives_the_same_bytes(source_pack, packed_pack, tmp_path):
    packing.pack(source_pack, tmp_path / "out", OPTIONS, workers=2)
    assert digest.folder_sha256(tmp_path / "out") == digest.folder_sha256(packed_pack)
    shards = list((packed_pack / "shards").iterdir())
    assert len(shards) > 2


def test_video_and_per_frame_camera(tmp_path):
    synthetic.write_pack(tmp_path / "source", ["ada"], video=True, views=1, image_size=64)
    identity = source.load_identity(tmp_path / "source", "ada")
    moving = np.repeat(identity.clips[0].cam2world[:1], 4, 0)
    moving[:, :3, 3] *= np.arange(1, 5)[:, None]
    _edit_clip(
        tmp_path / "source",
        "ada",
        lambda clip: clip["camera"].update(cam2world=moving.tolist()),
    )
    packing.pack(tmp_path / "source", tmp_path / "out", packing.Options(64, "webp"), workers=1)
    synthetic.write_pack(tmp_path / "png", ["ada"], views=1, image_size=64)
    packing.pack(tmp_path / "png", tmp_path / "exact", packing.Options(64), workers=1)
    video, exact = reader.Pack(tmp_path / "out"), reader.Pack(tmp_path / "exact")
    assert len(video) == len(exact) == 8
    for index in range(len(video)):
        ours, truth = video.read(index), exact.read(index)
        # H.264 rings and shares chroma: compare means inside the blob, so a wrong colour matrix or
        # value range (10 levels and more) shows.
        inside = cv2.erode((truth.regions == 1).astype(np.uint8), np.ones((9, 9))) > 0
        assert inside.sum() > 100
        bias = ours.image[inside].astype(float).mean(0) - truth.image[inside].mean(0)
        assert np.abs(bias).max() < 3, bias
        np.testing.assert_array_equal(ours.alpha, truth.alpha)
    np.testing.assert_array_equal(video.read(3).cam2world, moving[3])


def test_video_of_an_identity_with_a_colon(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path / "source")
    synthetic.write_pack(".", ["12:30"], performances=["jaw"], video=True, views=1, image_size=64)
    summary = packing.pack(".", tmp_path / "out", packing.Options(64), workers=1)
    assert (summary.broken, summary.records) == ([], 4)


def test_image_size_shrinks_and_never_enlarges(source_pack, tmp_path):
    packing.pack(source_pack, tmp_path / "out", packing.Options(16), workers=1)
    pack = reader.Pack(tmp_path / "out")
    assert pack.read(0).image.shape == (16, 16, 3)
    with pytest.raises(PackError, match=r"give at most image_size=32"):
        packing.pack(source_pack, tmp_path / "large", packing.Options(33), workers=1)
    assert not (tmp_path / "large").exists()


def test_palette_labels(copied_source):
    from PIL import Image

    path = copied_source / "blob_0" / "jaw_v0_regions" / "00002.png"
    labels = np.asarray(Image.open(path))
    palette = Image.fromarray(labels, mode=None).convert("P")
    palette.putdata(labels.ravel().tolist())
    palette.save(path)
    _rehash(copied_source, "blob_0")
    clip = source.load_identity(copied_source, "blob_0").clips[0]
    frames = list(source.read_frames(clip, (IMAGE_SIZE,) * 2))
    np.testing.assert_array_equal(frames[2][2], labels)


@pytest.fixture
def filmed(tmp_path):
    """A clip whose colours are a video, whose masks are pictures."""
    synthetic.write_pack(tmp_path / "video", ["ada"], views=1, image_size=64, video=True)
    return source.load_identity(tmp_path / "video", "ada").clips[0]


def test_frames_of_another_kind_or_number_are_named(copied_source, filmed):
    still = source.load_identity(copied_source, "blob_0").clips[0]

    def refuse(clip, size, reason):
        with pytest.raises(BrokenClipError, match=reason):
            list(source.read_frames(clip, (size, size)))

    refuse(dataclasses.replace(filmed, frames=3), 64, r"jaw_v0\.mp4 has more than the 3 frames")
    refuse(dataclasses.replace(still, frames=3), 32, "jaw_v0 has more than the 3 frames")
    for name, folder in (("regions", filmed.regions), ("alpha", filmed.alpha)):
        path = filmed.folder / folder / "00001.png"
        whole = path.read_bytes()
        cv2.imwrite(str(path), np.zeros((8, 64), np.uint8))
        refuse(filmed, 64, f"{name} frame 1 is 8x64, the manifest says 64x64")
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
        refuse(filmed, 64, "expected a (palette or )?8-bit grey PNG, got mode RGB")
        path.write_bytes(whole)


def test_masks_that_changed_since_they_were_hashed_are_named(filmed):
    source.verify_hashes(filmed)
    for name, folder in (("regions", filmed.regions), ("alpha", filmed.alpha)):
        path = filmed.folder / folder / "00001.png"
        whole = path.read_bytes()
        cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
        with pytest.raises(BrokenClipError, match=rf"{name} differs from its sha256"):
            source.verify_hashes(filmed)
        path.write_bytes(whole)


def test_without_alpha_all_is_opaque_and_without_regions_there_are_none(filmed):
    bare = dataclasses.replace(filmed, alpha=None, regions=None)
    for _, alpha, regions in source.read_frames(bare, (64, 64)):
        assert (alpha == 255).all() and regions is None


def test_labels_are_those_of_the_format(copied_source):
    path = copied_source / "blob_0" / "jaw_v0_regions" / "00002.png"
    clip = source.load_identity(copied_source, "blob_0").clips[0]
    for label, fine in ((7, True), (255, True), (8, False)):
        cv2.imwrite(str(path), np.full((IMAGE_SIZE,) * 2, label, np.uint8))
        frames = source.read_frames(clip, (IMAGE_SIZE,) * 2)
        if fine:
            assert list(frames)[2][2].max() == label
        else:
            with pytest.raises(BrokenClipError, match="jaw_v0_regions frame 2: label 8 > 7"):
                list(frames)


def _remove(path):
    path.unlink()


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def _shrink(path):
    cv2.imwrite(str(path), np.zeros((8, 32, 4), np.uint8))


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("smile_v1/00003.png", _remove, r"00003\.png is missing"),
        ("smile_v1/00003.png", _flip, r"00003\.png is not a readable PNG"),
        ("smile_v1/00003.png", _truncate, r"00003\.png is not a readable PNG"),
        ("smile_v1/00003.png", _shrink, r"smile_v1 frame 3 is 8x32, the manifest says 32x32"),
        ("smile_v1_regions/00000.png", _remove, r"regions/00000\.png is missing"),
        ("smile_v1.npy", _truncate, r"smile_v1\.npy"),
    ],
)
def test_damaged_file_is_named(copied_source, tmp_path, name, damage, reason, rehash):
    damage(copied_source / "blob_1" / name)
    if rehash:  # Damaged before its maker hashed it: the content itself must be noticed.
        _rehash(copied_source, "blob_1")
    else:
        reason = f"{name.split('/')[0]} differs from its sha256"
    out = tmp_path / "out"
    summary = packing.pack(copied_source, out, OPTIONS, workers=1)
    assert [(error.identity, error.clip) for error in summary.broken] == [("blob_1", "smile_v1")]
    with pytest.raises(BrokenClipError, match=reason):
        raise summary.broken[0]
    assert summary.identities == 9, "the others are packed"
    with pytest.raises(PackError, match="did not finish"):
        reader.Pack(out)


@pytest.mark.parametrize("hashed", ["without it", "with it", "with all files"])
def test_a_file_beside_the_frames_does_no_harm(copied_source, hashed):
    folder = copied_source / "blob_1" / "smile_v1"
    strays = [folder / name for name in (".DS_Store", "00000 copy.png", "0.png")]
    for stray in strays:
        stray.write_bytes(b"desktop")
    if hashed == "with it":
        _rehash(copied_source, "blob_1")
        for stray in strays:
            stray.unlink()
    clip = source.load_identity(copied_source, "blob_1").clips[-2]
    assert clip.name == "smile_v1"
    if hashed == "with all files":
        clip.sha256["smile_v1"] = digest.folder_sha256(folder)
    source.verify_hashes(clip)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda clip: clip.update(frames=5), "another view of performance"),
        (lambda clip: clip.update(frames=0), "'frames' must be a positive number, got 0"),
        (lambda clip: clip.update(view="1"), "has view 1 twice"),
        (lambda clip: clip.update(name="jaw_v1"), "two clips have this name"),
        (lambda clip: clip.update(rgb="../ada/x"), "'rgb' must be a path inside"),
        (lambda clip: clip.update(alpha="/ada/x"), "'alpha' must be a path inside"),
        (lambda clip: clip.update(camera=None), "'camera' must be an object or 'unknown'"),
        (lambda clip: clip["camera"]["cam2world"][0].__setitem__(0, 2.0), "is not a rotation"),
        (lambda clip: clip["camera"].update(cam2world=[1]), r"must be \(4, 4\) or \(4, 4, 4\)"),
        (lambda clip: _mirror(clip["camera"]["cam2world"]), "right-handed"),
        (lambda clip: clip["camera"]["cam2world"][3].__setitem__(0, 1.0), "is not a rotation"),
        (lambda clip: clip["camera"]["intrinsics"][0].__setitem__(0, 440), "normalised by the"),
        (lambda clip: clip["camera"]["intrinsics"][2].__setitem__(2, 2), "normalised by the"),
        (lambda clip: clip["sha256"].clear(), "has no sha256"),
    ],
)
def test_wrong_description_is_named(copied_source, tmp_path, edit, reason):
    _edit_clip(copied_source, "blob_2", edit)
    summary = packing.pack(copied_source, tmp_path / "out", OPTIONS, workers=1)
    assert {error.identity for error in summary.broken} == {"blob_2"}
    with pytest.raises(BrokenClipError, match=reason):
        raise summary.broken[0]


def test_coefficients_out_of_range(copied_source):
    path = copied_source / "blob_0" / "jaw_v0.npy"
    values = np.load(path)
    for wrong in (1.5, -0.5, np.nan):
        values[1, 3] = wrong
        np.save(path, values)
        with pytest.raises(BrokenClipError, match=r"outside \[0, 1\] or not finite"):
            source.load_coefficients(source.load_identity(copied_source, "blob_0").clips[0])
    values[1, 3:5] = 1.0005, -0.0005  # a filter's
    np.save(path, values)
    clipped = source.load_coefficients(source.load_identity(copied_source, "blob_0").clips[0])
    assert clipped[1, 3:5].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "zip"}, "expected format 'instant_gs.teacher', got 'zip'"),
        ({"version": 2}, "expected version 1, got 2"),
        ({"coefficient_names": ["jawOpen"]}, "52 names in order"),
        ({"image_size": [32, 64]}, "must be square"),
        ({"licence": ""}, "'licence' is missing"),
    ],
)
def test_manifest_is_checked(copied_source, tmp_path, change, reason):
    path = copied_source / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PackError, match=reason):
        packing.pack(copied_source, tmp_path / "out", OPTIONS)


def test_refuses_what_it_would_spoil(copied_source, tmp_path):
    out = tmp_path / "out"
    packing.pack(copied_source, out, OPTIONS, workers=1)
    before = digest.folder_sha256(out)
    with pytest.raises(PackError, match="is not empty"):
        packing.pack(copied_source, out, OPTIONS)
    (out.parent / "link").symlink_to(copied_source)
    for place in (copied_source, copied_source / "packed", out.parent, out.parent / "link" / "p"):
        with pytest.raises(PackError, match="is the source itself, in it or around it"):
            packing.pack(copied_source, place, OPTIONS, resume=True)
    assert sorted(path.name for path in out.parent.iterdir()) == ["link", "out", "source"]
    with pytest.raises(PackError, match="was packed with image_size"):
        packing.pack(copied_source, out, packing.Options(16), resume=True)
    manifest = copied_source / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace("Apache-2.0", "research only"))
    with pytest.raises(PackError, match=r"with licence Apache-2\.0, now it is research only"):
        packing.pack(copied_source, out, OPTIONS, resume=True)
    manifest.write_text(text)
    _edit_clip(copied_source, "blob_0", lambda clip: clip.update(camera="unknown"))
    with pytest.raises(PackError, match=r"blob_0: its identity\.json changed"):
        packing.pack(copied_source, out, OPTIONS, resume=True)
    assert digest.folder_sha256(out) == before


def test_options_are_checked(source_pack, tmp_path):
    with pytest.raises(ValueError, match="codec: expected one of"):
        packing.pack(source_pack, tmp_path / "out", packing.Options(codec="jpeg"))
    assert sorted(record.CODECS) == ["png", "webp"]


def _mirror(pose):
    for row in pose:
        row[0] = -row[0]


def _edit_clip(pack, identity, edit):
    """Changes the description of clip jaw_v0."""
    path = pack / identity / "identity.json"
    content = json.loads(path.read_text())
    edit(content["clips"][0])
    path.write_text(json.dumps(content))


def _rehash(pack, identity):
    content = json.loads((pack / identity / "identity.json").read_text())
    source_writer.write_identity(pack, identity, attributes={}, clips=content["clips"])
