"""Reads PyTorch's files without PyTorch, and without running anything that they contain.

A file of ``torch.save`` (since PyTorch 1.6) is a zip: ``data.pkl`` holds the structure as a
pickle, ``data/0``, ``data/1``, … the numbers. A pickle is a program; here it may name nothing
but the few things that describe tensors, and even these are inert records of our own.
"""

import collections
import io
import lzma
import math
import os
import pickle
import pickletools
import zipfile
import zlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAX_STRUCTURE_BYTES = 8 * 2**20  # of data.pkl; 533 tensors need 0.1 MB
MAX_NODES = 1_000_000  # entries of the nested structure: shared parts can be visited very often
MAX_DEPTH = 16
MAX_AXES = 64  # numpy's own limit
_MAX_ARGUMENTS = 16  # PyTorch's functions that rebuild tensors take up to 7
_MAX_BYTEORDER_BYTES = 16
_INT64 = 2**63

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


class _NewDict:
    """Stands for ``collections.OrderedDict``, which a program fills later, key by key."""

    __slots__ = ()

    def __call__(self):
        return collections.OrderedDict()


_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("collections", "OrderedDict"): _NewDict(),
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_TYPES.items()},
}


#: What forged or damaged zips, pickles and arrays raise while they are being interpreted, once the
#: file is open (OSError: places before its beginning).
DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError),
    *(RuntimeError, OSError, pickle.UnpicklingError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


# What torch.save writes, and plain values, in any protocol. The rest builds objects or sets, takes
# names from a cache that programs share, or reads from outside of the program.
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "PUT", "BINPUT"),
    *("LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT"),
    *("BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING"),
    *("BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2"),
    *("TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM"),
    *("SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
}


def _shown(text) -> str:
    """Text of a file, for a message of one line."""
    return str(text).encode("unicode_escape").decode()[:80]


