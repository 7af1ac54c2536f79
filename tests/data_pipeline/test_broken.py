"""Broken records: an error, or skipped, counted and listed while order and restart stay exact."""

import logging

import jax
import numpy as np
import pytest

from instant_gs.data import pipeline, reader, sampler
from instant_gs.data.broken import BrokenRecords
from instant_gs.data.error import PackError


def _loader(pack, broken=None, **changes):
    arguments = {"batch_size": 4, "driven_per_sample": 2, "seed": 3, "cache_gigabytes": 0.1}
    return pipeline.make_loader(pack, "train", broken=broken, **arguments | changes)


def _damage(pack, share):
    """Changes a byte in the middle of a share of the first shard's bytes; returns the shard."""
    shard = pack / "shards" / "00000.array_record"
    data = bytearray(shard.read_bytes())
    for spot in range(2000, int(len(data) * share), 500):
        data[spot] ^= 1
    shard.write_bytes(data)
    return shard


def _same(some, others):
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def test_broken_records_are_replaced_counted_and_listed_once(copied_pack, packed_pack, caplog):
    _damage(copied_pack, 0.1)
    broken = BrokenRecords()
    loader, whole = _loader(copied_pack, broken, batch_size=1), _loader(packed_pack, batch_size=1)
    same = [_same(next(loader), next(whole)) for _ in range(60)]
    assert 30 < sum(same) < 60  # samples without a broken record are those of the whole pack
    count = len(broken)  # the loader reads ahead
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(set(lines)) >= count > 1
    assert all("00000.array_record record" in line and "(blob_" in line for line in lines)


@pytest.mark.parametrize("before", [1, 7])
def test_restart_is_exact_with_broken_records(copied_pack, before):
    _damage(copied_pack, 0.3)
    loader = _loader(copied_pack, BrokenRecords())
    for _ in range(before):
        next(loader)
    state, rest = loader.get_state(), [next(loader) for _ in range(10)]
    again = _loader(copied_pack, BrokenRecords(), cache_gigabytes=0)
    again.set_state(state)
    assert all(_same(next(again), batch) for batch in rest)


def test_hosts_replace_alike(copied_pack):
    _damage(copied_pack, 0.3)
    one = _loader(copied_pack, BrokenRecords(), batch_size=8)
    hosts = [
        _loader(copied_pack, BrokenRecords(), batch_size=4, shard_index=host, shard_count=2)
        for host in (0, 1)
    ]
    for _ in range(5):
        parts = [next(host).source.image for host in hosts]
        np.testing.assert_array_equal(
            np.stack(parts, 1).reshape(8, 32, 32, 3), next(one).source.image
        )


def test_every_broken_sample_has_a_replacement_of_its_own(copied_pack):
    (copied_pack / "shards" / "00001.array_record").unlink()
    pack = reader.Pack(copied_pack, allow_broken=True)
    planner = sampler.Planner(sampler.SampleTable([pack], "train"), 1, 0.0, 0.1)
    lost = [clip.first for clip in pack.clips if clip.shard == 1]
    broken = BrokenRecords()
    whole = [broken.whole_sample(np.full(4, one), planner, pack.read).tolist() for one in lost]
    assert len(lost) > 10 and len({sample[0] for sample in whole}) > 0.8 * len(lost)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_shard_can_be_missing_or_truncated(copied_pack, damage, caplog):
    shard = copied_pack / "shards" / "00001.array_record"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(PackError, match=r"00001\.array_record: .*(missing|truncated)"):
        _loader(copied_pack)
    broken = BrokenRecords()
    loader = _loader(copied_pack, broken)
    for _ in range(10):
        next(loader)
    assert len(broken) > 3 and "00001.array_record record" in caplog.text


def test_an_error_leaves_the_loader_where_it_was(copied_pack):
    shard = _damage(copied_pack, 0.3)
    loader = _loader(copied_pack)
    taken = 0
    with pytest.raises(PackError, match=r'00000\.array_record record .*data\.broken="skip"'):
        for _ in range(100):
            next(loader)
            taken += 1
    assert loader.get_state() == {"next_index": taken}
    assert shard.exists()


def test_nothing_whole_is_an_error(copied_pack, caplog):
    caplog.set_level(logging.CRITICAL)
    for shard in (copied_pack / "shards").iterdir():
        shard.unlink()
    with pytest.raises(PackError, match=r"in a row hold a broken record, \d+ records are broken"):
        next(_loader(copied_pack, BrokenRecords()))
