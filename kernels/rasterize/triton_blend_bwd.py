"""Triton kernels of the gradient of blending, back to front; see `triton_tile` for the layout."""

import triton
import triton.language as tl

from kernels import constants
from kernels.rasterize import triton_splat, triton_tile

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
RECORD = triton_splat.RECORD
last_row = triton_tile.last_row
load_channel = triton_tile.load_channel
load_shape = triton_tile.load_shape
load_splats_back = triton_tile.load_splats_back
own_tile = triton_tile.own_tile
pin = triton_tile.pin
reciprocal = triton_tile.reciprocal
tf32_parts = triton_tile.tf32_parts
tile_pixels = triton_tile.tile_pixels
unclamped_alpha = triton_tile.unclamped_alpha


@triton.jit
def _load_pixel_channel(images, depths, pixel, inside, index: tl.constexpr, CHANNELS: tl.constexpr):
    """One channel of the tile's pixels: of an image, then of a depth map, then zeros."""
    if index < CHANNELS:
        value = tl.load(images + pixel * CHANNELS + index, mask=inside, other=0.0)
    elif index == CHANNELS:
        value = tl.load(depths + pixel, mask=inside, other=0.0)
    else:
        value = tl.zeros(pixel.shape, tl.float32)
    return value[None, :]


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
def _load_any_channel(features, records, splat, live, channel, CHANNELS: tl.constexpr):
    """`load_channel` for a channel known at run time."""
    value = tl.load(
        features + splat * CHANNELS + channel, mask=live & (channel < CHANNELS), other=0.0
    )
    depth = tl.load(records + splat * RECORD + 6, mask=live & (channel == CHANNELS), other=0.0)
    return pin(value + depth)[:, None]


@triton.jit
def _load_any_pixel_channel(images, depths, pixel, inside, channel, CHANNELS: tl.constexpr):
    """`_load_pixel_channel` for a channel known at run time."""
    value = tl.load(
        images + pixel * CHANNELS + channel, mask=inside & (channel < CHANNELS), other=0.0
    )
    depth = tl.load(depths + pixel, mask=inside & (channel == CHANNELS), other=0.0)
    return (value + depth)[None, :]


@triton.jit
def _store_zeros(
    rows, slots, first, end, columns: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr
):
    """Zeroes the rows, `columns` wide, of the list entries from `first` to `end`."""
    begin = first
    while begin < end:
        entry = begin + tl.arange(0, CHUNK)
        slot = tl.load(slots + entry, mask=entry < end, other=0)[:, None]
        for block in tl.static_range(0, columns, COLUMNS):
            column = block + tl.arange(0, COLUMNS)[None, :]
            mask = (entry < end)[:, None] & (column < columns)
            zeros = tl.zeros([CHUNK, COLUMNS], tl.float32)
            tl.store(rows + slot * columns + column, zeros, mask=mask)
        begin += CHUNK


