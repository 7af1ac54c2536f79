"""The training pipeline: what a sample is, and that the order survives anything."""

import itertools
import threading
import time
import types

import grain
import jax
import numpy as np
import pytest

from instant_gs.config import DataConfig
from instant_gs.data import bench, packing, pipeline, reader, sampler, synthetic
from instant_gs.data.error import PackError

D = 3


@pytest.fixture(scope="module", name="pack")
def fixture_pack(packed_pack):
    return reader.Pack(packed_pack)


@pytest.fixture(scope="module", name="table")
def fixture_table(pack):
    return sampler.SampleTable([pack], "train")


def _loader(pack, **changes):
    settings = {"batch_size": 4, "driven_per_sample": D, "seed": 5, "cache_gigabytes": 0.01}
    settings["cross_identity"] = 0.5
    return pipeline.make_loader(pack, "train", **(settings | changes))


def _plans(table, count=2000, **changes):
    settings = {"driven_per_sample": D, "cross_identity": 0.5, "same_expression": 0.1}
    planner = sampler.Planner(table, **(settings | changes))
    return np.stack([planner.plan(i % len(table), np.random.default_rng(i)) for i in range(count)])


def _facts(pack, records):
    """(identity, performance, frame, view) of records."""
    located = (pack.locate(int(record)) for record in records)
    return [(clip.identity, clip.performance, frame, clip.view) for clip, frame in located]


def test_a_loader_passes_its_probabilities_on(pack):
    own, others = (next(_loader(pack, cross_identity=share)).driver.image for share in (0.0, 1.0))
    assert not np.array_equal(own, others)


def test_batch_shapes_and_contents(pack):
    batch = next(_loader(pack))
    assert batch.source.image.shape == (4, 32, 32, 3)
    assert batch.reconstruction.alpha.shape == (4, 32, 32)
    assert batch.driven.image.shape == batch.driver.image.shape == (4, D, 32, 32, 3)
    assert batch.driven.regions.shape == (4, D, 32, 32)
    assert batch.driven.cam2world.shape == (4, D, 4, 4)
    assert batch.driver.coefficients.shape == (4, D, 52)
    for view in (batch.source, batch.reconstruction, batch.driven, batch.driver):
        assert view.image.dtype == view.alpha.dtype == view.regions.dtype == np.uint8
        assert view.cam2world.dtype == view.intrinsics.dtype == np.float32
        assert np.isfinite(view.cam2world).all(), "no unknown camera"
        assert 20 < view.image.mean() < 200
    np.testing.assert_array_equal(batch.source.coefficients, batch.reconstruction.coefficients)
    np.testing.assert_array_equal(batch.driven.coefficients, batch.driver.coefficients)
    differs = np.abs(batch.source.cam2world - batch.reconstruction.cam2world).max((1, 2))
    assert (differs > 0.1).all(), "reconstruction is another viewpoint"


def test_what_a_sample_is(pack, table):
    assert len(table) == 6 * 24, "the monocular identity is left out"
    (use,) = table.uses
    assert str(use) == (
        f"{pack.path}: split train uses 6 of 7 people, 36 of 38 clips, 144 of 152 records; 2 clips "
        "left out: their camera is unknown; 3 people are in other splits"
    )
    cross = same = total = 0
    seen = set()
    for plan in _plans(table):
        facts = _facts(pack, plan)
        source, reconstruction = facts[:2]
        assert source[:3] == reconstruction[:3]
        assert source[3] != reconstruction[3]
        for target, driver in zip(facts[2 : 2 + D], facts[2 + D :], strict=True):
            seen.add(target[3])
            assert target[0] == source[0], "targets show the source's identity"
            assert target[1:3] == driver[1:3], "the driver performs the target's expression"
            if driver[0] == target[0]:
                assert driver[3] != target[3]
            else:
                assert driver[0] in pack.identities("train")
                cross += 1
            same += target[1:3] == source[1:3]
            total += 1
    assert seen == {"0", "1", "2"}, "targets are seen from every side"
    assert cross / total == pytest.approx(0.5, abs=0.03)
    # 0.1, and one of 2 x 4 frames by chance in the rest.
    assert same / total == pytest.approx(0.1 + 0.9 / 8, abs=0.03)


def test_targets_show_the_person_of_the_photo_and_drivers_another(pack):
    batch = pipeline.make_batches(
        [pack], _Indices(), "train", batch_size=8, driven_per_sample=D, cross_identity=1.0
    )[0]
    for name in ("reconstruction", "driven", "driver"):
        records = getattr(batch, name).reshape(8, -1)
        for source, others in zip(batch.source, records, strict=True):
            (person, *_), *_ = _facts(pack, [source])
            same = [fact[0] == person for fact in _facts(pack, others)]
            assert same == [name != "driver"] * len(same), name


