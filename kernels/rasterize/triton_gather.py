"""Triton kernels that sum the backward pass's rows of gradients, one a slot, splat by splat.

A few threads take one splat; splats of many tiles follow one after another, each by all threads of
the program, if there are few: otherwise the one would keep all others waiting.
"""

import triton
import triton.language as tl

from kernels.rasterize import triton_splat

RECORD = triton_splat.RECORD


@triton.jit
def _taken_together(count, LARGE: tl.constexpr):
    """Splats of many slots, if all threads for one after another are sooner done than few for each.

    In steps of four slots by a few threads, times four; by counts of instructions.
    """
    is_large = count > LARGE
    together = tl.sum(tl.where(is_large, 8 + count // 64, 0))
    return is_large & (together < tl.max(tl.where(is_large, count, 0)))


@triton.jit
def _slot_moment(slot_moments, slot, live, index: tl.constexpr):
    return tl.load(slot_moments + slot * 8 + index, mask=live, other=0.0)


@triton.jit
def _sum_moments(
    zero, keys, slot_moments, slot_features, first, count, longest, step, stride, mean_x, mean_y,
    first_key, tiles_x, columns, TILE_W: tl.constexpr, TILE_H: tl.constexpr,
):  # fmt: skip
    """Moments of slots, moved from their tiles' centres to their splats' means, and of the depth.

    Partial sums, in arrays like `zero`, over the slots `step`, `step + stride`, ... of each splat.
    """
    s_0, s_x, s_y, s_xx, s_xy, s_yy, s_z = zero, zero, zero, zero, zero, zero, zero
    begin = 0
    while begin < longest:
        there = begin + step < count
        slot = first + begin + step
        tile = tl.load(keys + slot, mask=there, other=0).to(tl.int32) - first_key
        tile_y = tile // tiles_x
        dx = mean_x - (tile % tiles_x * TILE_W + 0.5 * TILE_W)
        dy = mean_y - (tile_y * TILE_H + 0.5 * TILE_H)
        m0 = _slot_moment(slot_moments, slot, there, 0)
        mx = _slot_moment(slot_moments, slot, there, 1)
        my = _slot_moment(slot_moments, slot, there, 2)
        s_0 += m0
        s_x += dx * m0 - mx
        s_y += dy * m0 - my
        s_xx += dx * (dx * m0 - 2.0 * mx) + _slot_moment(slot_moments, slot, there, 3)
        s_xy += dx * (dy * m0 - my) - dy * mx + _slot_moment(slot_moments, slot, there, 4)
        s_yy += dy * (dy * m0 - 2.0 * my) + _slot_moment(slot_moments, slot, there, 5)
        s_z += tl.load(slot_features + slot * columns + columns - 1, mask=there, other=0.0)
        begin += stride
    return s_0, s_x, s_y, s_xx, s_xy, s_yy, s_z


@triton.jit
def _store_record_grads(
    record_grads, records, splat, live, used, m_0, m_x, m_y, m_xx, m_xy, m_yy, depth
):
    """Gradients of the records of splats, or of one, from its moments about its mean."""
    record = records + splat * RECORD
    a = tl.load(record + 2, mask=used, other=1.0)
    b = tl.load(record + 3, mask=used, other=0.0)
    c = tl.load(record + 4, mask=used, other=1.0)
    opacity = tl.load(record + 5, mask=used, other=1.0)
    out = record_grads + splat * RECORD
    tl.store(out, a * m_x + b * m_y, mask=live)
    tl.store(out + 1, b * m_x + c * m_y, mask=live)
    tl.store(out + 2, 0.5 * m_xx, mask=live)
    tl.store(out + 3, m_xy, mask=live)
    tl.store(out + 4, 0.5 * m_yy, mask=live)
    # alpha = o exp(-sigma): where it moves with sigma it moves with log o, with the other sign.
    tl.store(out + 5, -m_0 / opacity, mask=live)
    tl.store(out + 6, depth, mask=live)
    tl.store(out + 7, 0.0, mask=live)


@triton.jit
def _gather_record(
    first_slots, emitted, keys, records, slot_moments, slot_features, record_grads,
    splat, first_slot, first_key, tiles_x, columns,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """All threads of a program gather for one splat, COUNT slots at a time."""
    count = tl.load(emitted + splat)
    mean_x, mean_y = tl.load(records + splat * RECORD), tl.load(records + splat * RECORD + 1)
    m_0, m_x, m_y, m_xx, m_xy, m_yy, depth = _sum_moments(
        tl.zeros([COUNT], tl.float32), keys, slot_moments, slot_features,
        tl.load(first_slots + splat) + first_slot, count, count, tl.arange(0, COUNT), COUNT,
        mean_x, mean_y, first_key, tiles_x, columns, TILE_W, TILE_H,
    )  # fmt: skip
    _store_record_grads(
        record_grads, records, splat, True, True, tl.sum(m_0), tl.sum(m_x), tl.sum(m_y),
        tl.sum(m_xx), tl.sum(m_xy), tl.sum(m_yy), tl.sum(depth),
    )  # fmt: skip


@triton.jit
def gather_records_kernel(
    first_slots, emitted, keys, records, slot_moments, slot_features, record_grads,
    total, capacity, tiles_x, tiles, columns,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, images): sums moments to gradients of records, in one fixed order.

    `columns` is the width of slot_features, whose last column belongs to the depth.
    """
    image = tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    index = tl.program_id(0) * BLOCK + lane
    live = index < total
    splat = image * total + index
    # Any key tells the image's number in the forward pass, which may be another one.
    first_key = tl.load(keys + image * capacity).to(tl.int32) // tiles * tiles
    first = tl.load(first_slots + splat, mask=live, other=0) + image * capacity
    count = tl.load(emitted + splat, mask=live, other=0)
    is_large = _taken_together(count, LARGE)
    count = tl.where(is_large, 0, count)
    used = count > 0
    mean_x = tl.load(records + splat * RECORD, mask=used, other=0.0)
    mean_y = tl.load(records + splat * RECORD + 1, mask=used, other=0.0)
    m_0, m_x, m_y, m_xx, m_xy, m_yy, depth = _sum_moments(
        tl.zeros([BLOCK, STEP], tl.float32), keys, slot_moments, slot_features,
        first[:, None], count[:, None], tl.max(count), tl.arange(0, STEP)[None, :], STEP,
        mean_x[:, None], mean_y[:, None], first_key, tiles_x, columns, TILE_W, TILE_H,
    )  # fmt: skip
    _store_record_grads(
        record_grads, records, splat, live & (is_large == 0), used,
        tl.sum(m_0, axis=1), tl.sum(m_x, axis=1), tl.sum(m_y, axis=1), tl.sum(m_xx, axis=1),
        tl.sum(m_xy, axis=1), tl.sum(m_yy, axis=1), tl.sum(depth, axis=1),
    )  # fmt: skip
    chosen = tl.max(tl.where(is_large, lane, -1))
    while chosen >= 0:
        _gather_record(
            first_slots, emitted, keys, records, slot_moments, slot_features, record_grads,
            image * total + tl.program_id(0) * BLOCK + chosen, image * capacity, first_key,
            tiles_x, columns, TILE_W, TILE_H, BLOCK * STEP,
        )  # fmt: skip
        chosen = tl.max(tl.where(is_large & (lane < chosen), lane, -1))


@triton.jit
def _sum_features(
    sums, slot_features, first, count, longest, step, stride, channel,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Adds to (BLOCK, STEP, BLOCK_D) partial sums, as in `_sum_moments`."""
    begin = 0
    while begin < longest:
        row = (first + begin + step)[:, :, None] * (CHANNELS + 1)
        there = (begin + step < count)[:, :, None] & (channel < CHANNELS)
        sums += tl.load(slot_features + row + channel, mask=there, other=0.0)
        begin += stride
    return sums


@triton.jit
def _gather_feature(
    first_slots, emitted, slot_features, feature_grads, splat, scene, total, capacity, cameras,
    channel, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """All threads of a program gather for one splat, COUNT slots at a time."""
    sums = tl.zeros([COUNT, 1, BLOCK_D], tl.float32)
    camera = 0
    while camera < cameras:
        image = scene * cameras + camera
        count = tl.load(emitted + image * total + splat)
        first = tl.load(first_slots + image * total + splat, mask=count > 0, other=0)
        sums = _sum_features(
            sums, slot_features, first + image * capacity, count, count,
            tl.arange(0, COUNT)[:, None], COUNT, channel[None, None, :], CHANNELS,
        )  # fmt: skip
        camera += 1
    out = feature_grads + (scene * total + splat) * CHANNELS + channel
    tl.store(out, tl.sum(tl.sum(sums, axis=1), axis=0), mask=channel < CHANNELS)


@triton.jit
def gather_features_kernel(
    first_slots, emitted, slot_features, feature_grads, total, capacity, cameras,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, scenes, blocks of channels): sums slots over tiles and cameras."""
    scene = tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    index = tl.program_id(0) * BLOCK + lane
    live = index < total
    channel = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    most = tl.zeros([BLOCK], tl.int32)
    camera = 0
    while camera < cameras:
        splat = (scene * cameras + camera) * total + index
        most = tl.maximum(most, tl.load(emitted + splat, mask=live, other=0))
        camera += 1
    is_large = _taken_together(most, LARGE)
    small = live & (is_large == 0)
    sums = tl.zeros([BLOCK, STEP, BLOCK_D], tl.float32)
    camera = 0
    while camera < cameras:
        image = scene * cameras + camera
        splat = image * total + index
        first = tl.load(first_slots + splat, mask=small, other=0) + image * capacity
        count = tl.load(emitted + splat, mask=small, other=0)
        sums = _sum_features(
            sums, slot_features, first[:, None], count[:, None], tl.max(count),
            tl.arange(0, STEP)[None, :], STEP, channel[None, None, :], CHANNELS,
        )  # fmt: skip
        camera += 1
    out = feature_grads + (scene * total + index)[:, None] * CHANNELS + channel[None, :]
    tl.store(out, tl.sum(sums, axis=1), mask=small[:, None] & (channel < CHANNELS)[None, :])
    chosen = tl.max(tl.where(is_large, lane, -1))
    while chosen >= 0:
        _gather_feature(
            first_slots, emitted, slot_features, feature_grads,
            tl.program_id(0) * BLOCK + chosen, scene, total, capacity, cameras, channel,
            CHANNELS, BLOCK_D, BLOCK * STEP,
        )  # fmt: skip
        chosen = tl.max(tl.where(is_large & (lane < chosen), lane, -1))
