"""Two small Triton kernels for the tests of the binding."""

import triton
import triton.language as tl

from kernels.rasterize import triton_tile

blend_weights = triton_tile.blend_weights
scan_weights = triton_tile.scan_weights


@triton.jit
def scale_kernel(x, out, count, factor, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + index, tl.load(x + index, mask=index < count) * factor, mask=index < count)


@triton.jit
def count_kernel(x, _out, out, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < count, other=-1.0)
    tl.atomic_add(out, tl.sum((value > 0).to(tl.int32)))


@triton.jit
def weights_kernel(alpha, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    index = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(alpha + index)
    after, weight = scan_weights(value)
    tl.store(out + index, after)
    tl.store(out + ROWS * COLUMNS + index, weight)
    after, weight = blend_weights(value)
    tl.store(out + 2 * ROWS * COLUMNS + index, after)
    tl.store(out + 3 * ROWS * COLUMNS + index, weight)
