"""Triton kernels of blending, forward and backward.

One program per tile. Its arrays are (splats of a chunk, pixels of the tile) with the pixels spread
over the threads, so that products and sums along the splats stay inside a thread, and sums over
pixels (the gradients) are matrix products for the tensor cores.

A feature vector is extended by one channel, the camera depth, which blends like any colour.
"""

import triton
import triton.language as tl

from kernels import constants, triton_call

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(constants.MIN_TRANSMITTANCE)
RECORD = tl.constexpr(8)


LOG2_E = tl.constexpr(1.4426950408889634)

# Three instructions that Triton has no name for. Its own exp2 and division spend five instructions
# more on denormal numbers, of which blending has none that matter.
if triton_call.is_interpreting():

    @triton.jit
    def exp2(x):
        return tl.exp2(x)

    @triton.jit
    def reciprocal(x):
        return 1.0 / x

    @triton.jit
    def pin(x):
        return x

else:

    @triton.jit
    def exp2(x):
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def reciprocal(x):
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def pin(x):
        """Computed once, one element a lane, and then handed to all threads.

        Left alone, Triton repeats small computations, loads included, in every thread instead.
        """
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1
        )


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
def _load_shape(records, splat, live, centre_x, centre_y):
    """Mean about the tile's centre, conic, opacity."""
    record = records + splat * RECORD
    mean_x = tl.load(record, mask=live, other=0.0) - centre_x
    mean_y = tl.load(record + 1, mask=live, other=0.0) - centre_y
    a = tl.load(record + 2, mask=live, other=1.0)
    b = tl.load(record + 3, mask=live, other=0.0)
    c = tl.load(record + 4, mask=live, other=1.0)
    return mean_x, mean_y, a, b, c, tl.load(record + 5, mask=live, other=1.0)


@triton.jit
def _unclamped_alpha(mean_x, mean_y, a, b, c, opacity, live, x, y):
    """(chunk, pixels) o exp(-sigma), sigma expanded into a polynomial about the tile's centre.

    The coefficients are computed once per splat, which leaves a pixel five multiply-adds at most.
    Entries that are not live get zero.
    """
    a, b, c = a * (-0.5 * LOG2_E), b * -LOG2_E, c * (-0.5 * LOG2_E)
    slope_x, slope_y = 2.0 * a * mean_x + b * mean_y, 2.0 * c * mean_y + b * mean_x
    offset = tl.log2(opacity) + 0.5 * (slope_x * mean_x + slope_y * mean_y)
    offset = pin(tl.where(live, offset, float("-inf")))[:, None]
    slope_x, slope_y = pin(-slope_x)[:, None], pin(-slope_y)[:, None]
    a, b, c = pin(a)[:, None], pin(b)[:, None], pin(c)[:, None]
    column = offset + x * (slope_x + a * x)  # the same for all pixels of a column
    return exp2(column + y * ((slope_y + b * x) + c * y))


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
    return pin(tl.where(channel == CHANNELS, depth[:, None], value))


@triton.jit
def _load_channel(features, records, splat, live, index: tl.constexpr, CHANNELS: tl.constexpr):
    """One channel of a chunk: a feature, then the depth, then zeros."""
    if index < CHANNELS:
        value = tl.load(features + splat * CHANNELS + index, mask=live, other=0.0)
    elif index == CHANNELS:
        value = tl.load(records + splat * RECORD + 6, mask=live, other=0.0)
    else:
        value = tl.zeros(splat.shape, tl.float32)
    return value


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
def _store_pixel_channel(
    images, depths, pixel, inside, value, index: tl.constexpr, CHANNELS: tl.constexpr
):
    if index < CHANNELS:
        tl.store(images + pixel * CHANNELS + index, value, mask=inside)
    elif index == CHANNELS:
        tl.store(depths + pixel, value, mask=inside)