@triton.jit
def blend_backward_kernel(
    ranges, splats, slots, records, features, transmittance, last_in,
    image_grads, transmittance_grads, depth_grads,
    slot_moments, slot_features,
    total, capacity, cameras, width, height, tiles_x, features_lead,
    CHANNELS: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr, FUSED: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images): back-to-front; one row of gradients per pair of tile and splat.

    Gradients with respect to sigma enter the splat only through six moments over the tile's pixels
    (1, x, y, xx, xy, yy), taken about the tile's centre where they are small numbers. They and the
    feature gradients are matrix products, one or two per chunk. Every row has one writer: no
    atomics, and the same bits in every run.

    FUSED (at most three channels) writes the feature gradients too; otherwise
    `feature_backward_kernel` does.
    """
    tile = own_tile(tiles_x)
    image = tl.program_id(1)
    column, row, inside, centre_x, centre_y = tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    pixel = (image * height + row) * width + column
    local_x, local_y = column.to(tl.float32) + 0.5 - centre_x, row.to(tl.float32) + 0.5 - centre_y
    x, y = local_x[None, :], local_y[None, :]
    step = tl.arange(0, CHUNK)[:, None]
    key = image * tl.num_programs(0) + tile
    start, end = tl.load(ranges + key * 2), tl.load(ranges + key * 2 + 1)
    splats += image * capacity
    slots += image * capacity
    slot_moments += image * capacity * 8
    records += image * total * RECORD
    features += ((image // cameras) % features_lead) * total * CHANNELS

    last = tl.load(last_in + pixel, mask=inside, other=0)
    running = tl.load(transmittance + pixel, mask=inside, other=1.0)
    # What lies behind the splat at hand, times the cotangent: begins with the background.
    behind = running * tl.load(transmittance_grads + pixel, mask=inside, other=0.0)
    # Multiples of 1/4 below 2^9: exact on tensor cores.
    moment = tl.arange(0, 8)[None, :]
    basis = tl.where(moment == 0, 1.0, 0.0)
    basis = tl.where(moment == 1, local_x[:, None], basis)
    basis = tl.where(moment == 2, local_y[:, None], basis)
    basis = tl.where(moment == 3, (local_x * local_x)[:, None], basis)
    basis = tl.where(moment == 4, (local_x * local_y)[:, None], basis)
    basis = tl.where(moment == 5, (local_y * local_y)[:, None], basis)

    base = tl.max(last)
    _store_zeros(slot_moments, slots, tl.maximum(base, start), end, 8, CHUNK, 8)
    if FUSED:
        slot_features += image * capacity * (CHANNELS + 1)
        _store_zeros(slot_features, slots, tl.maximum(base, start), end, CHANNELS + 1, CHUNK, 8)
        grad_0 = _load_pixel_channel(image_grads, depth_grads, pixel, inside, 0, CHANNELS)
        grad_1 = _load_pixel_channel(image_grads, depth_grads, pixel, inside, 1, CHANNELS)
        grad_2 = _load_pixel_channel(image_grads, depth_grads, pixel, inside, 2, CHANNELS)
        grad_3 = _load_pixel_channel(image_grads, depth_grads, pixel, inside, 3, CHANNELS)
        colour_grad = _pixel_gradients(image_grads, depth_grads, pixel, inside, 0, CHANNELS, 8)
        columns_high, columns_low = tf32_parts(tl.trans(colour_grad))
    splat = load_splats_back(splats, start, base, CHUNK)
    while base > start:
        entry = base - 1 - tl.arange(0, CHUNK)
        live = entry >= start
        slot = tl.load(slots + entry, mask=live, other=0)
        mean_x, mean_y, a, b, variance, opacity = load_shape(
            records, splat, live, centre_x, centre_y
        )
        if FUSED:
            value_0 = load_channel(features, records, splat, live, 0, CHANNELS)
            value_1 = load_channel(features, records, splat, live, 1, CHANNELS)
            value_2 = load_channel(features, records, splat, live, 2, CHANNELS)
            value_3 = load_channel(features, records, splat, live, 3, CHANNELS)
        alpha = unclamped_alpha(mean_x, mean_y, a, b, variance, opacity, live, x, y)
        # entry < last, with a constant on one side
        keep = (alpha >= MIN_ALPHA) & (step >= (base - last)[None, :])
        alpha = tl.where(keep, tl.minimum(alpha, MAX_ALPHA), 0.0)
        inverse = reciprocal(1.0 - alpha)
        before = running[None, :] * tl.cumprod(inverse, axis=0)
        weight = before * alpha
        # Cotangent of a unit of weight.
        if FUSED:
            weight_high, weight_low = tf32_parts(weight)
            g_colour = tl.dot(weight_high, columns_high, input_precision="tf32")
            g_colour = tl.dot(weight_low, columns_high, acc=g_colour, input_precision="tf32")
            g_colour = tl.dot(weight_high, columns_low, acc=g_colour, input_precision="tf32")
            channel = tl.arange(0, 8)[None, :]
            tl.store(
                slot_features + slot[:, None] * (CHANNELS + 1) + channel,
                g_colour,
                mask=live[:, None] & (channel <= CHANNELS),
            )
            response = grad_0 * pin(value_0)[:, None] + grad_1 * pin(value_1)[:, None]
            if CHANNELS > 1:
                response += grad_2 * pin(value_2)[:, None]
            if CHANNELS > 2:
                response += grad_3 * pin(value_3)[:, None]
        else:
            response = weight * 0.0
            for channel in range(0, CHANNELS + 1):
                grad = _load_any_pixel_channel(
                    image_grads, depth_grads, pixel, inside, channel, CHANNELS
                )
                response += grad * _load_any_channel(
                    features, records, splat, live, channel, CHANNELS
                )
        share = weight * response
        behind_incl = behind[None, :] + tl.cumsum(share, axis=0)
        # alpha is 0 where nothing was blended, and so is this
        g_sigma = alpha * ((behind_incl - before * response) * inverse)
        g_sigma = tl.where(alpha < MAX_ALPHA, g_sigma, 0.0)
        running = last_row(before, CHUNK)
        behind = last_row(behind_incl, CHUNK)
        sigma_high, sigma_low = tf32_parts(g_sigma)
        moments = tl.dot(sigma_high, basis, input_precision="tf32")
        moments = tl.dot(sigma_low, basis, acc=moments, input_precision="tf32")
        tl.store(slot_moments + slot[:, None] * 8 + moment, moments, mask=live[:, None])
        base -= CHUNK
        splat = load_splats_back(splats, start, base, CHUNK)


@triton.jit
def feature_backward_kernel(
    ranges, splats, slots, records, transmittance, last_in, image_grads, depth_grads,
    slot_features,
    total, capacity, width, height, tiles_x,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images, blocks of channels): gradients of features and depth, row per slot."""
    tile = own_tile(tiles_x)
    image = tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    column, row, inside, centre_x, centre_y = tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    pixel = (image * height + row) * width + column
    x = (column.to(tl.float32) + 0.5 - centre_x)[None, :]
    y = (row.to(tl.float32) + 0.5 - centre_y)[None, :]
    step = tl.arange(0, CHUNK)[:, None]
    key = image * tl.num_programs(0) + tile
    start, end = tl.load(ranges + key * 2), tl.load(ranges + key * 2 + 1)
    splats += image * capacity
    slots += image * capacity
    slot_features += image * capacity * (CHANNELS + 1)
    records += image * total * RECORD

    last = tl.load(last_in + pixel, mask=inside, other=0)
    running = tl.load(transmittance + pixel, mask=inside, other=1.0)
    colour_grad = _pixel_gradients(
        image_grads, depth_grads, pixel, inside, tl.program_id(2) * BLOCK_D, CHANNELS, BLOCK_D
    )
    columns_high, columns_low = tf32_parts(tl.trans(colour_grad))
    base = tl.max(last)
    if tl.program_id(2) == 0:
        _store_zeros(
            slot_features, slots, tl.maximum(base, start), end, CHANNELS + 1, CHUNK, BLOCK_D
        )
    splat = load_splats_back(splats, start, base, CHUNK)
    while base > start:
        entry = base - 1 - tl.arange(0, CHUNK)
        live = entry >= start
        slot = tl.load(slots + entry, mask=live, other=0)
        mean_x, mean_y, a, b, variance, opacity = load_shape(
            records, splat, live, centre_x, centre_y
        )
        alpha = unclamped_alpha(mean_x, mean_y, a, b, variance, opacity, live, x, y)
        keep = (alpha >= MIN_ALPHA) & (step >= (base - last)[None, :])
        alpha = tl.where(keep, tl.minimum(alpha, MAX_ALPHA), 0.0)
        before = running[None, :] * tl.cumprod(reciprocal(1.0 - alpha), axis=0)
        weight_high, weight_low = tf32_parts(before * alpha)
        g_colour = tl.dot(weight_high, columns_high, input_precision="tf32")
        g_colour = tl.dot(weight_low, columns_high, acc=g_colour, input_precision="tf32")
        g_colour = tl.dot(weight_high, columns_low, acc=g_colour, input_precision="tf32")
        tl.store(
            slot_features + slot[:, None] * (CHANNELS + 1) + channel,
            g_colour,
            mask=live[:, None] & (channel <= CHANNELS),
        )
        running = last_row(before, CHUNK)
        base -= CHUNK
        splat = load_splats_back(splats, start, base, CHUNK)
