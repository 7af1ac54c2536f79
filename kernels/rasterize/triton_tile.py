"""What the blending kernels share: instructions, pixels of a tile, alpha, loads.

One program per tile. Its arrays are (splats of a chunk, pixels of the tile) with the pixels spread
over the threads, so that products and sums along the splats stay inside a thread, and sums over
pixels (the gradients) are matrix products for the tensor cores.

The camera depth blends like one more channel of the features.
"""

import triton
import triton.language as tl

from kernels import triton_compile
from kernels.rasterize import triton_splat

RECORD = triton_splat.RECORD
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _append(after, weight, next_after, next_weight):
    return after * next_after, after * next_weight


@triton.jit
def scan_weights(alpha):
    """Transmittance after each splat of a chunk, and alpha times the one before it.

    A scan of pairs: no division.
    """
    return tl.associative_scan((1.0 - alpha, alpha), 0, _append)


# Instructions that Triton has no name for. Its own exp2 and division spend five instructions more
# on denormal numbers, of which blending has none that matter, its log2 some thirty on exactness.
if triton_compile.is_interpreting():

    @triton.jit
    def exp2(x):
        return tl.exp2(x)

    @triton.jit
    def log2(x):
        return tl.log2(x)

    @triton.jit
    def reciprocal(x):
        return 1.0 / x

    @triton.jit
    def pin(x):
        return x

    @triton.jit
    def blend_weights(alpha):  # the interpreter scans sums and products only at any speed
        after = tl.cumprod(1.0 - alpha, axis=0)
        return after, after / (1.0 - alpha) * alpha

else:

    @triton.jit
    def exp2(x):
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def log2(x):
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
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
        Triton 3.6 does so in spite of this where it can trace x back to constants and pointers: it
        cannot where x comes from what a `while` loop carries, see `load_splats`.
        """
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1
        )

    @triton.jit
    def blend_weights(alpha):
        return scan_weights(alpha)


@triton.jit
def last_row(values, CHUNK: tl.constexpr):
    """Values of a chunk's last splat, for each pixel: free where a thread has all of a pixel's."""
    is_last = (tl.arange(0, CHUNK) == CHUNK - 1)[:, None]
    bits = tl.where(is_last, values.to(tl.int32, bitcast=True), 0)
    return tl.xor_sum(bits, axis=0).to(tl.float32, bitcast=True)


@triton.jit
def own_tile(tiles_x):
    """The program's tile: rows of tiles from the middle of the image outwards.

    Programs begin in order, and what is in the middle tends to have the longest lists: begun late,
    a few of them could run on alone.
    """
    program, tiles_y = tl.program_id(0), tl.num_programs(0) // tiles_x
    order = program // tiles_x
    away = (order + 1) // 2
    row = tiles_y // 2 + tl.where(order % 2 == 1, -away, away)
    return row * tiles_x + program % tiles_x


@triton.jit
def tile_pixels(tile, tiles_x, width, height, TILE_W: tl.constexpr, TILE_H: tl.constexpr):
    """Pixel columns and rows, whether inside the image, and the tile's centre."""
    local = tl.arange(0, TILE_W * TILE_H)
    corner_x = (tile % tiles_x) * TILE_W
    corner_y = (tile // tiles_x) * TILE_H
    column, row = corner_x + local % TILE_W, corner_y + local // TILE_W
    inside = (column < width) & (row < height)
    return column, row, inside, corner_x + 0.5 * TILE_W, corner_y + 0.5 * TILE_H


@triton.jit
def load_splats(splats, first, end, CHUNK: tl.constexpr):
    """Splats of the chunk of list entries from `first` on, 0 from `end` on.

    For a loop to carry: loaded a chunk ahead, they are there when needed, and whatever is loaded by
    them stays one element a lane (`pin`).
    """
    entry = first + tl.arange(0, CHUNK)
    return tl.load(splats + entry, mask=entry < end, other=0)


@triton.jit
def load_splats_back(splats, start, end, CHUNK: tl.constexpr):
    """Splats of the chunk of list entries before `end`, the last first, 0 before `start`."""
    entry = end - 1 - tl.arange(0, CHUNK)
    return tl.load(splats + entry, mask=entry >= start, other=0)


@triton.jit
def load_shape(records, splat, live, centre_x, centre_y):
    """Mean about the tile's centre, conic a and b, the variance in y, opacity."""
    record = records + splat * RECORD
    mean_x = tl.load(record, mask=live, other=0.0) - centre_x
    mean_y = tl.load(record + 1, mask=live, other=0.0) - centre_y
    a = tl.load(record + 2, mask=live, other=1.0)
    b = tl.load(record + 3, mask=live, other=0.0)
    variance = a * tl.load(record + 7, mask=live, other=1.0)
    return mean_x, mean_y, a, b, variance, tl.load(record + 5, mask=live, other=1.0)


@triton.jit
def unclamped_alpha(mean_x, mean_y, a, b, variance, opacity, live, x, y):
    """(chunk, pixels) o exp(-sigma), sigma expanded into a polynomial about the tile's centre.

    The coefficients are computed once per splat, which leaves a pixel five multiply-adds at most.
    They come from squares, 2 sigma = a (x + b/a y)^2 + y^2 / variance: far along a long, thin splat
    the conic's own three terms are large and differ by rounding errors. Entries that are not live
    get zero.
    """
    slope, rest = b * reciprocal(a), (-0.5 * LOG2_E) * reciprocal(variance)
    a, b = a * (-0.5 * LOG2_E), b * -LOG2_E
    across = mean_x + slope * mean_y
    slope_x, slope_y = 2.0 * a * across, b * across + 2.0 * rest * mean_y
    offset = log2(opacity) + (a * across * across + rest * mean_y * mean_y)
    offset = pin(tl.where(live, offset, float("-inf")))[:, None]
    slope_x, slope_y = pin(-slope_x)[:, None], pin(-slope_y)[:, None]
    c = pin(0.5 * b * slope + rest)[:, None]
    a, b = pin(a)[:, None], pin(b)[:, None]
    column = offset + x * (slope_x + a * x)  # the same for all pixels of a column
    return exp2(column + y * ((slope_y + b * x) + c * y))


@triton.jit
def load_channel(features, records, splat, live, index: tl.constexpr, CHANNELS: tl.constexpr):
    """One channel of a chunk: a feature, then the depth, then zeros."""
    if index < CHANNELS:
        value = tl.load(features + splat * CHANNELS + index, mask=live, other=0.0)
    elif index == CHANNELS:
        value = tl.load(records + splat * RECORD + 6, mask=live, other=0.0)
    else:
        value = tl.zeros(splat.shape, tl.float32)
    return value


@triton.jit
def tf32_parts(x):
    """x as a sum of two numbers; the first has the 11 significant bits that tensor cores keep."""
    high = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return high, x - high