class _Unpickler(pickle._Unpickler):
    """The one in Python, since what a program calls, fills and hashes must be seen before.

    A tuple that holds a tuple twice, and so on, is small as a program; to hash or to print it takes
    twice as long for every level.
    """

    def find_class(self, module, name):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(
                f"it wants to build {_shown(f'{module}.{name}')}, and only tensors are read, since "
                "anything else in such a file may run code; keep the tensors alone: in PyTorch, "
                "torch.save the state_dict()s of the networks"
            ) from None

    def persistent_load(self, pid):
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(size)) if size >= 0:
                return _Storage(key, np.dtype(dtype), size)
        raise ValueError(
            f"expected the record of a storage, got a {type(pid).__name__}; save it again"
        )

    def _fill(self, target, items):
        if not isinstance(target, dict):
            raise ValueError(f"it sets items of a {type(target).__name__}, not of a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            small = type(key) is int and -_INT64 <= key < _INT64
            if type(key) is not str and not small:
                raise ValueError(
                    "expected names or whole numbers as a dictionary's keys, got a "
                    f"{type(key).__name__}; leave it out"
                )
            if key in target:
                raise ValueError(f"{_shown(key)}: there twice in one dictionary; save it again")
            target[key] = value

    def _set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(self.stack[-1], [key, value])

    def _set_items(self):
        items = self.pop_mark()
        self._fill(self.stack[-1], items)

    def _new_dict(self):
        items, new = self.pop_mark(), {}
        self._fill(new, items)
        self.append(new)

    def _reduce(self):
        arguments, function = self.stack.pop(), self.stack[-1]
        known = isinstance(function, _RebuildTensor | _RebuildParameter | _NewDict)
        if not known or type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise ValueError("it calls what does not rebuild a tensor; save it again")
        self.stack[-1] = function(*arguments)

    def _build(self):
        """Drops attributes: PyTorch gives a state dict some that say which code wrote it."""
        self.stack.pop()
        if type(self.stack[-1]) is not collections.OrderedDict:
            raise ValueError(
                f"it sets attributes of a {type(self.stack[-1]).__name__}, and only tensors and "
                "plain values are read; leave it out"
            )

    dispatch = pickle._Unpickler.dispatch | {
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _new_dict,
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
    }


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
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _Reader(archive).read()
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(
                f"{path}: expected a file of torch.save (PyTorch 1.6 or newer), got none or a "
                f"damaged one ({error}); download it again, or load and save it with a current "
                "PyTorch"
            ) from error
        except DAMAGE as error:
            raise ValueError(f"{path}: not read: {error}") from error


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether the zip ``path`` has the structure of ``torch.save``. False if it is no whole zip.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        except DAMAGE:
            return False


def _check_opcodes(program: bytes) -> None:
    """Refuses opcodes that no tensor needs, and lengths beyond the program's end.

    The unpickler would allocate these lengths first; ``genops`` raises.
    """
    for opcode, _, _ in pickletools.genops(program):
        if opcode.name not in _OPCODES:
            raise ValueError(
                f"its pickle uses {opcode.name}, and only tensors and plain values are read, since "
                "anything else in such a file may run code; save the tensors alone"
            )


class _Reader:
    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        names = collections.Counter(archive.namelist())
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"{_shown(twice[0])}: there twice in the zip; download it again")
        programs = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(programs) != 1:
            raise ValueError(f"expected one data.pkl, got {len(programs)}; save it again")
        self._prefix = programs[0].removesuffix("data.pkl")
        self._storages = {}
        self._nodes = 0

    def read(self):
        if self._prefix + "byteorder" in self._archive.namelist():
            order = self._entry("byteorder", range(_MAX_BYTEORDER_BYTES + 1))
            if order != b"little":
                raise ValueError("it was saved on a big-endian machine; save it on another")
        program = self._entry("data.pkl", range(MAX_STRUCTURE_BYTES + 1))
        _check_opcodes(program)
        return self._arrays(_Unpickler(io.BytesIO(program)).load(), 0)

    def _entry(self, name, sizes: range) -> bytes:
        """The content of a file in the zip, of that many bytes."""
        try:
            info = self._archive.getinfo(self._prefix + name)
        except KeyError:
            raise ValueError(f"{_shown(name)} is missing; download it again") from None
        # torch.save never compresses; a compressed entry may unfold to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size not in sizes:
            lowest, highest = sizes[0], sizes[-1]
            wanted = f"{highest}" if lowest == highest else f"up to {highest}"
            raise ValueError(
                f"{_shown(name)}: expected {wanted} bytes, not compressed, got {info.file_size}; "
                "download it again"
            )
        return self._archive.read(info)

    def _arrays(self, node, depth):
        """Replaces the records of tensors by arrays."""
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise ValueError("its structure is nested too deeply or too large for a checkpoint")
        if isinstance(node, _Tensor):
            return self._array(node)
        if isinstance(node, _Storage | _StorageType):
            raise ValueError("it holds a storage outside of a tensor; save the tensors alone")
        if isinstance(node, dict):
            return {key: self._arrays(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)([self._arrays(value, depth + 1) for value in node])
        return node

    def _array(self, tensor: _Tensor) -> np.ndarray:
        storage, offset, shape, strides = tensor
        tuples = isinstance(storage, _Storage) and type(shape) is type(strides) is tuple
        axes = tuples and len(shape) == len(strides) <= MAX_AXES
        sizes = (offset, *shape, *strides) if axes else (None,)
        if not all(type(size) is int and 0 <= size < _INT64 for size in sizes):
            raise ValueError("expected a tensor's record, got other values; save it again")
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
            raise ValueError(
                f"data/{_shown(storage.key)} is used as two kinds of numbers; save it again"
            )
        return numbers

    def _read_numbers(self, storage: _Storage) -> np.ndarray:
        size = storage.size * storage.dtype.itemsize
        content = self._entry(f"data/{storage.key}", range(size, size + 1))
        return np.frombuffer(content, storage.dtype)
