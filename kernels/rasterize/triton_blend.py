"""Triton kernel of blending, front to back; `triton_tile` says how a program is laid out."""

import triton
import triton.language as tl

from kernels import constants
from kernels.rasterize import triton_splat, triton_tile

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(constants.MIN_TRANSMITTANCE)
RECORD = triton_splat.RECORD
blend_weights = triton_tile.blend_weights
last_row = triton_tile.last_row
load_channel = triton_tile.load_channel
load_shape = triton_tile.load_shape
load_splats = triton_tile.load_splats
own_tile = triton_tile.own_tile
pin = triton_tile.pin
tile_pixels = triton_tile.tile_pixels
unclamped_alpha = triton_tile.unclamped_alpha


@triton.jit
def _load_features(features, splat, live, first, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr):
    """(chunk, BLOCK_D) features from channel `first`, zeros after the last channel."""
    channel = first + tl.arange(0, BLOCK_D)[None, :]
    mask = live[:, None] & (channel < CHANNELS)
    return pin(tl.load(features + splat[:, None] * CHANNELS + channel, mask=mask, other=0.0))


@triton.jit
def _sum(values, weight):
    """Sum over a chunk's splats, for each pixel, of a value times its weight."""
    return tl.sum(pin(values)[:, None] * weight, axis=0)


@triton.jit
def _any(condition):
    """Whether it holds anywhere; of whole numbers a warp finds the largest in one instruction."""
    return tl.max(condition.to(tl.int32)) > 0


@triton.jit
def blend_kernel(
    ranges, splats, records, features,
    image_out, transmittance_out, depth_out, last_out,
    total, capacity, cameras, width, height, tiles_x, features_lead,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr, USE_DOT: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images, blocks of channels): front-to-back blending.

    The first block's programs write what is not a channel, the depth among it.
    """
    PIXELS: tl.constexpr = TILE_W * TILE_H
    tile = own_tile(tiles_x)
    image = tl.program_id(1)
    first_channel = tl.program_id(2) * BLOCK_D
    column, row, inside, centre_x, centre_y = tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    x = (column.to(tl.float32) + 0.5 - centre_x)[None, :]
    y = (row.to(tl.float32) + 0.5 - centre_y)[None, :]
    key = image * tl.num_programs(0) + tile
    start, end = tl.load(ranges + key * 2), tl.load(ranges + key * 2 + 1)
    splats += image * capacity
    records += image * total * RECORD
    features += ((image // cameras) % features_lead) * total * CHANNELS

    threshold = tl.full([PIXELS], MIN_TRANSMITTANCE, tl.float32)
    running = tl.where(inside, 1.0, 0.0)  # 0 once a pixel is full
    remaining = tl.full([PIXELS], 1.0, tl.float32)  # the transmittance where it got full
    last = tl.zeros([PIXELS], tl.int32)
    # Up to three channels live in sums of their own, more in one matrix; so does the depth.
    blended = tl.zeros([BLOCK_D if USE_DOT else 1, PIXELS], tl.float32)
    zero = tl.zeros([PIXELS], tl.float32)
    sum_0, sum_1, sum_2, sum_depth = zero, zero, zero, zero
    base = start
    splat = load_splats(splats, base, end, CHUNK)
    while (base < end) & _any(running > 0.0):
        live = base + tl.arange(0, CHUNK) < end
        mean_x, mean_y, a, b, variance, opacity = load_shape(
            records, splat, live, centre_x, centre_y
        )
        depth = tl.load(records + splat * RECORD + 6, mask=live, other=0.0)
        if USE_DOT:
            colour = _load_features(features, splat, live, first_channel, CHANNELS, BLOCK_D)
        else:
            value_0 = load_channel(features, records, splat, live, 0, CHANNELS)
            value_1 = load_channel(features, records, splat, live, 1, CHANNELS)
            value_2 = load_channel(features, records, splat, live, 2, CHANNELS)
        alpha = unclamped_alpha(mean_x, mean_y, a, b, variance, opacity, live, x, y)
        alpha = tl.where(alpha >= MIN_ALPHA, tl.minimum(alpha, MAX_ALPHA), 0.0)
        # Transmittance after each splat, relative to the chunk's beginning. It only falls, so that
        # what is open is a beginning of the chunk; a full pixel's threshold is infinite.
        after, weight = blend_weights(alpha)
        rest = last_row(after, CHUNK)
        passed = tl.where(running > 0.0, CHUNK, 0)
        stop = threshold / running
        if _any((rest <= stop) & (running > 0.0)):  # some pixel gets full
            is_open = after > stop[None, :]
            weight = tl.where(is_open, weight, 0.0)
            rest = tl.min(tl.where(is_open, after, 1.0), axis=0)
            passed = tl.sum(is_open.to(tl.int32), axis=0)
        if USE_DOT:
            added = tl.dot(tl.trans(colour), weight, input_precision="tf32x3")
            blended += added * running[None, :]
        else:
            sum_0 += running * _sum(value_0, weight)
            if CHANNELS > 1:
                sum_1 += running * _sum(value_1, weight)
            if CHANNELS > 2:
                sum_2 += running * _sum(value_2, weight)
        sum_depth += running * _sum(depth, weight)
        remaining = tl.where(running > 0.0, running * rest, remaining)
        last = tl.where(passed > 0, tl.minimum(base + passed, end), last)
        running = tl.where(passed == CHUNK, remaining, 0.0)
        base += CHUNK
        splat = load_splats(splats, base, end, CHUNK)

    pixel = (image * height + row) * width + column
    if USE_DOT:
        channel = first_channel + tl.arange(0, BLOCK_D)[:, None]
        target = image_out + pixel[None, :] * CHANNELS + channel
        tl.store(target, blended, mask=inside[None, :] & (channel < CHANNELS))
    else:
        tl.store(image_out + pixel * CHANNELS, sum_0, mask=inside)
        if CHANNELS > 1:
            tl.store(image_out + pixel * CHANNELS + 1, sum_1, mask=inside)
        if CHANNELS > 2:
            tl.store(image_out + pixel * CHANNELS + 2, sum_2, mask=inside)
    if first_channel == 0:
        tl.store(depth_out + pixel, sum_depth, mask=inside)
        tl.store(transmittance_out + pixel, remaining, mask=inside)
        tl.store(last_out + pixel, last, mask=inside)
