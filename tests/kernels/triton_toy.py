"""Two small Triton kernels for the tests of the binding."""

import triton
import triton.language as tl


@triton.jit
def scale_kernel(x, out, count, factor, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + index, tl.load(x + index, mask=index < count) * factor, mask=index < count)


@triton.jit
def count_kernel(x, out, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < count, other=-1.0)
    tl.atomic_add(out, tl.sum((value > 0).to(tl.int32)))
