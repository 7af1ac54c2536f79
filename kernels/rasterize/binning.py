"""Tile lists: which splats touch which tile, in depth order, with static shapes.

Every image gets `capacity` slots. Splats are taken in depth order, nearest first, and each emits
one slot per tile that its ellipse touches, found in closed form (no test per tile, no box waste):
first the tile rows that a splat spans, then for every such row its range of columns. What does not
fit is the farthest, and is counted. A stable sort by tile then yields the lists.

The work is done for the smallest of a few static sizes that holds the actual counts (`lax.switch`),
so a generous capacity costs memory, not time.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import constants, manual_axes
from kernels.rasterize.projection import Projected, splat_extent

# Sizes tried for the emission, as divisors of the capacity.
_TIER_DIVISORS = (3, 1)
_MIN_TIER = 8192
_CUMSUM_BLOCK = 64
_COUNT_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """The image cut into tiles of (tile_height, tile_width) pixels; the last ones may stick out."""

    height: int
    width: int
    tile_height: int
    tile_width: int

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def pixels(self) -> int:
        """Pixels of one tile."""
        return self.tile_height * self.tile_width


class TileLists(NamedTuple):
    """Depth-sorted lists of splats per tile.

    Attributes:
        splats: splat index of every slot, grouped by tile, (I, capacity) int32.
        starts: first slot of each tile and the end of the last, (I, tiles + 1) int32.
        num_intersections: what the images needed, (I,) int32; more than capacity means overflow.
    """

    splats: jax.Array
    starts: jax.Array
    num_intersections: jax.Array


class _Ellipse(NamedTuple):
    """Region in which a splat's alpha can reach MIN_ALPHA: a x^2 + 2 b x y + c y^2 <= level."""

    mean_x: jax.Array
    mean_y: jax.Array
    conic_a: jax.Array
    conic_b: jax.Array
    conic_c: jax.Array
    det: jax.Array  # of the covariance: the conic's own would be less exact
    level: jax.Array


def _half_height(ellipse: _Ellipse) -> jax.Array:
    return jnp.sqrt(ellipse.level * ellipse.conic_a * ellipse.det)


def _swap_axes(ellipse: _Ellipse) -> _Ellipse:
    return _Ellipse(
        ellipse.mean_y,
        ellipse.mean_x,
        ellipse.conic_c,
        ellipse.conic_b,
        ellipse.conic_a,
        ellipse.det,
        ellipse.level,
    )


