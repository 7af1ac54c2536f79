"""Triton kernels as JAX operations: the only importer of jaxlib's binding.

`triton_call` stages one launch of a `@triton.jit` function into a JAX program. What happens to it
is decided when the program is lowered, by platform:

* CUDA: the kernel is compiled to PTX for the GPU's compute capability (`triton_compile`) and
  becomes one custom call. No GPU is needed for that
  (`jax.jit(f).trace(x).lower(lowering_platforms=("cuda",))` works on a laptop), only the packages
  `triton` and `jax-cuda13-plugin`.
* CPU with TRITON_INTERPRET=1: Triton's interpreter runs the same kernel (`triton_interpreter`).

There is no autotuning and no host synchronisation: a call's grid and constants are static.
Automatic batching (vmap) and differentiation are the caller's business: `jax.custom_batching` and
`jax.custom_vjp` around it.
"""

import functools
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jax_core
from jax.interpreters import mlir

from kernels import triton_compile, triton_interpreter

# Lowering for CUDA on a machine without a GPU: Hopper, unless CAPABILITY_VARIABLE says otherwise.
DEFAULT_CAPABILITY = 90
CAPABILITY_VARIABLE = "KERNELS_CUDA_CAPABILITY"

_FFI_TARGET = "triton_kernel_call_ffi"


def cuda_capability() -> int:
    """Compute capability that CUDA programs are lowered for, 90 for 9.0.

    The first local GPU's; without a GPU that of the environment variable KERNELS_CUDA_CAPABILITY,
    or 90.

    Raises:
        ValueError: the environment variable is not a number such as 90.
        NotImplementedError: kernels are not compiled for it.
    """
    try:
        text = str(jax.local_devices(backend="cuda")[0].compute_capability).replace(".", "")
    except RuntimeError:  # JAX's way to say that there is no such platform
        text = os.environ.get(CAPABILITY_VARIABLE, str(DEFAULT_CAPABILITY))
    if not text.isdecimal():
        raise ValueError(f"{CAPABILITY_VARIABLE}: expected a number such as 90, got {text!r}")
    triton_compile.ptx_version(int(text))
    return int(text)


