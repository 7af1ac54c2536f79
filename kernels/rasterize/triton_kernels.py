"""Triton kernels of binning and blending.

Binning turns depth-ordered splats into one list of (tile, splat) pairs; XLA sorts it by tile.
Blending runs one program per tile. Its arrays are (splats of a chunk, pixels of the tile) with the
pixels spread over the threads, so that products and sums along the splats stay inside a thread, and
sums over pixels (the gradients) are matrix products for the tensor cores.

A feature vector is extended by one channel, the camera depth, which blends like any colour.
"""

import triton
import triton.language as tl

from kernels import constants
from kernels.rasterize import triton_projection

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(constants.MIN_TRANSMITTANCE)
RECORD = tl.constexpr(8)
tile_hit = triton_projection.tile_hit


@triton.jit
def block_sum_kernel(order, counts, sums, total, BLOCK: tl.constexpr):
    """Grid (blocks of depth-sorted splats, images): tile intersections of each block."""
    image = tl.program_id(1)
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = position < total
    splat = tl.load(order + image * total + position, mask=live, other=0)
    count = tl.load(counts + splat, mask=live, other=0)
    tl.store(sums + image * tl.num_programs(0) + tl.program_id(0), tl.sum(count))


@triton.jit
def emit_kernel(
    order, counts, records, boxes, sums,
    keys, values, slot_splats, first_slots, emitted,
    total, capacity, tiles_x, tiles_per_image,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
    SUMS: tl.constexpr, DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of depth-sorted splats, images): writes each splat's tiles into its slots.

    A key is 1 + tile, in the image's own range of keys; untouched slots keep key 0 and belong to no
    tile. Splats and slots are numbered within their image, so that nothing here refers to another.
    Splats come nearest first, so that what does not fit into the capacity is what is farthest.
    """
    block = tl.program_id(0)
    image = tl.program_id(1)
    blocks = tl.num_programs(0)
    # 64 bits: a scene can ask for more intersections than 32 bits count.
    start = tl.zeros([SUMS], tl.int64)
    for begin in range(0, block, SUMS):
        index = begin + tl.arange(0, SUMS)
        start += tl.load(sums + image * blocks + index, mask=index < block, other=0).to(tl.int64)
    position = block * BLOCK + tl.arange(0, BLOCK)
    live = position < total
    splat = tl.load(order + image * total + position, mask=live, other=0)
    count = tl.load(counts + splat, mask=live, other=0)
    inclusive = tl.cumsum(count, axis=0).to(tl.int64) + tl.sum(start)
    written = inclusive - count
    begin_slot = tl.minimum(written, capacity).to(tl.int32)
    in_order = live
    end = tl.minimum(inclusive, capacity)
    live &= (count > 0) & (written < capacity)
    record = records + splat * RECORD
    mean_x = tl.load(record, mask=live, other=0.0)
    mean_y = tl.load(record + 1, mask=live, other=0.0)
    a = tl.load(record + 2, mask=live, other=1.0)
    b = tl.load(record + 3, mask=live, other=0.0)
    c = tl.load(record + 4, mask=live, other=1.0)
    opacity = tl.load(record + 5, mask=live, other=1.0)
    corner = tl.load(boxes + splat * 2, mask=live, other=0)
    size = tl.load(boxes + splat * 2 + 1, mask=live, other=0)
    left, top, columns = corner & 0xFFFF, corner >> 16, size & 0xFFFF
    area = columns * (size >> 16)
    largest = tl.max(area)
    first = 0
    while first < largest:
        index = first + tl.arange(0, STEP)[None, :]
        row = index // tl.maximum(columns, 1)[:, None]
        tile_x = left[:, None] + index - row * columns[:, None]
        tile_y = top[:, None] + row
        hit = tile_hit(
            mean_x[:, None], mean_y[:, None], a[:, None], b[:, None], c[:, None], opacity[:, None],
            tile_x, tile_y, TILE_W, TILE_H,
        )  # fmt: skip
        hit &= index < area[:, None]
        ones = hit.to(tl.int32)
        place = written[:, None] + (tl.cumsum(ones, axis=1) - ones)
        kept = hit & (place < end[:, None])
        slot = tl.where(kept, place, 0).to(tl.int32)
        key = image * (tiles_per_image + 1) + 1 + tile_y * tiles_x + tile_x
        target = image * capacity + slot
        tl.store(keys + target, key.to(keys.dtype.element_ty), mask=kept)
        owner = tl.broadcast_to((splat - image * total)[:, None], slot.shape)
        if DETERMINISTIC:
            tl.store(values + target, slot, mask=kept)
            tl.store(slot_splats + target, owner, mask=kept)
        else:
            tl.store(values + target, owner, mask=kept)
        written += tl.sum(ones, axis=1)
        first += STEP
    if DETERMINISTIC:
        used = tl.minimum(written, end).to(tl.int32) - begin_slot
        tl.store(first_slots + splat, begin_slot, mask=in_order)
        tl.store(emitted + splat, tl.where(live, used, 0), mask=in_order)


@triton.jit
def range_kernel(keys, ranges, total, capacity, keys_per_image, BLOCK: tl.constexpr):
    """Grid (blocks of sorted slots): first slot of each key and the one after its last.

    Slots are numbered within the image. Ranges are zeroed before.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    key = tl.load(keys + index, mask=live, other=0).to(tl.int32)
    before = tl.load(keys + index - 1, mask=live & (index > 0), other=0).to(tl.int32)
    after = tl.load(keys + index + 1, mask=index + 1 < total, other=0).to(tl.int32)
    slot = index - (key // keys_per_image) * capacity
    tl.store(ranges + key * 2, slot, mask=live & ((index == 0) | (key != before)))
    tl.store(ranges + key * 2 + 1, slot + 1, mask=live & ((index + 1 == total) | (key != after)))


@triton.jit
def _tile_pixels(tile, tiles_x, width, height, TILE_W: tl.constexpr, TILE_H: tl.constexpr):
    """Pixel columns and rows, whether inside the image, and the tile's centre."""
    local = tl.arange(0, TILE_W * TILE_H)
    corner_x = (tile % tiles_x) * TILE_W
    corner_y = (tile // tiles_x) * TILE_H
    column, row = corner_x + local % TILE_W, corner_y + local // TILE_W
    inside = (column < width) & (row < height)
    return column, row, inside, corner_x + 0.5 * TILE_W, corner_y + 0.5 * TILE_H


@triton.jit
def _load_records(records, splat, live):
    record = records + splat * RECORD
    return (
        tl.load(record, mask=live, other=0.0), tl.load(record + 1, mask=live, other=0.0),
        tl.load(record + 2, mask=live, other=0.0), tl.load(record + 3, mask=live, other=0.0),
        tl.load(record + 4, mask=live, other=0.0), tl.load(record + 5, mask=live, other=0.0),
    )  # fmt: skip


@triton.jit
def _load_features(
    features, records, splat, live, first, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(chunk, BLOCK_D) features from channel `first`; the channel after the last is the depth."""
    channel = first + tl.arange(0, BLOCK_D)[None, :]
    value = tl.load(
        features + splat[:, None] * CHANNELS + channel,
        mask=live[:, None] & (channel < CHANNELS), other=0.0,
    )  # fmt: skip
    depth = tl.load(records + splat * RECORD + 6, mask=live, other=0.0)
    return tl.where(channel == CHANNELS, depth[:, None], value)


@triton.jit
def blend_kernel(
    ranges, splats, records, features,
    image_out, transmittance_out, depth_out, last_out,
    total, capacity, cameras, width, height, tiles_x, features_lead,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr, USE_DOT: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images, blocks of channels): front-to-back blending."""
    PIXELS: tl.constexpr = TILE_W * TILE_H
    tile = tl.program_id(0)
    image = tl.program_id(1)
    first_channel = tl.program_id(2) * BLOCK_D
    column, row, inside, _, _ = _tile_pixels(tile, tiles_x, width, height, TILE_W, TILE_H)
    pixel_x = (column.to(tl.float32) + 0.5)[None, :]
    pixel_y = (row.to(tl.float32) + 0.5)[None, :]
    key = image * (tl.num_programs(0) + 1) + 1 + tile
    start, end = tl.load(ranges + key * 2), tl.load(ranges + key * 2 + 1)
    splats += image * capacity
    records += image * total * RECORD
    features += ((image // cameras) % features_lead) * total * CHANNELS

    # `running` keeps falling after a pixel is full, which closes it; `remaining` stops there.
    running = tl.where(inside, 1.0, 0.0)
    remaining = tl.full([PIXELS], 1.0, tl.float32)
    last = tl.zeros([PIXELS], tl.int32)
    blended = tl.zeros([BLOCK_D, PIXELS], tl.float32)
    open_pixels = tl.max(running)
    base = start
    while (base < end) & (open_pixels > MIN_TRANSMITTANCE):
        slot = base + tl.arange(0, CHUNK)
        live = slot < end
        splat = tl.load(splats + slot, mask=live, other=0)
        mean_x, mean_y, a, b, c, opacity = _load_records(records, splat, live)
        colour = _load_features(
            features, records, splat, live, first_channel, CHANNELS, BLOCK_D
        )
        dx, dy = mean_x[:, None] - pixel_x, mean_y[:, None] - pixel_y
        sigma = 0.5 * (a[:, None] * dx * dx + c[:, None] * dy * dy) + b[:, None] * dx * dy
        alpha = tl.minimum(opacity[:, None] * tl.exp(-sigma), MAX_ALPHA)
        keep = (sigma >= 0.0) & (alpha >= MIN_ALPHA)
        alpha = tl.where(keep, alpha, 0.0)
        after = running[None, :] * tl.cumprod(1.0 - alpha, axis=0)
        keep &= after > MIN_TRANSMITTANCE
        weight = tl.where(keep, alpha * after / (1.0 - alpha), 0.0)
        if USE_DOT:
            blended = tl.dot(tl.trans(colour), weight, acc=blended, input_precision="tf32x3")
        else:
            blended += tl.sum(colour[:, :, None] * weight[:, None, :], axis=0)
        remaining = tl.minimum(remaining, tl.min(tl.where(keep, after, 1.0), axis=0))
        last = tl.maximum(last, tl.max(tl.where(keep, slot[:, None] + 1, 0), axis=0))
        running = tl.min(after, axis=0)
        open_pixels = tl.max(running)
        base += CHUNK

    channel = first_channel + tl.arange(0, BLOCK_D)
    pixel = (image * height + row) * width + column
    tl.store(
        image_out + pixel[None, :] * CHANNELS + channel[:, None], blended,
        mask=inside[None, :] & (channel < CHANNELS)[:, None],
    )  # fmt: skip
    tl.store(
        depth_out + pixel[None, :] + channel[:, None] * 0, blended,
        mask=inside[None, :] & (channel == CHANNELS)[:, None],
    )  # fmt: skip
    if first_channel == 0:
        tl.store(transmittance_out + pixel, remaining, mask=inside)
        tl.store(last_out + pixel, last, mask=inside)


@triton.jit
def _column(matrix, index: tl.constexpr, COLUMNS: tl.constexpr):
    """One column of a (chunk, COLUMNS) matrix."""
    return tl.sum(tl.where(tl.arange(0, COLUMNS)[None, :] == index, matrix, 0.0), axis=1)


@triton.jit
def _add_rows(target, rows, values, mask, DETERMINISTIC: tl.constexpr):
    """Adds (chunk, columns) values into rows; a row has one writer only if deterministic."""
    if DETERMINISTIC:
        tl.store(target + rows, values, mask=mask)
    else:
        tl.atomic_add(target + rows, values, mask=mask, sem="relaxed")


@triton.jit
def _pixel_gradients(
    image_grads, depth_grads, pixel, inside, first, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(BLOCK_D, pixels) cotangents of the channels from `first`, depth after the last channel."""
    channel = first + tl.arange(0, BLOCK_D)[:, None]
    colour = tl.load(
        image_grads + pixel[None, :] * CHANNELS + channel,
        mask=inside[None, :] & (channel < CHANNELS), other=0.0,
    )  # fmt: skip
    depth = tl.load(depth_grads + pixel, mask=inside, other=0.0)
    return tl.where(channel == CHANNELS, depth[None, :], colour)


@triton.jit
def blend_backward_kernel(
    ranges, splats, slots, records, features, transmittance, last_in,
    image_grads, transmittance_grads, depth_grads,
    record_grads, feature_grads,
    total, capacity, cameras, width, height, tiles_x, features_lead,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCKS_D: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr, USE_DOT: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images): back-to-front; gradients of records and of features.

    Gradients with respect to sigma enter the splat only through six moments over the tile's pixels
    (1, x, y, xx, xy, yy), taken about the tile's centre where they are small numbers. They and the
    feature gradients are two matrix products per chunk.
    """
    PIXELS: tl.constexpr = TILE_W * TILE_H
    tile = tl.program_id(0)
    image = tl.program_id(1)
    column, row, inside, centre_x, centre_y = _tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    pixel = (image * height + row) * width + column
    local_x, local_y = column.to(tl.float32) + 0.5 - centre_x, row.to(tl.float32) + 0.5 - centre_y
    key = image * (tl.num_programs(0) + 1) + 1 + tile
    start = tl.load(ranges + key * 2)
    splats += image * capacity
    slots += image * capacity
    records += image * total * RECORD
    features += ((image // cameras) % features_lead) * total * CHANNELS
    if DETERMINISTIC:  # a row per slot
        record_grads += image * capacity * RECORD
        feature_grads += image * capacity * CHANNELS
    else:  # a row per splat, which the cameras of a scene share for features
        record_grads += image * total * RECORD
        feature_grads += (image // cameras) * total * CHANNELS

    last = tl.load(last_in + pixel, mask=inside, other=0)
    running = tl.load(transmittance + pixel, mask=inside, other=1.0)
    # What lies behind the splat at hand, times the cotangent: begins with the background.
    behind = running * tl.load(transmittance_grads + pixel, mask=inside, other=0.0)
    colour_grad = _pixel_gradients(image_grads, depth_grads, pixel, inside, 0, CHANNELS, BLOCK_D)

    moment = tl.arange(0, 16)[None, :]
    x, y = local_x[:, None], local_y[:, None]
    basis = tl.where(moment == 0, 1.0, 0.0)
    basis = tl.where(moment == 1, x, basis)
    basis = tl.where(moment == 2, y, basis)
    basis = tl.where(moment == 3, x * x, basis)
    basis = tl.where(moment == 4, x * y, basis)
    basis = tl.where(moment == 5, y * y, basis)

    base = tl.max(last)
    if DETERMINISTIC:  # rows that no pixel reaches are zero, and still have to be written
        base = tl.load(ranges + key * 2 + 1)
    while base > start:
        slot = base - 1 - tl.arange(0, CHUNK)
        live = slot >= start
        splat = tl.load(splats + slot, mask=live, other=0)
        mean_x, mean_y, a, b, c, opacity = _load_records(records, splat, live)
        off_x, off_y = mean_x - centre_x, mean_y - centre_y
        dx, dy = off_x[:, None] - local_x[None, :], off_y[:, None] - local_y[None, :]
        sigma = 0.5 * (a[:, None] * dx * dx + c[:, None] * dy * dy) + b[:, None] * dx * dy
        unclamped = opacity[:, None] * tl.exp(-sigma)
        alpha = tl.minimum(unclamped, MAX_ALPHA)
        keep = (sigma >= 0.0) & (alpha >= MIN_ALPHA) & (slot[:, None] < last[None, :])
        keep &= live[:, None]
        alpha = tl.where(keep, alpha, 0.0)
        inverse = 1.0 / (1.0 - alpha)
        before = running[None, :] * tl.cumprod(inverse, axis=0)
        weight = before * alpha

        # A row is a splat, or in deterministic mode the one slot that this tile and splat share.
        target = tl.load(slots + slot, mask=live, other=0) if DETERMINISTIC else splat
        response = tl.zeros([CHUNK, PIXELS], tl.float32)  # cotangent of a unit weight
        g_depth = tl.zeros([CHUNK], tl.float32)
        for block in tl.static_range(BLOCKS_D):
            channel = block * BLOCK_D + tl.arange(0, BLOCK_D)
            if BLOCKS_D > 1:
                colour_grad = _pixel_gradients(
                    image_grads, depth_grads, pixel, inside, block * BLOCK_D, CHANNELS, BLOCK_D
                )
            colour = _load_features(
                features, records, splat, live, block * BLOCK_D, CHANNELS, BLOCK_D
            )
            if USE_DOT:
                response = tl.dot(colour, colour_grad, acc=response, input_precision="tf32x3")
            else:
                response += tl.sum(colour[:, :, None] * colour_grad[None, :, :], axis=1)
            g_colour = tl.dot(weight, tl.trans(colour_grad), input_precision="tf32x3")
            _add_rows(
                feature_grads, target[:, None] * CHANNELS + channel[None, :], g_colour,
                live[:, None] & (channel < CHANNELS)[None, :], DETERMINISTIC,
            )  # fmt: skip
            g_depth += tl.sum(tl.where(channel[None, :] == CHANNELS, g_colour, 0.0), axis=1)
        share = weight * response
        behind_incl = behind[None, :] + tl.cumsum(share, axis=0)
        g_alpha = (before * response - behind_incl) * inverse
        g_sigma = tl.where(keep & (unclamped <= MAX_ALPHA), -alpha * g_alpha, 0.0)
        running = tl.max(before, axis=0)
        behind += tl.sum(share, axis=0)

        moments = tl.dot(g_sigma, basis, input_precision="tf32x3")
        m0, m1, m2 = _column(moments, 0, 16), _column(moments, 1, 16), _column(moments, 2, 16)
        m3, m4, m5 = _column(moments, 3, 16), _column(moments, 4, 16), _column(moments, 5, 16)
        s_x, s_y = off_x * m0 - m1, off_y * m0 - m2
        s_xx = off_x * off_x * m0 - 2.0 * off_x * m1 + m3
        s_xy = off_x * off_y * m0 - off_x * m2 - off_y * m1 + m4
        s_yy = off_y * off_y * m0 - 2.0 * off_y * m2 + m5
        field = tl.arange(0, 8)[None, :]
        out = tl.where(field == 0, (a * s_x + b * s_y)[:, None], 0.0)
        out = tl.where(field == 1, (b * s_x + c * s_y)[:, None], out)
        out = tl.where(field == 2, (0.5 * s_xx)[:, None], out)
        out = tl.where(field == 3, s_xy[:, None], out)
        out = tl.where(field == 4, (0.5 * s_yy)[:, None], out)
        out = tl.where(field == 5, (-m0 / tl.where(live, opacity, 1.0))[:, None], out)
        out = tl.where(field == 6, g_depth[:, None], out)
        _add_rows(
            record_grads, target[:, None] * RECORD + field, out,
            live[:, None] & (field < 7), DETERMINISTIC,
        )  # fmt: skip
        base -= CHUNK


@triton.jit
def gather_kernel(
    first_slots, emitted, slot_grads, grads, total, capacity, COLUMNS: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, images, blocks of columns): sums each splat's slots, in one order."""
    image = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = index < total
    splat = image * total + index
    first = tl.load(first_slots + splat, mask=live, other=0)
    count = tl.load(emitted + splat, mask=live, other=0)
    column = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    total_grad = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    longest = tl.max(count)
    begin = 0
    while begin < longest:
        step = begin + tl.arange(0, STEP)
        slot = image * capacity + first[:, None] + step[None, :]
        mask = (step[None, :] < count[:, None])[:, :, None] & (column < COLUMNS)[None, None, :]
        value = tl.load(
            slot_grads + slot[:, :, None] * COLUMNS + column[None, None, :], mask=mask, other=0.0
        )
        total_grad += tl.sum(value, axis=1)
        begin += STEP
    tl.store(
        grads + splat[:, None] * COLUMNS + column[None, :], total_grad,
        mask=live[:, None] & (column < COLUMNS)[None, :],
    )  # fmt: skip
