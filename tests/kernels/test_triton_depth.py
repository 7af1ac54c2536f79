"""Slots from near to far without a sort, and the tiles that get one: `triton_depth`, `row_span`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.rasterize import cases
from kernels.types import Operands, RasterizeConfig
from tests.kernels import triton_scene as ts

pytestmark = ts.MARKS

SPLATS = 330  # five or six limits between bins
KINDS = {
    "even": lambda rng, even: even,
    "equal": lambda rng, even: np.full(SPLATS, 3.0),
    "two planes": lambda rng, even: rng.choice([2.0, 3.0], SPLATS),
    "one far away": lambda rng, even: np.where(np.arange(SPLATS) == 5, 1e8, even),
    "over decades": lambda rng, even: np.exp(rng.uniform(np.log(0.02), np.log(1e6), SPLATS)),
    "from far to near": lambda rng, even: np.linspace(4.0, 2.0, SPLATS),
    "periodic": lambda rng, even: 2.0 + np.arange(SPLATS) % 64 / 64,
    "most behind": lambda rng, even: np.where(rng.uniform(size=SPLATS) < 0.9, -even, even),
    "last ones behind": lambda rng, even: np.where(np.arange(SPLATS) < 270, even, 2 * even),
    "none visible": lambda rng, even: -even,
}


def _operands(depths: np.ndarray, size: tuple[int, int], scale: float, cameras: int) -> Operands:
    """Splats at these depths, all over the picture; further cameras stand farther back."""
    rng = np.random.default_rng(3)
    count, (height, width) = len(depths), size
    focal = 0.9 * width
    across = rng.uniform(-0.45, 0.45, (count, 2)) * (width, height) / focal
    views = np.stack([np.eye(4)] * cameras)
    views[:, 2, 3] = 0.5 * np.arange(cameras)
    operands = Operands(
        means=np.concatenate([across * np.abs(depths)[:, None], depths[:, None]], 1),
        quats=rng.normal(size=(count, 4)),
        scales=np.abs(depths)[:, None] * np.exp(rng.normal(0, 1, (count, 3))) * scale,
        opacities=rng.uniform(0.02, 1.0, count),
        features=np.ones((count, 1)),
        viewmats=views,
        intrinsics=np.stack([cases.pinhole((focal, focal), (width / 2, height / 2))] * cameras),
    )
    return Operands(*(jnp.asarray(array, jnp.float32)[None] for array in operands))


@pytest.mark.parametrize("kind", KINDS)
def test_slots_go_from_near_to_far_and_bins_stay_small(kind):
    """Also of few bins: each splat is compared with its own, one bin of all would take for ever."""
    # Not at the top: triton_scene chooses the interpreter first.
    from kernels.rasterize import triton_config, triton_fwd, triton_sizes

    rng = np.random.default_rng(1)
    depths = KINDS[kind](rng, rng.uniform(2.0, 4.0, SPLATS))
    operands = _operands(depths, (16, 24), 0.01, 2 if kind == "even" else 1)
    config = RasterizeConfig(ts.COUNT, 16, 24, 9999)
    kernel = triton_config.choose(config, 1)
    sizes = triton_sizes.sizes_of(operands, config, kernel.tile)

    @jax.jit
    def run(operands):
        projected = triton_fwd._project(
            operands, *triton_fwd._limits(operands, sizes), config, kernel
        )
        binned = triton_fwd._bin(projected, sizes)
        emission = triton_fwd._emit(projected, binned, sizes, kernel, keep=True)
        return projected, emission.first_slots, binned.needed

    projected, *found = jax.tree.map(np.asarray, run(operands))
    counts, tallies = projected.counts, projected.tallies[..., 0]
    assert np.any(counts) == (kind != "none visible")
    for image, (first_slots, need) in enumerate(zip(*found, strict=True)):
        order = np.argsort(projected.depths[image], kind="stable")
        expected = np.empty(SPLATS, int)
        expected[order] = np.cumsum(counts[image][order]) - counts[image][order]
        used = counts[image] > 0
        assert np.array_equal(first_slots[used], expected[used])
        assert need == counts[image].sum()
        assert tallies[image].sum() == used.sum() and len(tallies[image]) == SPLATS // 64 + 2
        assert tallies[image].max() < 64 * 4, "as uneven as six random limits are, no more"


@pytest.mark.parametrize("shared", [False, True])
def test_limits_are_a_sample_of_each_image_in_order(shared):
    """Of two scenes, or one that both share, and two cameras each."""
    from kernels.rasterize import triton_fwd, triton_sizes

    count, rng = 40_001, np.random.default_rng(2)
    operands = _operands(rng.uniform(2.0, 3.0, count), (16, 24), 0.01, 2)
    views = cases.turned_views(range(4), 9.0).reshape(2, 2, 4, 4)
    means = rng.normal(size=(1 if shared else 2, count, 3)) * [[[3.0, 2.0, 1.0]]]
    operands = operands._replace(
        means=jnp.asarray(means, jnp.float32),
        viewmats=jnp.asarray(views, jnp.float32),
        intrinsics=jnp.tile(operands.intrinsics, (2, 1, 1, 1)),
    )
    config = RasterizeConfig(ts.COUNT, 16, 24, 9999)
    sizes = triton_sizes.sizes_of(operands, config, (8, 8))
    assert sizes.samples == 626, "more than are compared at a time"
    limits = np.asarray(jax.jit(lambda operands: triton_fwd._limits(operands, sizes)[0])(operands))
    for image, rows in enumerate(limits):
        splat, depths = rows[:, 0], np.ascontiguousarray(rows[:, 1]).view(np.float32)
        assert np.all((np.diff(depths) > 0) | ((np.diff(depths) == 0) & (np.diff(splat) > 0)))
        # One of each stretch, the last one too; its depth is the projection's, to the bit.
        starts = np.arange(627) * (count // 626) + np.minimum(np.arange(627), count % 626)
        assert np.array_equal(np.searchsorted(starts, np.sort(splat), "right"), np.arange(1, 627))
        x, y, z = np.asarray(operands.means)[0 if shared else image // 2][splat].T
        row = np.asarray(operands.viewmats)[image // 2, image % 2, 2]
        expected = ((row[0] * x + row[1] * y) + row[2] * z) + row[3]
        assert np.array_equal(depths, np.where(expected > 0, expected, np.inf))


@pytest.mark.parametrize("value", [0, 1, 2**16 - 1, 2**31 - 1, 2**40])
def test_the_count_of_intersections_saturates(value):
    from kernels import triton_call
    from kernels.rasterize import triton_depth

    bins = 3000  # more than are added up at a time
    tallies = np.tile(np.array([[2, value]], np.int64), (2 * bins, 1)).view(np.int32)
    ends = jax.ShapeDtypeStruct((2, bins + 1), jnp.int32)
    starts, before, needed = triton_call.triton_call(
        triton_depth.tally_kernel,
        jnp.asarray(tallies.reshape(2, bins, 4)),
        outputs=(ends, ends, jax.ShapeDtypeStruct((2,), jnp.int32)),
        grid=(-(-(bins + 1) // 256), 2),
        scalars={"bins": bins},
        constants={"BLOCK": 256, "STEP": 1024},
    )
    assert np.array_equal(starts[1], 2 * np.arange(bins + 1))
    expected = [min(bin_id * value, 2**31 - 1) for bin_id in range(bins + 1)]
    assert before[1].tolist() == expected and needed.tolist() == [expected[-1]] * 2


@pytest.mark.parametrize("scale", [0.003, 0.1, 2.0])
def test_tiles_are_those_that_the_ellipse_touches(scale):
    """None that blending would need is missing, and none is there for nothing."""
    from kernels.rasterize import triton_fwd

    size, columns = (60, 76), 10
    operands = _operands(np.linspace(2.0, 3.0, 60), size, scale, 1)
    config = RasterizeConfig(ts.COUNT, *size, 6000)
    forward = jax.jit(lambda operands: triton_fwd.forward(operands, config, keep=True)[1])
    residuals = forward(operands)
    records, keys, first, emitted = (
        np.asarray(getattr(residuals, name))[0, 0].astype(np.float64 if name == "records" else int)
        for name in ("records", "keys", "first_slots", "emitted")
    )
    tile = np.arange(columns * -(-size[0] // 8))
    # Centres of pixels, and points between them: eight steps a pixel.
    inner = 0.5 + np.linspace(0.0, 7.0, 57)
    x = (tile % columns * 8)[:, None, None] + inner[None, None, :]
    y = (tile // columns * 8)[:, None, None] + inner[None, :, None]
    found = 0
    for record, begin, count in zip(records, first, emitted, strict=True):
        mean_x, mean_y, a, b, c, opacity = record[:6]
        dx, dy = x - mean_x, y - mean_y
        excess = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy - np.log(255.0 * opacity)
        inside = (x < size[1]) & (y < size[0])
        touched = np.min(np.where(inside, excess, np.inf)[:, ::8, ::8], axis=(1, 2)) <= 0
        tiles = keys[begin : begin + count]
        assert len(set(tiles)) == count
        assert set(tile[touched]) <= set(tiles), "a tile is missing"
        # A step between two points moves the exponent by less than what is allowed here.
        near = np.min(excess, axis=(1, 2)) <= 0.15
        assert set(tiles) <= set(tile[near]), "a tile is there for nothing"
        found += count
    assert found > 60
