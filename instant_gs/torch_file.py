"""Reads PyTorch's files without PyTorch, and without running anything that they contain.

A file of ``torch.save`` (since PyTorch 1.6) is a zip: ``data.pkl`` holds the structure as a
pickle, ``data/0``, ``data/1``, … the numbers. A pickle is a program; here it may name nothing
but the few things that describe tensors, and even these are inert records of our own.
"""

import collections
import io
import math
import os
import pickle
import pickletools
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAX_STRUCTURE_BYTES = 8 * 2**20  # of data.pkl; 533 tensors need 0.1 MB
MAX_NODES = 1_000_000  # entries of the nested structure: shared parts can be visited very often
MAX_DEPTH = 16

_STORAGE_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _StorageType(NamedTuple):
    dtype: Any


class _Storage(NamedTuple):
    key: str
    dtype: Any
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _RebuildTensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``. Slots: a pickle cannot set attributes."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, strides, *unused):
        return _Tensor(storage, offset, shape, strides)


class _RebuildParameter:
    """Stands for ``torch._utils._rebuild_parameter``: the tensor itself."""

    __slots__ = ()

    def __call__(self, data, *unused):
        return data


_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_TYPES.items()},
}


# What forged or damaged zips and pickles raise while they are being interpreted.
_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError),
    *(RuntimeError, pickle.UnpicklingError),
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(
                f"it wants to build {module}.{name}, and only tensors are read, since anything "
                "else in such a file may run code; keep the tensors alone: in PyTorch, "
                "torch.save the state_dict()s of the networks"
            ) from None

    def persistent_load(self, pid):
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(size)) if size >= 0:
                return _Storage(key, np.dtype(dtype), size)
        raise ValueError(f"expected the record of a storage, got {pid!r:.80}; save it again")


def read(path: str | os.PathLike) -> Any:
    """What was saved, with numpy arrays instead of tensors.

    Args:
        path: Written by ``torch.save``.

    Returns:
        Nested dicts, lists and tuples as in the file. Arrays keep their type (bfloat16 as
        ``ml_dtypes.bfloat16``) and may be read-only and share memory as the tensors did.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such zip, is damaged, or holds more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).read()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: expected a file of torch.save (PyTorch 1.6 or newer), got none or a damaged "
            f"one ({error}); download it again, or load and save it with a current PyTorch"
        ) from error
    except _DAMAGE as error:
        raise ValueError(f"{path}: not read: {error}") from error


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether the zip ``path`` has the structure of ``torch.save``. False if it is no zip."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())


def _check_memo(program: bytes) -> None:
    """The unpickler allocates as many memo slots as the largest index, which can be 2**32."""
    for opcode, argument, _ in pickletools.genops(program):
        if "PUT" in opcode.name and int(argument) > len(program):
            raise ValueError(f"its pickle names memo {argument}, which no real one does")


class _Reader:
    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        names = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise ValueError(f"expected one data.pkl, got {len(names)}; save it again")
        self._prefix = names[0].removesuffix("data.pkl")
        self._storages = {}
        self._nodes = 0

    def read(self):
        if self._entry("byteorder", default=b"little") != b"little":
            raise ValueError("it was saved on a big-endian machine; save it on another")
        info = self._archive.getinfo(self._prefix + "data.pkl")
        if info.file_size > MAX_STRUCTURE_BYTES:
            raise ValueError(
                f"its structure has {info.file_size} bytes, at most {MAX_STRUCTURE_BYTES} are read"
            )
        program = self._archive.read(info)
        _check_memo(program)
        return self._arrays(_Unpickler(io.BytesIO(program)).load(), 0)

    def _entry(self, name, default=None):
        try:
            return self._archive.read(self._prefix + name)
        except KeyError:
            if default is not None:
                return default
            raise ValueError(f"{name} is missing; download it again") from None

    def _arrays(self, node, depth):
        """Replaces the records of tensors by arrays."""
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise ValueError("its structure is nested too deeply or too large for a checkpoint")
        if isinstance(node, _Tensor):
            return self._array(node)
        if isinstance(node, dict):
            return {key: self._arrays(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)([self._arrays(value, depth + 1) for value in node])
        return node

    def _array(self, tensor: _Tensor) -> np.ndarray:
        storage, offset, shape, strides = tensor
        sizes = (offset, *shape, *strides)
        counts = all(type(s) is int and s >= 0 for s in sizes) and len(shape) == len(strides)
        if not isinstance(storage, _Storage) or not counts:
            raise ValueError(f"expected a tensor's record, got {tensor!r:.120}; save it again")
        count = math.prod(shape)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        # More elements than the storage has would be a view that repeats them: a memory bomb.
        if count > storage.size or (count and end > storage.size):
            raise ValueError(f"a tensor of shape {shape} reaches beyond its {storage.size} numbers")
        numbers = self._numbers(storage)
        strides = [step * storage.dtype.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(
            numbers[offset:], shape, strides, subok=False, writeable=False
        )

    def _numbers(self, storage: _Storage) -> np.ndarray:
        if storage.key not in self._storages:
            self._storages[storage.key] = self._read_numbers(storage)
        numbers = self._storages[storage.key]
        if (numbers.dtype, numbers.size) != (storage.dtype, storage.size):
            raise ValueError(f"data/{storage.key} is used as two kinds of numbers; save it again")
        return numbers

    def _read_numbers(self, storage: _Storage) -> np.ndarray:
        name = f"{self._prefix}data/{storage.key}"
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise ValueError(f"data/{storage.key} is missing; download it again") from None
        expected = storage.size * storage.dtype.itemsize
        # torch.save never compresses; a compressed entry may unfold to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != expected:
            raise ValueError(
                f"data/{storage.key}: expected {expected} bytes, not compressed, got "
                f"{info.file_size}; download it again"
            )
        return np.frombuffer(self._archive.read(info), storage.dtype)
