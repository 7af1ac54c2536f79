"""What a pack's pictures show is asked of its cameras, and must be the model's view."""

import json

import numpy as np
import pytest

from instant_gs import cli
from instant_gs.data import framing, packing, pipeline, reader, synthetic
from instant_gs.data import source_writer as writer
from instant_gs.geometry import camera

WIDE, NARROW = camera.FOV_WIDE_DEGREES, camera.FOV_LEGACY_DEGREES


def pack_of(folder, change, identities=("ada", "eve"), **kwargs):
    """A pack; `change` edits each clip's camera and is given the clip's number."""
    source = synthetic.write_pack(folder / "source", identities, **{"frames": 2, **kwargs})
    number = 0
    for name in identities:
        clips = json.loads((source / name / "identity.json").read_text())["clips"]
        for clip in clips:
            clip["camera"] = change(clip["camera"], number)
            number += 1
        writer.write_identity(source, name, attributes={}, clips=clips)
    packing.pack(source, folder / "packed", packing.Options(32), workers=1)
    return reader.Pack(folder / "packed")


def seen_by(lens, distance=camera.RADIUS):
    """Focal lengths by a factor `lens`, at a distance."""

    def change(given, number):
        pose, intrinsics = np.array(given["cam2world"]), np.array(given["intrinsics"])
        pose[:3, 3] *= distance / camera.RADIUS
        intrinsics[[0, 1], [0, 1]] *= lens(number) if callable(lens) else lens
        return {"cam2world": pose.tolist(), "intrinsics": intrinsics.tolist()}

    return change


def test_a_pack_of_the_models_view_is_taken_and_another_named(packed_pack, tmp_path):
    pack = reader.Pack(packed_pack)
    assert framing.focal_length(pack) == pytest.approx(camera.focal_length(), rel=1e-6)
    framing.check([pack], WIDE)
    narrow = pack_of(tmp_path, seen_by(camera.focal_length(NARROW) / camera.focal_length()))
    framing.check([narrow], NARROW)
    with pytest.raises(cli.UserError) as caught:
        framing.check([pack, narrow], WIDE)
    assert str(caught.value) == (
        f"{tmp_path}/packed: its pictures show a view of 18.837 degrees (focal length 4.263 at 2.7 "
        "world units), the model's one of 23.28 (3.433); give a pack of the model's view; a model "
        "for this one trains with --config.model.fov_degrees=18.837"
    )
    settings = {"batch_size": 2, "driven_per_sample": 1}
    with pytest.raises(cli.UserError, match=r"/packed: .* 23\.28 degrees"):
        pipeline.make_loader([narrow, pack], "all", fov_degrees=NARROW, **settings)
    next(pipeline.make_loader(narrow, "all", fov_degrees=NARROW, **settings))


def test_a_longer_lens_farther_away_shows_the_same(tmp_path):
    framing.check([pack_of(tmp_path, seen_by(2, distance=2 * camera.RADIUS))], WIDE)


@pytest.mark.parametrize(
    ("factor", "fine"), [(1.09, True), (1.11, False), (0.91, True), (0.89, False)]
)
def test_views_may_differ_a_little(factor, fine, tmp_path):
    pack = pack_of(tmp_path, seen_by(factor), ["ada"])
    if fine:
        framing.check([pack], WIDE)
    else:
        with pytest.raises(cli.UserError, match="its pictures show"):
            framing.check([pack], WIDE)


def test_single_cameras_that_differ_do_not_count(tmp_path):
    """A rig with one close-up among three cameras of each performance."""
    pack = pack_of(tmp_path, seen_by(lambda number: 1.5 if number % 3 == 0 else 1.0))
    assert framing.focal_length(pack) == pytest.approx(camera.focal_length(), rel=1e-6)


def test_of_two_views_one_is_named(tmp_path):
    pack = pack_of(tmp_path, seen_by(lambda number: 1.3 if number % 2 else 1.0))
    assert framing.focal_length(pack) == pytest.approx(camera.focal_length(), rel=1e-6)


def test_few_records_are_read_and_none_without_a_camera(tmp_path, monkeypatch):
    names = [f"person{number}" for number in range(9)]
    pack = pack_of(
        tmp_path,
        lambda given, number: "unknown" if number % 2 else given,
        names,
        performances=["jaw", "smile"],
    )
    seen, read = [], pack.read
    monkeypatch.setattr(pack, "read", lambda index: seen.append(index) or read(index))
    assert framing.focal_length(pack) == pytest.approx(camera.focal_length(), rel=1e-6)
    clips = [pack.locate(index)[0] for index in seen]
    assert len(clips) == 16 and all(clip.camera_known for clip in clips)
    assert {clip.identity for clip in clips} == set(names), "evenly over the pack"


def test_what_cannot_be_known_is_no_error_here(copied_pack, tmp_path):
    unknown = pack_of(tmp_path / "unknown", lambda *_: "unknown", ["ada"])
    away = pack_of(tmp_path / "away", seen_by(1, distance=-camera.RADIUS), ["ada"])
    (copied_pack / "shards" / "00000.array_record").unlink()
    broken = reader.Pack(copied_pack, allow_broken=True)
    assert framing.focal_length(unknown) is framing.focal_length(away) is None
    assert framing.focal_length(broken) == pytest.approx(camera.focal_length(), rel=1e-6)
    framing.check([unknown, away, broken], WIDE)
