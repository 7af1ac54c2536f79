"""The Triton backend as `vjp` expects one: `forward` and `backward`.

Runs on NVIDIA GPUs; on a CPU in Triton's interpreter when TRITON_INTERPRET=1 is set (for tests).
"""

from kernels.rasterize.triton_bwd import backward
from kernels.rasterize.triton_fwd import forward

__all__ = ["backward", "forward"]