@triton.jit
def _tf32_parts(x):
    """x as a sum of two numbers; the first has the 11 significant bits that tensor cores keep."""
    high = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return high, x - high


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
    column, row, inside, centre_x, centre_y = _tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    x = (column.to(tl.float32) + 0.5 - centre_x)[None, :]
    y = (row.to(tl.float32) + 0.5 - centre_y)[None, :]
    key = image * (tl.num_programs(0) + 1) + 1 + tile
    start, end = tl.load(ranges + key * 2), tl.load(ranges + key * 2 + 1)
    splats += image * capacity
    records += image * total * RECORD
    features += ((image // cameras) % features_lead) * total * CHANNELS

    threshold = tl.full([PIXELS], MIN_TRANSMITTANCE, tl.float32)
    running = tl.where(inside, 1.0, 0.0)  # 0 once a pixel is full
    remaining = tl.full([PIXELS], 1.0, tl.float32)  # the transmittance where it got full
    last = tl.zeros([PIXELS], tl.int32)
    # Up to three channels and the depth live in four sums, more in one matrix.
    blended = tl.zeros([BLOCK_D if USE_DOT else 1, PIXELS], tl.float32)
    zero = tl.zeros([PIXELS], tl.float32)
    sum_0, sum_1, sum_2, sum_3 = zero, zero, zero, zero
    base = start
    while (base < end) & (tl.max(running) > 0.0):
        slot = base + tl.arange(0, CHUNK)
        live = slot < end
        splat = tl.load(splats + slot, mask=live, other=0)
        mean_x, mean_y, a, b, c, opacity = _load_shape(records, splat, live, centre_x, centre_y)
        if USE_DOT:
            colour = _load_features(
                features, records, splat, live, first_channel, CHANNELS, BLOCK_D
            )
        else:
            value_0 = _load_channel(features, records, splat, live, 0, CHANNELS)
            value_1 = _load_channel(features, records, splat, live, 1, CHANNELS)
            value_2 = _load_channel(features, records, splat, live, 2, CHANNELS)
            value_3 = _load_channel(features, records, splat, live, 3, CHANNELS)
        alpha = _unclamped_alpha(mean_x, mean_y, a, b, c, opacity, live, x, y)
        alpha = tl.where(alpha >= MIN_ALPHA, tl.minimum(alpha, MAX_ALPHA), 0.0)
        # Transmittance after each splat, relative to the chunk's beginning. It only falls, so that
        # what is open is a beginning of the chunk; a full pixel's threshold is infinite.
        after = tl.cumprod(1.0 - alpha, axis=0)
        is_open = after > (threshold / running)[None, :]
        weight = tl.where(is_open, after * (alpha * reciprocal(1.0 - alpha)), 0.0)
        if USE_DOT:
            added = tl.dot(tl.trans(colour), weight, input_precision="tf32x3")
            blended += added * running[None, :]
        else:
            sum_0 += running * tl.sum(pin(value_0)[:, None] * weight, axis=0)
            sum_1 += running * tl.sum(pin(value_1)[:, None] * weight, axis=0)
            if CHANNELS > 1:
                sum_2 += running * tl.sum(pin(value_2)[:, None] * weight, axis=0)
            if CHANNELS > 2:
                sum_3 += running * tl.sum(pin(value_3)[:, None] * weight, axis=0)
        rest = tl.min(tl.where(is_open, after, 1.0), axis=0)
        remaining = tl.where(running > 0.0, running * rest, remaining)
        passed = tl.sum(is_open.to(tl.int32), axis=0)
        last = tl.where(passed > 0, tl.minimum(base + passed, end), last)
        running = tl.where(passed == CHUNK, remaining, 0.0)
        base += CHUNK

    pixel = (image * height + row) * width + column
    if USE_DOT:
        channel = first_channel + tl.arange(0, BLOCK_D)[:, None]
        target = pixel[None, :] * CHANNELS + channel
        tl.store(image_out + target, blended, mask=inside[None, :] & (channel < CHANNELS))
        target = pixel[None, :] + channel * 0
        tl.store(depth_out + target, blended, mask=inside[None, :] & (channel == CHANNELS))
    else:
        _store_pixel_channel(image_out, depth_out, pixel, inside, sum_0, 0, CHANNELS)
        _store_pixel_channel(image_out, depth_out, pixel, inside, sum_1, 1, CHANNELS)
        _store_pixel_channel(image_out, depth_out, pixel, inside, sum_2, 2, CHANNELS)
        _store_pixel_channel(image_out, depth_out, pixel, inside, sum_3, 3, CHANNELS)
    if first_channel == 0:
        tl.store(transmittance_out + pixel, remaining, mask=inside)
        tl.store(last_out + pixel, last, mask=inside)


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
    """`_load_channel` for a channel known at run time."""
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
    tile = tl.program_id(0)
    image = tl.program_id(1)
    column, row, inside, centre_x, centre_y = _tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    pixel = (image * height + row) * width + column
    local_x, local_y = column.to(tl.float32) + 0.5 - centre_x, row.to(tl.float32) + 0.5 - centre_y
    x, y = local_x[None, :], local_y[None, :]
    step = tl.arange(0, CHUNK)[:, None]
    key = image * (tl.num_programs(0) + 1) + 1 + tile
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
        columns_high, columns_low = _tf32_parts(tl.trans(colour_grad))
    while base > start:
        entry = base - 1 - tl.arange(0, CHUNK)
        live = entry >= start
        splat = tl.load(splats + entry, mask=live, other=0)
        slot = tl.load(slots + entry, mask=live, other=0)
        mean_x, mean_y, a, b, c, opacity = _load_shape(records, splat, live, centre_x, centre_y)
        if FUSED:
            value_0 = _load_channel(features, records, splat, live, 0, CHANNELS)
            value_1 = _load_channel(features, records, splat, live, 1, CHANNELS)
            value_2 = _load_channel(features, records, splat, live, 2, CHANNELS)
            value_3 = _load_channel(features, records, splat, live, 3, CHANNELS)
        alpha = _unclamped_alpha(mean_x, mean_y, a, b, c, opacity, live, x, y)
        # entry < last, with a constant on one side
        keep = (alpha >= MIN_ALPHA) & (step >= (base - last)[None, :])
        alpha = tl.where(keep, tl.minimum(alpha, MAX_ALPHA), 0.0)
        inverse = reciprocal(1.0 - alpha)
        before = running[None, :] * tl.cumprod(inverse, axis=0)
        weight = before * alpha
        # Cotangent of a unit of weight.
        if FUSED:
            weight_high, weight_low = _tf32_parts(weight)
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
        running = tl.max(before, axis=0)
        behind += tl.sum(share, axis=0)
        sigma_high, sigma_low = _tf32_parts(g_sigma)
        moments = tl.dot(sigma_high, basis, input_precision="tf32")
        moments = tl.dot(sigma_low, basis, acc=moments, input_precision="tf32")
        tl.store(slot_moments + slot[:, None] * 8 + moment, moments, mask=live[:, None])
        base -= CHUNK


@triton.jit
def feature_backward_kernel(
    ranges, splats, slots, records, transmittance, last_in, image_grads, depth_grads,
    slot_features,
    total, capacity, width, height, tiles_x,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, MAX_ALPHA: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, images, blocks of channels): gradients of features and depth, row per slot."""
    tile = tl.program_id(0)
    image = tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    column, row, inside, centre_x, centre_y = _tile_pixels(
        tile, tiles_x, width, height, TILE_W, TILE_H
    )
    pixel = (image * height + row) * width + column
    x = (column.to(tl.float32) + 0.5 - centre_x)[None, :]
    y = (row.to(tl.float32) + 0.5 - centre_y)[None, :]
    step = tl.arange(0, CHUNK)[:, None]
    key = image * (tl.num_programs(0) + 1) + 1 + tile
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
    columns_high, columns_low = _tf32_parts(tl.trans(colour_grad))
    base = tl.max(last)
    if tl.program_id(2) == 0:
        _store_zeros(
            slot_features, slots, tl.maximum(base, start), end, CHANNELS + 1, CHUNK, BLOCK_D
        )
    while base > start:
        entry = base - 1 - tl.arange(0, CHUNK)
        live = entry >= start
        splat = tl.load(splats + entry, mask=live, other=0)
        slot = tl.load(slots + entry, mask=live, other=0)
        mean_x, mean_y, a, b, c, opacity = _load_shape(records, splat, live, centre_x, centre_y)
        alpha = _unclamped_alpha(mean_x, mean_y, a, b, c, opacity, live, x, y)
        keep = (alpha >= MIN_ALPHA) & (step >= (base - last)[None, :])
        alpha = tl.where(keep, tl.minimum(alpha, MAX_ALPHA), 0.0)
        before = running[None, :] * tl.cumprod(reciprocal(1.0 - alpha), axis=0)
        weight_high, weight_low = _tf32_parts(before * alpha)
        g_colour = tl.dot(weight_high, columns_high, input_precision="tf32")
        g_colour = tl.dot(weight_low, columns_high, acc=g_colour, input_precision="tf32")
        g_colour = tl.dot(weight_high, columns_low, acc=g_colour, input_precision="tf32")
        tl.store(
            slot_features + slot[:, None] * (CHANNELS + 1) + channel,
            g_colour,
            mask=live[:, None] & (channel <= CHANNELS),
        )
        running = tl.max(before, axis=0)
        base -= CHUNK
