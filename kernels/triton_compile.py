"""Triton's compiler: kernels to PTX and machine code, for any GPU, without one.

The only importer of the compiler. Nothing is chosen by trial at run time.
"""

import dataclasses
import importlib.util
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

# PTX by compute capability: CUDA 12.8's, or the first that knows the GPU. Newer Triton emits newer
# PTX, which the ptxas of CUDA 13.0 and older rejects; older PTX than a GPU's ends the process.
PTX_VERSIONS = {75: 87, 80: 87, 86: 87, 87: 87, 89: 87, 90: 87, 100: 87, 103: 88, 120: 87, 121: 88}
# Bytes of shared memory that a program may have, by compute capability (CUDA programming guide).
SHARED_BYTES = {75: 65536, 80: 166912, 86: 101376, 87: 166912, 89: 101376, 90: 232448, 100: 232448}
SHARED_BYTES |= {103: 232448, 120: 101376, 121: 101376}
# XLA's buffers on GPUs are aligned to 128 bytes or more; Triton vectorises loads from 16 on.
POINTER_ALIGNMENT = 16
POINTER_TYPES = {
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
        ptx: Triton's output as text.
        cubin: machine code, from the ptxas that Triton ships.
        shared_bytes: shared memory of a program.
        num_warps: warps of a program.
        capability: compute capability, 90 for 9.0.
    """

    name: str
    ptx: str
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
        signature[name] = POINTER_TYPES[np.dtype(dtype).name]
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
        NotImplementedError: kernels are not compiled for this capability, or it lacks the memory.
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
            _check_shared(result, capability)
            _compile_cache[key] = Compiled(
                name=result.metadata.name,
                ptx=result.asm["ptx"],
                cubin=result.asm["cubin"],
                shared_bytes=result.metadata.shared,
                num_warps=launch.num_warps,
                capability=capability,
            )
        return _compile_cache[key]


def _check_shared(result: Any, capability: int) -> None:
    """A launch with more shared memory than there is would fail, and not say why."""
    needed, limit = result.metadata.shared, SHARED_BYTES[capability]
    if needed > limit:
        raise NotImplementedError(
            f"implementation 'triton': {result.metadata.name} needs {needed} bytes of shared memory"
            f", compute capability {capability} has {limit}; use a smaller tile_size, or None"
        )


def _check_no_scratch(result: Any) -> None:
    """JAX passes null for Triton's two scratch buffers: a kernel must not use them."""
    for kind in ("global_scratch_size", "profile_scratch_size"):
        if getattr(result.metadata, kind, 0):
            raise NotImplementedError(
                f"{result.metadata.name}: needs Triton's {kind}, JAX has none"
            )