@pytest.mark.parametrize(("cross_identity", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_cross_identity_extremes(pack, table, cross_identity, expected):
    plans = _plans(table, 300, cross_identity=cross_identity)
    crossed = [
        target[0] != driver[0]
        for plan in plans
        for target, driver in zip(
            _facts(pack, plan[2 : 2 + D]), _facts(pack, plan[2 + D :]), strict=True
        )
    ]
    assert np.mean(crossed) == expected


def test_drivers_are_drawn_evenly(pack, table):
    drivers = [
        fact[0]
        for plan in _plans(table, 3000, cross_identity=1.0)
        for fact in _facts(pack, plan[2 + D :])
    ]
    shares = np.unique(drivers, return_counts=True)[1] / len(drivers)
    assert len(shares) == 6
    np.testing.assert_allclose(shares, 1 / 6, atol=0.02)


def test_same_expression_always(pack, table):
    for plan in _plans(table, 100, same_expression=1.0):
        facts = _facts(pack, plan)
        assert {fact[1:3] for fact in facts} == {facts[0][1:3]}


def test_an_epoch_visits_every_source_once(pack, table):
    batches = pipeline.make_batches(
        [pack], _Indices(), "train", batch_size=4, driven_per_sample=1, seed=1
    )
    epoch = len(table) // 4
    sources = np.concatenate([batches[i].source for i in range(2 * epoch)])
    first, second = np.split(sources, 2)
    assert sorted(first) == sorted(second)
    assert len(set(first)) == len(table)
    assert list(first) != sorted(first)
    assert list(first) != list(second), "every epoch has its own order"
    targets = np.concatenate([batches[i].driven for i in range(2 * epoch)])[:, 0]
    rest = [
        part[np.argsort(own)]
        for own, part in zip((first, second), np.split(targets, 2), strict=True)
    ]
    assert (rest[0] != rest[1]).mean() > 0.8, "every epoch has other targets of a source"


def test_same_seed_same_batches(pack):
    _assert_equal(_take(_loader(pack), 4), _take(_loader(pack), 4))
    other = _take(_loader(pack, seed=6), 4)
    assert not np.array_equal(other[0].source.image, next(_loader(pack)).source.image)


def test_any_number_of_threads_makes_the_same_batches_also_where_a_run_resumes(pack):
    one = _loader(pack, mirror=0.5)
    expected = _take(one, 12)
    state = one.get_state()
    for threads in (2, 5):
        several = _loader(pack, mirror=0.5, threads=threads)
        _assert_equal(_take(several, 12), expected)
        assert several.get_state() == state
        several.set_state(state)
        _assert_equal(_take(several, 4), _take(one, 4))
        one.set_state(state)


def test_as_many_batches_are_read_at_a_time_as_there_are_threads():
    meet = threading.Barrier(5, timeout=60)  # nobody passes before five are there

    def batch(number):
        meet.wait()
        return number

    batches = pipeline.read_ahead(grain.MapDataset.range(5).map(batch), 5)
    assert _take(batches, 5) == list(range(5))


@pytest.mark.parametrize("before", [0, 5, 40])
def test_restore_mid_epoch(pack, before):
    """40 batches of 4 lie in the second epoch of 144 records."""
    loader = _loader(pack)
    _take(loader, before)
    state = loader.get_state()
    expected = _take(loader, 4)
    _take(loader, 3)
    fresh = _loader(pack)
    fresh.set_state(state)
    _assert_equal(_take(fresh, 4), expected)
    loader.set_state(state)
    _assert_equal(_take(loader, 4), expected)


def test_shards_are_disjoint_and_complete(pack, table):
    def sources(index, count):
        batches = pipeline.make_batches(
            [pack],
            _Indices(),
            "train",
            batch_size=4,
            driven_per_sample=1,
            shard_index=index,
            shard_count=count,
        )
        return np.concatenate([batches[i].source for i in range(len(table) // count // 4)])

    parts = [sources(index, 3) for index in range(3)]
    assert len({len(part) for part in parts}) == 1
    for one, other in itertools.combinations(parts, 2):
        assert not set(one) & set(other)
    together = np.stack(parts, 1).ravel()
    np.testing.assert_array_equal(together, sources(0, 1)[: len(together)])
    assert len(together) == len(table)


def test_image_size(pack):
    batch = next(_loader(pack, image_size=16))
    full = next(_loader(pack))
    assert batch.driven.image.shape == (4, D, 16, 16, 3)
    small = full.source.image.reshape(4, 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_allclose(batch.source.image, small, atol=0.51)
    with pytest.raises(PackError, match=r"image_size \(64, 64\) is larger"):
        _loader(pack, image_size=64)


def test_frames_are_remembered_until_the_memory_for_them_is_full(pack):
    store = pipeline.FrameStore([pack], cache_bytes=2 * 32 * 32 * 5)
    assert sum(store.read(index) is store.read(index) for index in range(5)) == 2


def test_mixed_packs(pack, packed_pack, tmp_path):
    synthetic.write_pack(tmp_path / "source", ["ada", "eve"], image_size=48, frames=2)
    packing.pack(tmp_path / "source", tmp_path / "other", packing.Options(48), workers=1)
    packs = [packed_pack, tmp_path / "other"]
    table = sampler.SampleTable(reader.open_packs(packs), "train")
    assert len(table) == 6 * 24 + 2 * 12
    names = {number: name for number, (_, name) in enumerate(table.identities)}
    for performance in table.performances:
        own = names[performance.identity]
        shared = [table.performances[i].identity for i in table.by_key[performance.key]]
        mates = {names[i] for i in shared}
        assert (mates == {"ada", "eve"}) == (own in ("ada", "eve")), "drivers stay in the pack"
    store = pipeline.FrameStore(reader.open_packs(packs), (24, 24))
    shown = {store.read(int(plan[0])).identity for plan in _plans(table, len(table))}
    assert shown == set(names.values()), "records are numbered one pack after the other"
    with pytest.raises(PackError, match="the packs have"):
        _loader(packs)
    batch = next(_loader(packs, image_size=24, batch_size=32))
    assert batch.source.image.shape == (32, 24, 24, 3)


def test_damaged_record_stops_the_loader(copied_pack):
    shard = copied_pack / "shards" / "00000.array_record"
    data = bytearray(shard.read_bytes())
    for spot in range(2000, len(data) - 70000, 500):
        data[spot] ^= 1
    shard.write_bytes(data)
    with pytest.raises(PackError, match=r"00000\.array_record record \d+ \(blob_"):
        _take(_loader(copied_pack), 30)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"driven_per_sample": 0}, "driven_per_sample: expected at least 1"),
        ({"cross_identity": 1.2}, "cross_identity: expected 0 to 1"),
        ({"same_expression": float("nan")}, "same_expression: expected 0 to 1"),
        ({"seed": -1}, "seed: expected 0"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index: expected 0 to 1"),
    ],
)
def test_arguments_are_checked(pack, changes, reason):
    with pytest.raises(ValueError, match=reason):
        _loader(pack, **changes)


def test_nothing_to_sample(packed_pack, tmp_path):
    with pytest.raises(PackError, match="nothing to sample in split 'validation': 0 identities"):
        pipeline.make_loader(packed_pack, "validation", batch_size=1, driven_per_sample=1)
    with pytest.raises(ValueError, match="split: expected one of"):
        pipeline.make_loader(packed_pack, "tests", batch_size=1, driven_per_sample=1)
    with pytest.raises(ValueError, match="packs: expected at least one"):
        pipeline.make_loader([], "train", batch_size=1, driven_per_sample=1)


@pytest.mark.parametrize("cached", [False, True])
def test_bench(pack, cached):
    figures = bench.measure(pack, cached=cached, batches=2, batch_size=2, image_size=16)
    assert figures["case"] == ("cached" if cached else "decoded")
    assert figures["images_per_batch"] == 2 * (2 + 2 * 4)
    assert figures["images_per_second"] > 0


def test_bench_reads_as_training_does_and_times_every_batch_that_it_counts(pack, monkeypatch):
    events = []
    read_ahead, assemble = pipeline.read_ahead, pipeline._Assemble.map

    def noted(name, function):
        def call(*arguments):
            events.append(name)
            return function(*arguments)

        return call

    clock = {name: noted("clock", getattr(time, name)) for name in ("perf_counter", "process_time")}
    monkeypatch.setattr(bench, "time", types.SimpleNamespace(**clock))
    monkeypatch.setattr(pipeline, "read_ahead", noted("read_ahead", read_ahead))
    monkeypatch.setattr(pipeline._Assemble, "map", noted("batch", assemble))
    figures = bench.measure(pack, cached=False, batches=6, batch_size=2, image_size=16)
    assert events[:3] == ["clock", "clock", "read_ahead"], "no batch is ready before"
    assert figures["threads"] == DataConfig.threads
    assert 6 <= events.count("batch") <= 6 + DataConfig.threads


class _Indices:
    """Stands in for a FrameStore: gives the record numbers themselves."""

    def read_views(self, indices):
        return indices


def _take(iterator, count):
    return [next(iterator) for _ in range(count)]


def _assert_equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(one, other)
