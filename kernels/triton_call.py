"""Triton kernels as JAX operations: the only importer of Triton's compiler and of jaxlib's binding.

`triton_call` stages one launch of a `@triton.jit` function into a JAX program. What happens to it
is decided when the program is lowered, by platform:

* CUDA: the kernel is compiled by Triton to PTX for the GPU's compute capability and becomes one
  custom call. No GPU is needed for that (`jax.jit(f).trace(x).lower(lowering_platforms=("cuda",))`
  works on a laptop), only the packages `triton` and `jax-cuda13-plugin`.
* CPU with TRITON_INTERPRET=1: Triton's interpreter runs the same kernel (`triton_interpreter`).

There is no autotuning and no host synchronisation: a call's grid and constants are static.
Automatic batching (vmap) and differentiation are the caller's business: `jax.custom_batching` and
`jax.custom_vjp` around it.
"""

import dataclasses
import functools
import importlib.util
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jax_core
from jax.interpreters import mlir

from kernels import triton_interpreter

# PTX by compute capability: CUDA 12.8's, or the first that knows the GPU. Newer Triton emits newer
# PTX, which the ptxas of CUDA 13.0 and older rejects; older PTX than a GPU's ends the process.
PTX_VERSIONS = {75: 87, 80: 87, 86: 87, 87: 87, 89: 87, 90: 87, 100: 87, 103: 88, 120: 87, 121: 88}
# XLA's buffers on GPUs are aligned to 128 bytes or more; Triton vectorises loads from 16 on.
POINTER_ALIGNMENT = 16
# Lowering for CUDA on a machine without a GPU: Hopper, unless CAPABILITY_VARIABLE says otherwise.
DEFAULT_CAPABILITY = 90
CAPABILITY_VARIABLE = "KERNELS_CUDA_CAPABILITY"

_FFI_TARGET = "triton_kernel_call_ffi"
_POINTER_TYPES = {
    "float32": "*fp32",
    "float16": "*fp16",
    "bfloat16": "*bf16",
    "int32": "*i32",
    "uint32": "*u32",
    "int64": "*i64",
    "uint16": "*u16",
    "uint8": "*u8",
}


