"""How many slots an image gets, what is proposed, and what is said where they do not do."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import constants
from kernels.rasterize import api, binning


def test_a_capacity_is_proposed_for_options_only(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    with pytest.raises(TypeError, match=r"options: expected kernels\.RasterizeOptions, got dict"):
        kernels.propose_capacity(*scene[:7], image_size=(8, 8), options={"eps2d": 0.3})


def test_a_capacity_is_measured_where_numbers_are(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    arrays = {name: array for name, array in scene._asdict().items() if name != "background"}
    assert kernels.propose_capacity(**arrays, image_size=(8, 8)) % 1024 == 0
    with pytest.raises(ValueError, match="implementation: 'reference' has no slots"):
        kernels.propose_capacity(**arrays, image_size=(8, 8), implementation="reference")
    with pytest.raises(TypeError, match=r"propose_capacity: .* outside jit and vmap"):
        jax.jit(lambda arrays: kernels.propose_capacity(**arrays, image_size=(8, 8)))(arrays)


def test_proposed_capacity_holds_the_scene(helpers):
    scene = helpers.as_float32(helpers.make_scene(seed=2))
    size = (helpers.HEIGHT, helpers.WIDTH)
    needed = int(helpers.render("xla", helpers.make_scene(seed=2)).stats.num_intersections[0])
    capacity = kernels.propose_capacity(
        *scene[:7], image_size=size, options=helpers.OPTIONS, implementation="xla"
    )
    assert needed <= capacity <= 2 * needed + 1024
    assert capacity % 1024 == 0


def test_a_proposal_holds_the_camera_that_needs_most(monkeypatch, helpers):
    """Measured as asked for, also where the options' own capacity is too small to."""
    asked = {}

    def rasterize(*arrays, **settings):
        asked.update(settings)
        counts = jnp.array([3, 5600, 1000])
        return types.SimpleNamespace(stats=kernels.RasterizeStats(counts, counts, counts))

    monkeypatch.setattr(api, "rasterize", rasterize)
    scene = helpers.as_float32(helpers.make_scene())
    options = kernels.RasterizeOptions(capacity=7, tile_size=(2, 2))
    settings = {"image_size": (9, 13), "implementation": "xla"}
    assert kernels.propose_capacity(*scene[:7], **settings, options=options) == 7168
    counting = dataclasses.replace(options, on_overflow="count")
    assert asked == {**settings, "options": counting}


@pytest.mark.parametrize(
    ("count", "capacity"),
    [(0, 1024), (819, 1024), (824, 2048), (8192, 10_240), (2**30, 2**30)],
)
def test_a_proposal_is_the_count_and_a_quarter_rounded_up(count, capacity):
    assert api.propose_from_count(count) == capacity


def test_the_automatic_capacity_grows_with_splats_and_tiles(monkeypatch, helpers):
    assert api.automatic_capacity(1, (8, 8)) == 4096
    tiles = 13 * 25  # the last ones stick out
    assert api.automatic_capacity(1000, (100, 200)) == 12 * 1000 + 16 * tiles
    assert api.automatic_capacity(10**9, (8, 8)) == constants.MAX_CAPACITY
    taken = []

    def refuse(operands, config):
        taken.append(config.capacity)
        raise NotImplementedError("enough is seen")

    monkeypatch.setattr(api, "_load", lambda name: refuse)
    scene = helpers.make_scene(num_splats=1000)
    with pytest.raises(NotImplementedError, match="enough"):
        kernels.rasterize(*helpers.as_float32(scene)[:7], image_size=(100, 200))
    assert taken == [12 * 1000 + 16 * tiles]


def test_the_error_of_an_overflow_names_a_capacity_that_would_do():
    counts = [jnp.array(numbers) for numbers in ([10, 5600], [7, 7], [3, 5593])]
    stats = kernels.RasterizeStats(*counts)
    message = r"5600 tile .* capacity is 7, 5593 dropped; pass RasterizeOptions\(capacity=7168\)"
    with pytest.raises(OverflowError, match=message):
        api._check_overflow(stats, kernels.RasterizeOptions())
    api._check_overflow(stats, kernels.RasterizeOptions(on_overflow="count"))


def test_more_intersections_than_int32_counts_are_an_overflow():
    """140,000 splats over 16,384 tiles each: 2.3e9, which is negative in int32."""
    splats, size = 140_000, 1024
    arrays = (
        jnp.zeros((splats, 3)).at[:, 2].set(2.0),
        jnp.ones((splats, 4)),
        jnp.full((splats, 3), 1e3),
        jnp.full(splats, 0.9),
        jnp.ones((splats, 1)),
        jnp.eye(4)[None],
        jnp.array([[[100.0, 0, size / 2], [0, 100, size / 2], [0, 0, 1]]]),
    )
    options = kernels.RasterizeOptions(capacity=20_000, on_overflow="count")
    call = {"image_size": (size, size), "implementation": "xla"}
    out = kernels.rasterize(*arrays, **call, options=options)
    most = 2**31 - 1
    assert int(out.stats.num_intersections[0]) == most
    assert int(out.stats.overflow[0]) == most - 20_000
    assert float(out.alpha.min()) > 0.89, "the nearest covers the screen"
    with pytest.raises(OverflowError, match="no capacity holds so many"):
        kernels.rasterize(
            *arrays, **call, options=dataclasses.replace(options, on_overflow="raise")
        )


def test_counts_are_cut_before_their_sums_leave_int32():
    counts = np.random.default_rng(0).integers(0, 2**20, size=(2, 5000)).astype(np.int32)
    counts[1] //= 4
    ends = np.cumsum(counts.astype(np.int64), axis=-1)
    cut = np.asarray(binning._countable(jnp.asarray(counts))).astype(np.int64)
    sums = np.cumsum(cut, axis=-1)
    assert ends[0, -1] > 2**31 and sums.max() < 2**31
    slots = ends <= 2**30
    np.testing.assert_array_equal(sums[slots], ends[slots])
    np.testing.assert_array_equal(cut[1], counts[1])  # all of it fits
    expected = np.minimum(ends[:, -1], 2**31 - 1)
    np.testing.assert_array_equal(binning.total(jnp.asarray(counts)), expected)


def test_sorting_and_sums_at_their_limits():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**31, size=(2, 5000)).astype(np.uint32)
    keys[:, ::3] = keys[:, :1]  # ties
    order = np.asarray(binning.stable_argsort(jnp.asarray(keys), 31))
    np.testing.assert_array_equal(order, np.argsort(keys, axis=-1, kind="stable"))
    values = rng.integers(0, 2**19, size=(2, 4097)).astype(np.int32)  # sums close to 2^31
    np.testing.assert_array_equal(
        binning.cumulative_sum(jnp.asarray(values)), np.cumsum(values, axis=-1)
    )
