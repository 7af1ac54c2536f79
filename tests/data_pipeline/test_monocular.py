"""Clips that one camera alone saw: their frames are targets and drivers of one another."""

import json

import numpy as np
import pytest

from instant_gs.data import packing, pair, pipeline, reader, sampler, synthetic, validate
from instant_gs.data import source_writer as writer
from instant_gs.data.error import PackError


def pack_of(path, names, change=None, **kwargs):
    """Packs one-view clips with known cameras; `change` edits each clip's description."""
    source = synthetic.write_pack(path / "source", names, **{"views": 1, **kwargs})
    for name in names if change else ():
        clips = json.loads((source / name / "identity.json").read_text())["clips"]
        for one in clips:
            change(source / name, one)
        writer.write_identity(source, name, attributes={}, clips=clips)
    packing.pack(source, path / "packed", packing.Options(32), workers=1)
    return reader.Pack(path / "packed")


def facts(pack, record):
    clip, frame = pack.locate(int(record))
    return clip.identity, clip.performance, frame


def plans(table, cross, same, driven=2):
    planner = sampler.Planner(table, driven, cross, same)
    return [planner.plan(i % len(table), np.random.default_rng(i)) for i in range(300)]


def test_what_a_sample_is(tmp_path):
    pack = pack_of(tmp_path, ["ada", "eve"])
    table = sampler.SampleTable([pack], "all")
    assert len(table) == len(pack) == 16 and table.uses[0].single_views == 4
    targets = set()
    for source, reconstruction, *others in plans(table, cross=0, same=0):
        assert reconstruction == source, "nobody else saw the source's expression"
        assert others[:2] == others[2:], "a target drives itself"
        assert {facts(pack, one)[0] for one in others} == {facts(pack, source)[0]}
        targets |= {int(one) for one in others}
    assert targets == set(range(16)), "every frame of every clip is a target"
    for source, _, *others in plans(table, cross=0, same=1):
        assert set(others) == {source}


def test_another_identity_drives_where_it_performs_the_same(tmp_path):
    pack = pack_of(tmp_path, ["ada", "eve"])
    for _, _, *others in plans(sampler.SampleTable([pack], "all"), cross=1, same=0, driven=1):
        target, driver = (facts(pack, one) for one in others)
        assert target[1:] == driver[1:] and target[0] != driver[0]


def weaken_ada(folder, one):
    path = folder / one["coefficients"]
    if folder.name == "ada":
        np.save(path, np.load(path) * np.float32(0.9))


def test_other_coefficients_under_the_same_name_drive_nobody_else(tmp_path):
    pack = pack_of(tmp_path, ["ada", "eve"], weaken_ada)
    table = sampler.SampleTable([pack], "all")
    assert [len(shared) for shared in table.by_key] == [1, 1, 1, 1]


def test_estimated_coefficients_differ_and_the_name_decides(tmp_path):
    def estimated(folder, one):
        one["coefficients_estimated"] = True
        weaken_ada(folder, one)  # estimates of two faces differ

    pack = pack_of(tmp_path, ["ada", "eve"], estimated)
    assert {clip.track for clip in pack.clips} == {"estimated"}
    assert list(validate.source_problems(tmp_path / "source")) == []
    table = sampler.SampleTable([pack], "all")
    assert [len(shared) for shared in table.by_key] == [2, 2]


def test_mixed_with_many_views(packed_pack, tmp_path):
    pack_of(tmp_path, ["ada"])
    loader = pipeline.make_loader(
        [packed_pack, tmp_path / "packed"], "all", batch_size=8, driven_per_sample=2
    )
    batches = [next(loader) for _ in range((9 * 24 + 8) // 8)]  # an epoch
    moved = np.concatenate(
        [np.abs(b.source.cam2world - b.reconstruction.cam2world).max((1, 2)) for b in batches]
    )
    assert (moved == 0).sum() == 8, "ada's frames are their own reconstruction"
    assert all(np.isfinite(b.driver.coefficients).all() for b in batches)


def test_a_single_frame_is_left_out_and_said(tmp_path):
    pack = pack_of(tmp_path, ["ada"], frames=1, performances=["jaw"])
    with pytest.raises(PackError, match="1 identities with a single frame; sampling needs a known"):
        sampler.SampleTable([pack], "all")
    two = pack_of(tmp_path / "two", ["ada"], frames=2, performances=["jaw"])
    assert len(sampler.SampleTable([two], "all")) == 2


def test_missing_coefficients_are_refused_where_they_are_needed(tmp_path):
    pack = pack_of(tmp_path, ["ada"], lambda _, one: one.update(coefficients=None))
    settings = {"batch_size": 2, "driven_per_sample": 1}
    next(pipeline.make_loader(pack, "all", **settings))
    with pytest.raises(PackError, match=r"2 clips have no coefficients.*motion_pretrain\.steps=0"):
        pipeline.make_loader(pack, "all", need_coefficients=True, **settings)


def test_evaluation_pairs(tmp_path):
    pack = pack_of(tmp_path, ["ada", "eve"])
    for one in pair.evaluation_pairs(pack, "all", kind="self", limit=20):
        assert one.driver == one.target != one.source
        assert facts(pack, one.source)[0] == facts(pack, one.target)[0]
    for one in pair.evaluation_pairs(pack, "all", kind="cross", limit=20):
        assert facts(pack, one.driver)[1:] == facts(pack, one.target)[1:]
