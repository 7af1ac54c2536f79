"""Triton kernels around the sort by tile: what is sorted, the lists, and sums over them.

Binning turns splats into one array of (tile, splat) pairs, the slots, nearest first; XLA sorts it
by tile. In the backward pass, rows of gradients per slot are summed splat by splat.
"""

import triton
import triton.language as tl

from kernels.rasterize import triton_depth, triton_ellipse, triton_splat

RECORD = triton_splat.RECORD
ellipse_terms = triton_ellipse.ellipse_terms
find_first_slots = triton_depth.first_slots
row_span = triton_ellipse.row_span


@triton.jit
def emit_kernel(
    binned, starts, before, needed, records, boxes, _counts,
    keys, slots, slot_splats, first_slots, emitted, ranges,
    total, samples, capacity, tiles_x, keys_per_image,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of binned splats, images): writes each splat's tiles into its slots.

    A key is 1 + tile, in the image's own range of keys; slots without a tile get the first of the
    range, which belongs to none. Splats and slots are numbered within their image, so that nothing
    here refers to another. Slots go from near to far, so that what does not fit into the capacity
    is what is farthest. `emitted` begins as the counts: splats without tiles are not met here. Also
    empties the ranges, for `range_kernel`.
    """
    image = tl.program_id(1)
    first_key = image * keys_per_image
    keys += image * capacity
    slots += image * capacity
    slot_splats += image * capacity

    # The program's share of all slots: their numbers, and no tile where nothing is emitted.
    own = tl.program_id(0) * FILL + tl.arange(0, FILL)
    tl.store(slots + own, own, mask=own < capacity)
    no_tile = tl.zeros([FILL], tl.int32) + first_key
    unused = (own >= tl.load(needed + image)) & (own < capacity)
    tl.store(keys + own, no_tile.to(keys.dtype.element_ty), mask=unused)
    tl.store(ranges + first_key * 2 + own, own * 0, mask=own < keys_per_image * 2)

    owner, count, begin_slot = find_first_slots(
        binned, starts, before, image, total, samples, capacity, BLOCK, STEP
    )
    splat = image * total + owner
    end = tl.minimum(begin_slot + count, capacity)
    live = begin_slot < end
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
    top, rows = vertical & 0xFFFF, vertical >> 16
    left, right = (horizontal & 0xFFFF).to(tl.float32), (horizontal >> 16).to(tl.float32)
    level_a, inverse_a, slope, inverse_det, half_height, height_of_right = ellipse_terms(
        a, b, c, opacity, det
    )
    written = begin_slot
    most_rows = tl.max(rows)
    row = 0
    while row < most_rows:
        tile_y = top + row
        tile_x, columns = row_span(
            mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
            left, right, tile_y.to(tl.float32), TILE_W, TILE_H,
        )  # fmt: skip
        columns = tl.where(row < rows, columns, 0)
        key = first_key + 1 + tile_y * tiles_x + tile_x
        most_columns = tl.max(columns)
        column = 0
        while column < most_columns:
            slot = written + column
            kept = (column < columns) & (slot < end)
            tl.store(keys + slot, (key + column).to(keys.dtype.element_ty), mask=kept)
            tl.store(slot_splats + slot, owner, mask=kept)
            column += 1
        written += columns
        row += 1
    written = tl.minimum(written, end)
    tl.store(first_slots + splat, begin_slot, mask=count > 0)
    tl.store(emitted + splat, written - begin_slot, mask=count > 0)
    # The count decided with the same function, so there is nothing left; if ever there were, those
    # slots must not hold garbage.
    left_over = tl.max(end - written)
    while left_over > 0:
        slot = tl.where(written < end, written, 0)
        junk = tl.zeros([BLOCK], tl.int32) + first_key
        tl.store(keys + slot, junk.to(keys.dtype.element_ty), mask=written < end)
        written += 1
        left_over -= 1


@triton.jit
def range_kernel(
    keys, slots, slot_splats, _ranges, ranges, splats, total, capacity, keys_per_image,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of sorted entries): first entry of each key and the one after its last.

    Entries are numbered within the image. Ranges begin as zeros. Also looks up the splats. An
    element a thread: more would have to change hands, as numbers of two bytes meet such of four.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    key = tl.load(keys + index, mask=live, other=0).to(tl.int32)
    before = tl.load(keys + index - 1, mask=live & (index > 0), other=0).to(tl.int32)
    image = key // keys_per_image
    start = image * capacity
    entry = index - start
    is_first = live & ((index == 0) | (key != before))
    tl.store(ranges + key * 2, entry, mask=is_first)
    end = tl.where(entry == 0, capacity, entry)  # of the key before, maybe of the image before
    tl.store(ranges + before * 2 + 1, end, mask=is_first & (index > 0))
    tl.store(ranges + key * 2 + 1, entry + 1, mask=index + 1 == total)
    in_tile = live & (key > image * keys_per_image)
    slot = tl.load(slots + index, mask=in_tile, other=0)
    tl.store(splats + index, tl.load(slot_splats + start + slot, mask=in_tile, other=0), mask=live)


@triton.jit
def _slot_moment(slot_moments, slot, live, index: tl.constexpr):
    return tl.load(slot_moments + slot * 8 + index, mask=live, other=0.0)


@triton.jit
def gather_records_kernel(
    first_slots, emitted, keys, records, slot_moments, slot_features, record_grads,
    total, capacity, tiles_x, keys_per_image, columns,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, images): sums moments to gradients of records, in one fixed order.

    Moves each tile's moments to the splat's mean; `columns` is the width of slot_features, whose
    last column belongs to the depth.
    """
    image = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    splat = image * total + index
    first = tl.load(first_slots + splat, mask=live, other=0) + image * capacity
    count = tl.load(emitted + splat, mask=live, other=0)
    used = live & (count > 0)
    record = records + splat * RECORD
    mean_x = tl.load(record, mask=used, other=0.0)[:, None]
    mean_y = tl.load(record + 1, mask=used, other=0.0)[:, None]
    zero = tl.zeros([BLOCK, STEP], tl.float32)
    s_0, s_x, s_y, s_xx, s_xy, s_yy, s_z = zero, zero, zero, zero, zero, zero, zero
    longest = tl.max(count)
    begin = 0
    while begin < longest:
        step = begin + tl.arange(0, STEP)[None, :]
        there = step < count[:, None]
        slot = first[:, None] + step
        tile = tl.load(keys + slot, mask=there, other=1).to(tl.int32) - 1 - image * keys_per_image
        dx = mean_x - ((tile % tiles_x) * TILE_W + 0.5 * TILE_W)
        dy = mean_y - ((tile // tiles_x) * TILE_H + 0.5 * TILE_H)
        m0 = _slot_moment(slot_moments, slot, there, 0)
        mx, my = (
            _slot_moment(slot_moments, slot, there, 1),
            _slot_moment(slot_moments, slot, there, 2),
        )
        s_0 += m0
        s_x += dx * m0 - mx
        s_y += dy * m0 - my
        s_xx += dx * (dx * m0 - 2.0 * mx) + _slot_moment(slot_moments, slot, there, 3)
        s_xy += dx * (dy * m0 - my) - dy * mx + _slot_moment(slot_moments, slot, there, 4)
        s_yy += dy * (dy * m0 - 2.0 * my) + _slot_moment(slot_moments, slot, there, 5)
        s_z += tl.load(slot_features + slot * columns + columns - 1, mask=there, other=0.0)
        begin += STEP
    a = tl.load(record + 2, mask=used, other=1.0)
    b = tl.load(record + 3, mask=used, other=0.0)
    c = tl.load(record + 4, mask=used, other=1.0)
    opacity = tl.load(record + 5, mask=used, other=1.0)
    g_x, g_y = tl.sum(s_x, axis=1), tl.sum(s_y, axis=1)
    out = record_grads + splat * RECORD
    tl.store(out, a * g_x + b * g_y, mask=live)
    tl.store(out + 1, b * g_x + c * g_y, mask=live)
    tl.store(out + 2, 0.5 * tl.sum(s_xx, axis=1), mask=live)
    tl.store(out + 3, tl.sum(s_xy, axis=1), mask=live)
    tl.store(out + 4, 0.5 * tl.sum(s_yy, axis=1), mask=live)
    # alpha = o exp(-sigma): where it moves with sigma it moves with log o, with the other sign.
    tl.store(out + 5, -tl.sum(s_0, axis=1) / opacity, mask=live)
    tl.store(out + 6, tl.sum(s_z, axis=1), mask=live)
    tl.store(out + 7, 0.0, mask=live)


@triton.jit
def gather_features_kernel(
    first_slots, emitted, slot_features, feature_grads, total, capacity, cameras,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, scenes, blocks of channels): sums slots over tiles and cameras."""
    scene = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    channel = (tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D))[None, None, :]
    sums = tl.zeros([BLOCK, STEP, BLOCK_D], tl.float32)
    camera = 0
    while camera < cameras:
        image = scene * cameras + camera
        splat = image * total + index
        first = tl.load(first_slots + splat, mask=live, other=0) + image * capacity
        count = tl.load(emitted + splat, mask=live, other=0)
        longest = tl.max(count)
        begin = 0
        while begin < longest:
            step = begin + tl.arange(0, STEP)[None, :]
            row = (first[:, None] + step)[:, :, None] * (CHANNELS + 1)
            mask = (step < count[:, None])[:, :, None] & (channel < CHANNELS)
            sums += tl.load(slot_features + row + channel, mask=mask, other=0.0)
            begin += STEP
        camera += 1
    channel = (tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D))[None, :]
    out = feature_grads + (scene * total + index)[:, None] * CHANNELS + channel
    tl.store(out, tl.sum(sums, axis=1), mask=live[:, None] & (channel < CHANNELS))