def _span_in_slab(
    ellipse: _Ellipse, low: jax.Array, high: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """First and last pixel column whose centre the ellipse reaches between the y values low, high.

    The right boundary x(y) of an ellipse is concave with its maximum at a known y; its maximum over
    an interval is therefore at that y clipped to the interval. Likewise on the left.
    """
    a, b, c = ellipse.conic_a, ellipse.conic_b, ellipse.conic_c
    det = 1.0 / ellipse.det
    half_height = _half_height(ellipse)
    low = jnp.clip(low - ellipse.mean_y, -half_height, half_height)
    high = jnp.clip(high - ellipse.mean_y, -half_height, half_height)
    y_of_max = -b * jnp.sqrt(ellipse.level * ellipse.det / c)
    inverse_a = 1.0 / a

    def boundary(y: jax.Array, sign: float) -> jax.Array:
        root = jnp.sqrt(jnp.maximum(ellipse.level * a - det * y * y, 0.0))
        return ellipse.mean_x + (-b * y + sign * root) * inverse_a

    right = boundary(jnp.clip(y_of_max, low, high), 1.0)
    left = boundary(jnp.clip(-y_of_max, low, high), -1.0)
    first = jnp.clip(jnp.ceil(left - 0.5), 0, size - 1).astype(jnp.int32)
    last = jnp.clip(jnp.floor(right - 0.5), 0, size - 1).astype(jnp.int32)
    return first, last


def _ellipse(projected: Projected) -> _Ellipse:
    extent = splat_extent(projected.opacity)
    return _Ellipse(
        projected.mean_x,
        projected.mean_y,
        projected.conic_a,
        projected.conic_b,
        projected.conic_c,
        projected.det,
        extent * extent + constants.TILE_TEST_SLACK,
    )


def _row_span(ellipse: _Ellipse, grid: TileGrid) -> tuple[jax.Array, jax.Array]:
    """First tile row and number of tile rows of splats; a number below 1 means none."""
    first, last = _span_in_slab(_swap_axes(ellipse), 0.5, grid.width - 0.5, grid.height)
    reach = _half_height(ellipse)
    touches = (ellipse.mean_y + reach >= 0.5) & (ellipse.mean_y - reach <= grid.height - 0.5)
    touches &= first <= last
    first_row = first // grid.tile_height
    return first_row, jnp.where(touches, last // grid.tile_height - first_row + 1, 0)


def _column_span(ellipse: _Ellipse, row: jax.Array, grid: TileGrid) -> tuple[jax.Array, jax.Array]:
    """First tile column and number of columns (at least 1) of splats in a tile row.

    The one place where a splat meets a tile: counting and writing both come here.
    """
    top = row * grid.tile_height + 0.5
    bottom = jnp.minimum((row + 1) * grid.tile_height, grid.height) - 0.5
    first, last = _span_in_slab(ellipse, top, bottom, grid.width)
    first_column = first // grid.tile_width
    return first_column, jnp.maximum(last // grid.tile_width - first_column, 0) + 1


def cumulative_sum(values: jax.Array) -> jax.Array:
    """Inclusive sum of int32 along the last axis.

    XLA's own is slow on the CPU, to compile and to run; this one is a blockwise product with a
    triangle of ones. Block sums above 2^24 would be inexact in float32, so each level adds up the
    low and the high half of its numbers apart.
    """
    size, width = values.shape[-1], _CUMSUM_BLOCK
    blocks = -(-size // width)
    lead = values.shape[:-1]
    padding = [(0, 0)] * len(lead) + [(0, blocks * width - size)]
    blocked = jnp.pad(values, padding).reshape(*lead, blocks, width)
    triangle = jnp.triu(jnp.ones((width, width), jnp.float32))
    halves = (blocked & 0xFFFF, blocked >> 16)
    low, high = (
        jnp.matmul(half.astype(jnp.float32), triangle, precision="highest").astype(jnp.int32)
        for half in halves
    )
    inner = low + (high << 16)
    if blocks > 1:
        totals = cumulative_sum(inner[..., -1])
        inner = inner + (totals - inner[..., -1])[..., None]
    return inner.reshape(*lead, -1)[..., :size]


def total(counts: jax.Array) -> jax.Array:
    """Sum of counts (I, n) int32 along the last axis; more than int32 holds stays at 2^31 - 1."""
    most = jnp.iinfo(jnp.int32).max
    return jax.lax.reduce(counts, jnp.int32(0), lambda a, b: a + jnp.minimum(b, most - a), (1,))


def _countable(counts: jax.Array) -> jax.Array:
    """Counts (I, n) below 2^20, zero from where the largest capacity is exceeded.

    Their sums stay inside int32.
    """
    blocks = -(-counts.shape[-1] // _COUNT_BLOCK)
    padding = blocks * _COUNT_BLOCK - counts.shape[-1]
    blocked = jnp.pad(counts, [(0, 0), (0, padding)]).reshape(-1, blocks, _COUNT_BLOCK)
    sums = jnp.sum(blocked, axis=-1).astype(jnp.float32)
    before = jnp.cumsum(sums, axis=-1) - sums
    kept = jnp.where((before <= 1.01 * constants.MAX_CAPACITY)[..., None], blocked, 0)
    return kept.reshape(counts.shape[0], -1)[:, : counts.shape[-1]]


def _take(values: jax.Array, indices: jax.Array) -> jax.Array:
    """values (I, n) at indices (I, m)."""
    return jnp.take_along_axis(values, indices, axis=-1, mode="promise_in_bounds")


def _sources(counts: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """For `size` output slots filled by sources that repeat `counts` times: source and repetition.

    Only the last sources may have a count of 0. Slots beyond the total name the last source.

    Args:
        counts: (I, n) int32.
        size: number of output slots.

    Returns:
        source (I, size) and index within the source (I, size), int32.
    """
    images, sources = counts.shape
    ends = cumulative_sum(counts)
    starts = ends - counts
    position = jnp.where(counts > 0, starts, size)
    marks = jnp.zeros((images, size), jnp.int32)
    marks = marks.at[jnp.arange(images)[:, None], position].add(1, mode="drop")
    source = jnp.clip(cumulative_sum(marks) - 1, 0, sources - 1)
    return source, jnp.arange(size, dtype=jnp.int32)[None] - _take(starts, source)


def stable_argsort(keys: jax.Array, key_bits: int) -> jax.Array:
    """Indices that sort unsigned keys (I, n) stably.

    Sorting a single 32-bit operand is eight times as fast as sorting pairs on the CPU (and takes
    the radix path on GPUs), so as many key bits as fit travel beside the index, in passes.
    """
    size = keys.shape[-1]
    index_bits = max(1, (size - 1).bit_length())
    digit_bits = 32 - index_bits
    mask = jnp.uint32((1 << index_bits) - 1)
    iota = jax.lax.broadcasted_iota(jnp.uint32, keys.shape, keys.ndim - 1)
    order = None
    for shift in range(0, max(key_bits, 1), digit_bits):
        digit = (keys.astype(jnp.uint32) >> shift) & jnp.uint32((1 << digit_bits) - 1)
        if order is not None:
            digit = _take(digit, order)
        packed = jax.lax.sort((digit << index_bits) | iota, dimension=-1, is_stable=True)
        step = (packed & mask).astype(jnp.int32)
        order = step if order is None else _take(order, step)
    return order


def depth_order(depth: jax.Array, visible: jax.Array) -> jax.Array:
    """Indices (I, N) that sort by float32 depth, ties by index, invisible splats last."""
    # Visible depths are positive, and positive floats sort like their bits.
    bits = jax.lax.bitcast_convert_type(depth.astype(jnp.float32), jnp.uint32)
    return stable_argsort(jnp.where(visible, bits, jnp.uint32(0x7F800000)), 31)


def _tiers(capacity: int) -> list[int]:
    sizes = {max(-(-capacity // divisor), min(_MIN_TIER, capacity)) for divisor in _TIER_DIVISORS}
    return sorted(sizes)


def _by_tier(needed: jax.Array, capacity: int, function, *operands):
    """Runs function(size, *operands) for the smallest static size that holds `needed`."""
    tiers = _tiers(capacity)
    index = sum((needed > size).astype(jnp.int32) for size in tiers[:-1])
    branches = [lambda *args, size=size: function(size, *args) for size in tiers]
    return jax.lax.switch(index, branches, *operands) if len(tiers) > 1 else branches[0](*operands)


def _count_exactly(ellipse: _Ellipse, first_row: jax.Array, rows: jax.Array, grid: TileGrid):
    """Intersections per image, one tile row of all splats at a time; only needed on overflow."""

    def body(carry):
        step, counts = carry
        _, columns = _column_span(ellipse, first_row + step, grid)
        row = total(jnp.where(step < rows, columns, 0))
        return step + 1, total(jnp.stack([counts, row], axis=-1))

    zero = manual_axes.vary_like(jnp.zeros(rows.shape[:1], jnp.int32), rows)
    _, counts = jax.lax.while_loop(lambda carry: carry[0] < jnp.max(rows), body, (0, zero))
    return counts


def build(projected: Projected, visible: jax.Array, grid: TileGrid, capacity: int) -> TileLists:
    """Builds the tile lists of I images.

    Args:
        projected: screen-space splats, fields (I, N).
        visible: (I, N) bool.
        grid: the tiles.
        capacity: slots per image.

    Returns:
        TileLists.
    """
    ellipse = _ellipse(projected)
    first_row, rows = _row_span(ellipse, grid)
    rows = jnp.where(visible, rows, 0)
    order = depth_order(projected.depth, rows > 0)
    ellipse = _Ellipse(*(_take(field, order) for field in ellipse))
    first_row, rows = _take(first_row, order), _take(rows, order)
    num_rows = total(rows)
    kept_rows = _countable(rows)

    def emit_rows(size: int):
        rank, step = _sources(kept_rows, size)
        row = _take(first_row, rank) + step
        in_use = jnp.arange(size)[None] < num_rows[:, None]
        first_column, columns = _column_span(
            _Ellipse(*(_take(field, rank) for field in ellipse)), row, grid
        )
        columns = jnp.where(in_use, columns, 0)
        pad = [(0, 0), (0, capacity - size)]
        return tuple(
            jnp.pad(field, pad)
            for field in (columns, row * grid.columns + first_column, _take(order, rank))
        )

    columns, first_tile, splat = _by_tier(jnp.max(num_rows), capacity, emit_rows)
    kept = total(columns)
    columns = _countable(columns)
    all_rows_fit = jnp.max(num_rows) <= capacity
    num_intersections = jax.lax.cond(
        all_rows_fit, lambda: kept, lambda: _count_exactly(ellipse, first_row, rows, grid)
    )

    def emit_tiles(size: int):
        source, step = _sources(columns[:, :size], size)
        in_use = jnp.arange(size)[None] < kept[:, None]
        # Slots not in use sort behind the last tile's: the sort is stable and they come last.
        tile = jnp.where(in_use, _take(first_tile, source) + step, grid.count - 1)
        by_tile = stable_argsort(tile, (grid.count - 1).bit_length())
        sorted_tile = _take(tile, by_tile)
        splats = _take(_take(splat, source), by_tile)
        tiles = jnp.arange(grid.count, dtype=jnp.int32)
        starts = jax.vmap(lambda row: jnp.searchsorted(row, tiles, method="scan"))(sorted_tile)
        ends = jnp.minimum(kept, size)[:, None]
        starts = jnp.concatenate([jnp.minimum(starts.astype(jnp.int32), ends), ends], axis=-1)
        return jnp.pad(splats, [(0, 0), (0, capacity - size)]), starts

    splats, starts = _by_tier(jnp.minimum(jnp.max(kept), capacity), capacity, emit_tiles)
    return TileLists(splats, starts, num_intersections)
