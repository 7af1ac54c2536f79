"""Evaluation pairs are fixed and mean what they say."""

import pytest

from instant_gs.data import packing, pair, reader, synthetic
from instant_gs.data.error import PackError


@pytest.fixture(scope="module", name="pack")
def fixture_pack(packed_pack):
    return reader.Pack(packed_pack)


def _facts(pack, record):
    clip, frame = pack.locate(record)
    return clip.identity, clip.performance, frame, clip.view


def test_self_pairs(pack):
    pairs = pair.evaluation_pairs(pack, "test", kind="self", limit=40)
    for one in pairs:
        source, driver, target = (_facts(pack, i) for i in (one.source, one.driver, one.target))
        assert source[0] == driver[0] == target[0]
        assert driver[:3] == target[:3]
        assert driver[3] != target[3]
        assert source[1:3] != target[1:3]
    assert {_facts(pack, one.source)[0] for one in pairs} == set(pack.identities("test"))


def test_cross_pairs_have_a_true_image(pack):
    pairs = pair.evaluation_pairs(pack, "test", kind="cross", limit=40)
    for one in pairs:
        source, driver, target = (_facts(pack, i) for i in (one.source, one.driver, one.target))
        assert source[0] == target[0] != driver[0]
        assert driver[1:3] == target[1:3]
        assert {source[0], driver[0]} <= set(pack.identities("test"))
    assert len({_facts(pack, one.target)[3] for one in pairs}) == 3, "all viewpoints occur"


@pytest.mark.parametrize("kind", pair.KINDS)
def test_deterministic_prefix(pack, kind):
    pairs = pair.evaluation_pairs(pack, "all", kind=kind, limit=20, seed=3)
    assert pair.evaluation_pairs(pack, "all", kind=kind, limit=20, seed=3) == pairs
    assert pair.evaluation_pairs(pack, "all", kind=kind, limit=7, seed=3) == pairs[:7]
    assert pair.evaluation_pairs(pack, "all", kind=kind, limit=20, seed=4) != pairs


def test_cross_without_truth(tmp_path):
    synthetic.write_pack(tmp_path / "source", ["ada"], performances=["jaw"])
    synthetic.write_pack(tmp_path / "source", ["eve"], performances=["smile"])
    packing.pack(tmp_path / "source", tmp_path / "out", packing.Options(32), workers=1)
    pack = reader.Pack(tmp_path / "out")
    for one in pair.evaluation_pairs(pack, "all", kind="cross", limit=6):
        assert one.target is None
        assert _facts(pack, one.source)[0] != _facts(pack, one.driver)[0]


def test_cross_prefers_a_true_image(tmp_path):
    synthetic.write_pack(tmp_path / "source", ["ada", "bob"], performances=["jaw"])
    synthetic.write_pack(tmp_path / "source", ["eve"], performances=["smile"])
    packing.pack(tmp_path / "source", tmp_path / "out", packing.Options(32), workers=1)
    pack = reader.Pack(tmp_path / "out")
    pairs = pair.evaluation_pairs(pack, "all", kind="cross", limit=6)
    assert all(one.target is not None for one in pairs)
    assert {_facts(pack, one.source)[0] for one in pairs} == {"ada", "bob"}


def test_impossible(pack, packed_pack):
    with pytest.raises(ValueError, match="kind: expected one of self, cross"):
        pair.evaluation_pairs(pack, "test", kind="both")
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        pair.evaluation_pairs(pack, "test", kind="self", limit=0)
    with pytest.raises(PackError, match="nothing to sample"):
        pair.evaluation_pairs(pack, "validation", kind="self")
