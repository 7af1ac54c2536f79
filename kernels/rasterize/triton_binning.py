"""Triton kernels around the sort by tile: what is sorted, and the lists.

Binning turns splats into one array of (tile, splat) pairs, the slots, nearest first; XLA sorts it
by tile.
"""

import triton
import triton.language as tl

from kernels.rasterize import triton_depth, triton_ellipse, triton_splat

RECORD = triton_splat.RECORD
ellipse_terms = triton_ellipse.ellipse_terms
find_first_slots = triton_depth.first_slots
row_span = triton_ellipse.row_span


@triton.jit
def _load_ellipse(records, boxes, splat, live):
    """What `row_span` needs of splats, or of one, their first row of tiles and number of rows."""
    record = records + splat * RECORD
    mean_x = tl.load(record, mask=live, other=0.0)
    mean_y = tl.load(record + 1, mask=live, other=0.0)
    a = tl.load(record + 2, mask=live, other=1.0)
    b = tl.load(record + 3, mask=live, other=0.0)
    c = tl.load(record + 4, mask=live, other=1.0)
    opacity = tl.load(record + 5, mask=live, other=1.0)
    det = tl.load(record + 7, mask=live, other=1.0)
    vertical = tl.load(boxes + splat * 2, mask=live, other=0)
    horizontal = tl.load(boxes + splat * 2 + 1, mask=live, other=0)
    left, right = (horizontal & 0xFFFF).to(tl.float32), (horizontal >> 16).to(tl.float32)
    level_a, inverse_a, slope, inverse_det, half_height, height_of_right = ellipse_terms(
        a, b, c, opacity, det
    )
    return (
        mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
        left, right, vertical & 0xFFFF, vertical >> 16,
    )  # fmt: skip


@triton.jit
def _emit_rows(keys, slot_splats, key, columns, first, end, splat):
    """Writes rows of tiles, one a thread: their keys go up from `key`, their slots from `first`."""
    most_columns = tl.max(columns)
    column = 0
    while column < most_columns:
        slot = first + column
        kept = (column < columns) & (slot < end)
        tl.store(keys + slot, (key + column).to(keys.dtype.element_ty), mask=kept)
        tl.store(slot_splats + slot, splat, mask=kept)
        column += 1


