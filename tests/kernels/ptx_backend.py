"""`implementation="triton"` on a CPU by `ptx_machine`: the kernels as they are compiled for a GPU.

For processes that do not interpret kernels. KERNELS_CUDA_CAPABILITY says for which GPU.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir

from kernels import triton_call, triton_compile, triton_interpreter
from tests.kernels import ptx_machine


def install() -> None:
    """From now on this process runs Triton kernels on CPUs so."""
    mlir.register_lowering(triton_call.triton_call_p, _lower, platform="cpu")


def _lower(ctx: Any, *operands: Any, launch: Any, shapes: tuple) -> Any:
    run = functools.partial(_run, launch=launch, shapes=shapes)
    return mlir.lower_fun(run, True)(ctx, *operands)


def _run(*operands: jax.Array, launch: Any, shapes: tuple) -> list[jax.Array]:
    def on_host(*arrays: Any) -> list[np.ndarray]:
        rng = np.random.default_rng()
        read, written = triton_interpreter.host_arrays(arrays, launch, shapes)
        for index, array in enumerate(written):
            if array.dtype.kind in "iu" and index not in [output for _, output in launch.aliases]:
                # What the kernel leaves is no number that happens to do for the next one.
                limits = np.iinfo(array.dtype)
                array[...] = rng.integers(limits.min, limits.max, array.shape, array.dtype)
        dtypes = [array.dtype for array in (*read, *written)]
        compiled = triton_compile.compile_kernel(launch, dtypes, triton_call.cuda_capability())
        scalars = [value for _, value in launch.scalars]
        ptx_machine.run(compiled, launch.grid, read, written, scalars, rng)
        return written

    results = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return list(jax.pure_callback(on_host, results, *operands))
