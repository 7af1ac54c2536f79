"""Triton's interpreter for `triton_call`: kernels on NumPy arrays, on a machine without a GPU.

Slow, and exact enough to test every line of a kernel. TRITON_INTERPRET=1 must be in the environment
before Triton is imported.
"""

import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def run(*operands: jax.Array, launch: Any, shapes: tuple) -> list[jax.Array]:
    """Runs one launch, as a host callback; may be traced.

    Args:
        *operands: input arrays.
        launch: `triton_compile.Launch`.
        shapes: (shape, type) of every output.

    Raises:
        RuntimeError: the kernel was not made for the interpreter.
    """
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(launch.kernel, InterpretedFunction):
        raise RuntimeError(
            f"{launch.name}: TRITON_INTERPRET=1 was set after Triton was imported; "
            "set it before Python starts"
        )

    def on_host(*arrays: Any) -> list[np.ndarray]:
        operands, outputs = host_arrays(arrays, launch, shapes)
        tensors = [HostTensor(host) for host in (*operands, *outputs)]
        scalars = [value for _, value in launch.scalars]
        with np.errstate(all="ignore"), _interpreter_lock:
            launch.kernel[launch.grid](*tensors, *scalars, **dict(launch.constants))
        return outputs

    results = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return list(jax.pure_callback(on_host, results, *operands))


def host_arrays(arrays: Sequence[Any], launch: Any, shapes: tuple) -> tuple[list, list]:
    """NumPy arrays that a launch on the host reads, and such that it writes."""
    operands = [np.array(array, order="C") for array in arrays]
    # Poison what the kernel must write itself: a missed element shows up in any test.
    outputs = [np.full(shape, _poison(dtype), dtype) for shape, dtype in shapes]
    for operand, output in launch.aliases:
        outputs[output] = operands[operand]  # the same memory, as on a GPU
    return operands, outputs


def _poison(dtype: np.dtype) -> float | int:
    return np.nan if np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16" else 77


# The interpreter patches Triton's modules while a kernel runs.
_interpreter_lock = threading.Lock()


class HostTensor:
    """A NumPy array with the few torch-like methods that Triton's interpreter asks for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def untyped_storage(self) -> "HostTensor":
        return self

    def cpu(self) -> "HostTensor":
        return self  # already there: the kernel writes straight into the array

    def copy_(self, other: "HostTensor") -> None:
        del other  # the same memory, see cpu

    def new_empty(self, *args: Any, **kwargs: Any) -> "HostTensor":
        del args, kwargs
        return HostTensor(self.array)

    def set_(self, storage: "HostTensor", *args: Any) -> None:
        del args
        self.array = storage.array

    def size(self) -> tuple[int, ...]:
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def storage_offset(self) -> int:
        return 0

    def element_size(self) -> int:
        return self.array.itemsize