@triton.jit
def _emit_splat(
    keys, slot_splats, records, boxes, splat, slot, end, first_key, tiles_x,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All threads of a program emit one splat from `slot` on; the slot after its last."""
    (
        mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
        left, right, top, rows,
    ) = _load_ellipse(records, boxes, splat, True)  # fmt: skip
    row = tl.arange(0, BLOCK)
    begin = 0
    while begin < rows:
        tile_y = top + begin + row
        tile_x, columns = row_span(
            mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
            left, right, tile_y.to(tl.float32), TILE_W, TILE_H,
        )  # fmt: skip
        columns = tl.where(begin + row < rows, columns, 0)
        key = first_key + tile_y * tiles_x + tile_x
        first = slot + tl.cumsum(columns, axis=0) - columns
        _emit_rows(keys, slot_splats, key, columns, first, end, splat + 0 * row)
        slot += tl.sum(columns)
        begin += BLOCK
    return slot


@triton.jit
def emit_kernel(
    binned, starts, before, needed, records, boxes, _counts,
    keys, slots, slot_splats, first_slots, emitted, ranges,
    total, samples, capacity, tiles_x, tiles,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, FILL: tl.constexpr, LARGE: tl.constexpr,
    NUMBER: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of binned splats, images): writes each splat's tiles into its slots.

    A key is a tile, those of an image after all of the images before. Slots behind the last one
    needed get the image's last tile, whose list ends before them. Splats and slots are numbered
    within their image, so that nothing here refers to another. Slots go from near to far, so that
    what does not fit into the capacity is what is farthest. `emitted` begins as the counts: just
    splats without tiles are not met here. Also empties the ranges, for `range_kernel`. NUMBER
    writes the slots' own numbers.
    """
    image = tl.program_id(1)
    first_key = image * tiles
    keys += image * capacity
    slots += image * capacity
    slot_splats += image * capacity
    records += image * total * RECORD
    boxes += image * total * 2

    # The program's share of all slots: their numbers, and the last tile where nothing is emitted.
    own = tl.program_id(0) * FILL + tl.arange(0, FILL)
    if NUMBER:
        tl.store(slots + own, own, mask=own < capacity)
    last_key = first_key + tiles - 1
    unused = (own >= tl.load(needed + image)) & (own < capacity)
    tl.store(keys + own, (own * 0 + last_key).to(keys.dtype.element_ty), mask=unused)
    tl.store(ranges + first_key * 2 + own, own * 0, mask=own < tiles * 2)

    splat, count, first = find_first_slots(
        binned, starts, before, image, total, samples, capacity, BLOCK, STEP
    )
    end = tl.minimum(first + count, capacity)
    live = first < end
    (
        mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
        left, right, top, rows,
    ) = _load_ellipse(records, boxes, splat, live)  # fmt: skip
    # All threads take care of splats of many tiles, one after another, where that is sooner done
    # than each by its own thread, all at once. In steps of one tile, by counts of instructions.
    is_large = live & (count > LARGE)
    rounds = (rows + BLOCK - 1) // BLOCK
    together = tl.where(is_large, 20 + rounds * (11 + (right - left).to(tl.int32)), 0)
    alone = tl.where(is_large, 12 * rows + count, 0)
    is_large &= tl.sum(together) < tl.max(alone)
    rows = tl.where(is_large, 0, rows)
    lane = tl.arange(0, BLOCK)
    written = first
    most_rows = tl.max(rows)
    row = 0
    while row < most_rows:
        tile_y = top + row
        tile_x, columns = row_span(
            mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
            left, right, tile_y.to(tl.float32), TILE_W, TILE_H,
        )  # fmt: skip
        columns = tl.where(row < rows, columns, 0)
        key = first_key + tile_y * tiles_x + tile_x
        _emit_rows(keys, slot_splats, key, columns, written, end, splat)
        written += columns
        row += 1

    chosen = tl.max(tl.where(is_large, lane, -1))
    while chosen >= 0:
        is_chosen = lane == chosen
        all_written = _emit_splat(
            keys, slot_splats, records, boxes, tl.sum(tl.where(is_chosen, splat, 0)),
            tl.sum(tl.where(is_chosen, first, 0)), tl.sum(tl.where(is_chosen, end, 0)),
            first_key, tiles_x, TILE_W, TILE_H, BLOCK,
        )  # fmt: skip
        written = tl.where(is_chosen, all_written, written)
        chosen = tl.max(tl.where(is_large & (lane < chosen), lane, -1))

    written = tl.minimum(written, end)
    tl.store(first_slots + image * total + splat, first, mask=count > 0)
    tl.store(emitted + image * total + splat, written - first, mask=count > 0)
    # The count decided with the same function, so there is nothing left; if ever there were, those
    # slots must not hold garbage: a splat that lacks tiles would be drawn in the last one instead.
    left_over = tl.max(end - written)
    while left_over > 0:
        slot = tl.where(written < end, written, 0)
        junk = tl.zeros([BLOCK], tl.int32) + last_key
        tl.store(keys + slot, junk.to(keys.dtype.element_ty), mask=written < end)
        tl.store(slot_splats + slot, splat, mask=written < end)
        written += 1
        left_over -= 1


@triton.jit
def range_kernel(
    keys, slots, slot_splats, needed, _ranges, ranges, splats, total, capacity, tiles,
    BLOCK: tl.constexpr, LOOK_UP: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of sorted entries): first entry of each tile and the one after its last.

    Entries are numbered within the image; those of slots that nothing needed are in no list. Ranges
    begin as zeros. LOOK_UP also looks up the splats, where the slots were sorted. An element a
    thread: more would have to change hands, as numbers of two bytes meet such of four.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    key = tl.load(keys + index, mask=live, other=0).to(tl.int32)
    before = tl.load(keys + index - 1, mask=live & (index > 0), other=0).to(tl.int32)
    after = tl.load(keys + index + 1, mask=index + 1 < total, other=0).to(tl.int32)
    image = key // tiles
    start = image * capacity
    entry = index - start
    end = tl.minimum(tl.load(needed + image), capacity)
    live &= entry < end
    tl.store(ranges + key * 2, entry, mask=live & ((entry == 0) | (key != before)))
    is_last = (entry + 1 == end) | (key != after)
    tl.store(ranges + key * 2 + 1, entry + 1, mask=live & is_last)
    if LOOK_UP:
        slot = tl.load(slots + index, mask=live, other=0)
        splat = tl.load(slot_splats + start + slot, mask=live, other=0)
        tl.store(splats + index, splat, mask=live)