@dataclasses.dataclass(frozen=True)
class Launch:
    """Everything static about one kernel launch; hashable.

    Attributes:
        kernel: a `@triton.jit` function. Its parameters are, in this order: input pointers, output
            pointers, run-time scalars, compile-time constants.
        grid: programs in x, y, z.
        scalars: run-time scalars (name, int or float): changing one does not recompile.
        constants: compile-time constants (name, value).
        num_warps: warps of a program.
        num_stages: software pipelining depth.
        fp_fusion: multiply-adds may be fused. Off where two kernels must decide alike.
        aliases: (operand, output) indices of pairs in the same memory: the output begins as that
            operand. The kernel uses the output's pointer alone.
        max_registers: registers a thread may use, or None.
    """

    kernel: Any
    grid: tuple[int, int, int]
    scalars: tuple[tuple[str, int | float], ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()
    num_warps: int = 4
    num_stages: int = 1
    fp_fusion: bool = True
    aliases: tuple[tuple[int, int], ...] = ()
    max_registers: int | None = None

    @property
    def name(self) -> str:
        """The kernel's Python name."""
        return self.kernel.__name__


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A kernel compiled for one compute capability.

    Attributes:
        name: symbol in the PTX.
        ptx, ttir: Triton's output as text.
        cubin: machine code, from the ptxas that Triton ships.
        shared_bytes: shared memory of a program.
        num_warps: warps of a program.
        capability: compute capability, 90 for 9.0.
    """

    name: str
    ptx: str
    ttir: str
    cubin: bytes
    shared_bytes: int
    num_warps: int
    capability: int


def has_triton() -> bool:
    """True when the package `triton` is installed; it is not imported."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # an entry of sys.modules without a spec: blocked, or a stand-in
        return False


def is_interpreting() -> bool:
    """True when kernels run in Triton's interpreter (TRITON_INTERPRET=1 in the environment)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def require_triton() -> None:
    """Raises NotImplementedError, saying what to install, when Triton is missing."""
    if not has_triton():
        raise NotImplementedError(
            "implementation 'triton': the package triton is not installed; "
            "run `pip install 'instant-gs[cuda]'` or `pip install triton`, "
            "or leave implementation=None"
        )


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
    ptx_version(int(text))
    return int(text)


def ptx_version(capability: int) -> int:
    """PTX version that kernels are compiled to for a compute capability: 87 is PTX 8.7.

    Raises:
        NotImplementedError: the capability is not in the table: LLVM may end the process there.
    """
    if capability not in PTX_VERSIONS:
        raise NotImplementedError(
            f"implementation 'triton': no kernels for compute capability {capability}, only for "
            f"{sorted(PTX_VERSIONS)}; use implementation='xla' or None"
        )
    return PTX_VERSIONS[capability]


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
        kernel: `@triton.jit` function; see `Launch` for the order of its parameters.
        *operands: input arrays, row-major; kernels only read them.
        outputs: shapes and types of the outputs.
        grid: one to three numbers of programs; a zero in it skips the launch.
        scalars: run-time scalars by name, in the order of the kernel's parameters.
        constants: compile-time constants by name.
        **settings: the remaining fields of `Launch`.

    Returns:
        The outputs. Those not in `aliases` hold garbage where the kernel wrote nothing.

    Raises:
        TypeError: an array has a type that kernels do not take, or another shape or type than the
            output in the same memory.
        NotImplementedError: at lowering, when the platform cannot run the kernel.
    """
    require_triton()
    grid = tuple(int(size) for size in grid) + (1,) * (3 - len(grid))
    operands = tuple(jax.numpy.asarray(operand) for operand in operands)
    for array in (*operands, *outputs):
        if np.dtype(array.dtype).name not in _POINTER_TYPES:
            raise TypeError(f"{kernel.__name__}: no kernel takes arrays of type {array.dtype}")
    launch = Launch(
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
    return tuple(_triton_call_p.bind(*operands, launch=launch, shapes=shapes))


# --- compilation ---------------------------------------------------------------------------------

_compile_cache: dict[Any, Compiled] = {}
_compile_lock = threading.Lock()


def compiled_kernels() -> list[tuple[Launch, Compiled]]:
    """All kernels that this process has compiled, with a launch that asked for each."""
    with _compile_lock:
        return [(key[0], compiled) for key, compiled in _compile_cache.items()]


def _signature(launch: Launch, dtypes: Sequence[np.dtype]) -> tuple[dict, dict, dict]:
    """Triton's signature, constants and pointer attributes of a launch."""
    names = list(launch.kernel.arg_names)
    constants = dict(launch.constants)
    expected = len(dtypes) + len(launch.scalars) + len(constants)
    if len(names) != expected:
        raise TypeError(f"{launch.name}: takes {len(names)} arguments, the call gives {expected}")
    signature: dict[str, str] = {}
    for name, dtype in zip(names, dtypes, strict=False):
        signature[name] = _POINTER_TYPES[np.dtype(dtype).name]
    for (given, value), name in zip(launch.scalars, names[len(dtypes) :], strict=False):
        if given != name:
            raise TypeError(f"{launch.name}: expected scalar {name!r} here, got {given!r}")
        signature[name] = "fp32" if isinstance(value, float) else "i32"
    for name in names[len(signature) :]:
        if name not in constants:
            raise TypeError(f"{launch.name}: constant {name!r} is missing")
        signature[name] = "constexpr"
    attributes = {
        (index,): [["tt.divisibility", POINTER_ALIGNMENT]] for index in range(len(dtypes))
    }
    return signature, constants, attributes


def compile_kernel(launch: Launch, dtypes: Sequence[Any], capability: int) -> Compiled:
    """Compiles a launch's kernel; results are kept for the life of the process.

    Args:
        launch: the launch; its grid and the values of its scalars do not matter.
        dtypes: types of all pointer arguments, inputs first.
        capability: compute capability, 90 for 9.0.

    Raises:
        RuntimeError: this process interprets kernels, so that nothing can be compiled.
        NotImplementedError: kernels are not compiled for this capability.
    """
    if is_interpreting():
        raise RuntimeError(
            f"{launch.name}: TRITON_INTERPRET=1 is set, so that kernels cannot be compiled for "
            "CUDA in this process; unset it and start again"
        )
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    dtypes = tuple(np.dtype(dtype) for dtype in dtypes)
    kinds = tuple((name, isinstance(value, float)) for name, value in launch.scalars)
    neutral = dataclasses.replace(launch, grid=(1, 1, 1), scalars=(), aliases=())
    key = (neutral, kinds, dtypes, capability)
    with _compile_lock:
        if key not in _compile_cache:
            signature, constants, attributes = _signature(launch, dtypes)
            options = {
                "num_warps": launch.num_warps,
                "num_stages": launch.num_stages,
                "ptx_version": ptx_version(capability),
                "enable_fp_fusion": launch.fp_fusion,
            }
            if launch.max_registers is not None:
                options["maxnreg"] = launch.max_registers
            result = triton.compile(
                ASTSource(launch.kernel, signature, constants, attributes),
                target=GPUTarget("cuda", capability, 32),
                options=options,
            )
            _check_no_scratch(result)
            _compile_cache[key] = Compiled(
                name=result.metadata.name,
                ptx=result.asm["ptx"],
                ttir=str(result.asm["ttir"]),
                cubin=result.asm["cubin"],
                shared_bytes=result.metadata.shared,
                num_warps=launch.num_warps,
                capability=capability,
            )
        return _compile_cache[key]


def _check_no_scratch(result: Any) -> None:
    """JAX passes null for Triton's two scratch buffers: a kernel must not use them."""
    for kind in ("global_scratch_size", "profile_scratch_size"):
        if getattr(result.metadata, kind, 0):
            raise NotImplementedError(
                f"{result.metadata.name}: needs Triton's {kind}, JAX has none"
            )


# --- the primitive -------------------------------------------------------------------------------

_triton_call_p = jax_core.Primitive("triton_kernel")
_triton_call_p.multiple_results = True


@_triton_call_p.def_impl
def _run_eagerly(*operands: jax.Array, **params: Any) -> list[jax.Array]:
    return _jitted(tuple(params.items()))(*operands)


@functools.cache
def _jitted(params: tuple[tuple[str, Any], ...]) -> Callable[..., list[jax.Array]]:
    return jax.jit(lambda *operands: _triton_call_p.bind(*operands, **dict(params)))


@_triton_call_p.def_abstract_eval
def _abstract_eval(*operands: Any, launch: Launch, shapes: tuple) -> list[Any]:
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


def _lower_cuda(ctx: Any, *operands: Any, launch: Launch, shapes: tuple) -> Any:
    """The custom call of a compiled kernel."""
    from jaxlib.mlir import ir

    binding = _load_binding()
    dtypes = [aval.dtype for aval in ctx.avals_in] + [dtype for _, dtype in shapes]
    compiled = compile_kernel(launch, dtypes, cuda_capability())
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
    parameters = [binding.create_array_parameter(0, POINTER_ALIGNMENT) for _ in dtypes]
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


def _lower_cpu(ctx: Any, *operands: Any, launch: Launch, shapes: tuple) -> Any:
    if not is_interpreting():
        raise NotImplementedError(
            "implementation 'triton' runs on CUDA devices; on a CPU only in Triton's interpreter, "
            "a slow test tool: set TRITON_INTERPRET=1 in the environment before Python starts"
        )
    run = functools.partial(triton_interpreter.run, launch=launch, shapes=shapes)
    rule = mlir.lower_fun(run, True)
    return rule(ctx, *operands)


mlir.register_lowering(_triton_call_p, _lower_cuda, platform="cuda")
mlir.register_lowering(_triton_call_p, _lower_cpu, platform="cpu")