def triton_call(
    kernel: Any,
    *operands: jax.Array,
    outputs: Sequence[jax.ShapeDtypeStruct],
    grid: Sequence[int],
    scalars: Mapping[str, int | float] | None = None,
    constants: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[jax.Array, ...]:
    """Stages one launch of a Triton kernel.

    Args:
        kernel: `@triton.jit` function; see `triton_compile.Launch` for
            the order of its parameters.
        *operands: input arrays, row-major; kernels only read them.
        outputs: shapes and types of the outputs.
        grid: one to three numbers of programs; a zero in it skips the launch.
        scalars: run-time scalars by name, in the order of the kernel's parameters.
        constants: compile-time constants by name.
        **settings: the remaining fields of `triton_compile.Launch`.

    Returns:
        The outputs. Those not in `aliases` hold garbage where the kernel wrote nothing.

    Raises:
        TypeError: an array has a type that kernels do not take, or another shape or type than the
            output in the same memory.
        NotImplementedError: at lowering, when the platform cannot run the kernel.
    """
    triton_compile.require_triton()
    grid = tuple(int(size) for size in grid) + (1,) * (3 - len(grid))
    operands = tuple(jax.numpy.asarray(operand) for operand in operands)
    for array in (*operands, *outputs):
        if np.dtype(array.dtype).name not in triton_compile.POINTER_TYPES:
            raise TypeError(f"{kernel.__name__}: no kernel takes arrays of type {array.dtype}")
    launch = triton_compile.Launch(
        kernel=kernel,
        grid=grid,
        scalars=tuple((scalars or {}).items()),
        constants=tuple((constants or {}).items()),
        **settings,
    )
    shapes = tuple((tuple(out.shape), np.dtype(out.dtype)) for out in outputs)
    begins_as = {output: operands[operand] for operand, output in launch.aliases}
    for output, array in begins_as.items():
        if (array.shape, np.dtype(array.dtype)) != shapes[output]:
            raise TypeError(
                f"{launch.name}: output {output} cannot begin as {array.dtype}{array.shape}"
            )
    if 0 in grid:  # CUDA rejects empty grids
        empty = [jax.numpy.zeros(shape, dtype) for shape, dtype in shapes]
        return tuple(begins_as.get(index, array) for index, array in enumerate(empty))
    return tuple(triton_call_p.bind(*operands, launch=launch, shapes=shapes))


# --- the primitive -------------------------------------------------------------------------------

triton_call_p = jax_core.Primitive("triton_kernel")
triton_call_p.multiple_results = True


@triton_call_p.def_impl
def _run_eagerly(*operands: jax.Array, **params: Any) -> list[jax.Array]:
    with jax.disable_jit(False):  # a kernel alone is compiled whatever the caller debugs
        return _jitted(tuple(params.items()))(*operands)


@functools.cache
def _jitted(params: tuple[tuple[str, Any], ...]) -> Callable[..., list[jax.Array]]:
    return jax.jit(lambda *operands: triton_call_p.bind(*operands, **dict(params)))


@triton_call_p.def_abstract_eval
def _abstract_eval(*operands: Any, launch: triton_compile.Launch, shapes: tuple) -> list[Any]:
    del launch
    # Inside shard_map outputs vary over the mesh axes that the operands vary over.
    varying = [
        operand for operand in operands if getattr(getattr(operand, "mat", 0), "varying", ())
    ]
    if not varying:
        return [jax.core.ShapedArray(shape, dtype) for shape, dtype in shapes]
    like = max(varying, key=lambda operand: len(operand.mat.varying))
    mesh = like.sharding.mesh
    return [
        jax.core.ShapedArray(
            shape,
            dtype,
            sharding=jax.sharding.NamedSharding(
                mesh, jax.sharding.PartitionSpec(*[None] * len(shape))
            ),
            manual_axis_type=like.mat,
        )
        for shape, dtype in shapes
    ]


def _lower_cuda(ctx: Any, *operands: Any, launch: triton_compile.Launch, shapes: tuple) -> Any:
    """The custom call of a compiled kernel."""
    from jaxlib.mlir import ir

    binding = _load_binding()
    dtypes = [aval.dtype for aval in ctx.avals_in] + [dtype for _, dtype in shapes]
    compiled = triton_compile.compile_kernel(launch, dtypes, cuda_capability())
    kernel = binding.TritonKernel(
        compiled.name,
        compiled.num_warps,
        1,  # programs of a cluster
        compiled.shared_bytes,
        compiled.ptx,
        "",  # the TTIR: only used for dumps, and would double every executable's size
        compiled.capability,
    )
    # Zero bytes: none of these is cleared before the launch.
    alignment = triton_compile.POINTER_ALIGNMENT
    parameters = [binding.create_array_parameter(0, alignment) for _ in dtypes]
    for _, value in launch.scalars:
        kind = "fp32" if isinstance(value, float) else "i32"
        parameters.append(binding.create_scalar_parameter(value, kind))
    call = binding.TritonKernelCall(kernel, *launch.grid, parameters)
    rule = jax.ffi.ffi_lowering(
        _FFI_TARGET,
        api_version=4,
        operand_output_aliases=dict(launch.aliases),
        backend_config={
            "name": ir.StringAttr.get(launch.name),
            "opaque": ir.StringAttr.get(zlib.compress(call.to_proto(launch.name, b""))),
        },
    )
    return rule(ctx, *operands)


@functools.cache
def _load_binding() -> Any:
    """jaxlib's Triton binding, which lives in the CUDA plugin."""
    from jax._src.lib import gpu_triton  # no public name exists (JAX 0.10 and 0.11)

    if not hasattr(gpu_triton, "TritonKernelCall"):
        raise NotImplementedError(
            "implementation 'triton': lowering for CUDA needs JAX's CUDA plugin; run "
            f"`pip install 'jax[cuda13]=={jax.__version__}'`, or, without a GPU, "
            f"`pip install --no-deps jax-cuda13-plugin=={jax.__version__}`"
        )
    return gpu_triton


def _lower_cpu(ctx: Any, *operands: Any, launch: triton_compile.Launch, shapes: tuple) -> Any:
    if not triton_compile.is_interpreting():
        raise NotImplementedError(
            "implementation 'triton' runs on CUDA devices; for arrays on a CPU beside a GPU say "
            "implementation='xla'. On a CPU it runs in Triton's interpreter, a slow test tool: set "
            "TRITON_INTERPRET=1 in the environment before Python starts"
        )
    run = functools.partial(triton_interpreter.run, launch=launch, shapes=shapes)
    rule = mlir.lower_fun(run, True)
    return rule(ctx, *operands)


mlir.register_lowering(triton_call_p, _lower_cuda, platform="cuda")
mlir.register_lowering(triton_call_p, _lower_cpu, platform="cpu")
