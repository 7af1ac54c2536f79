"""The authors' checkpoint, key by key: which tensor is which parameter of this model.

``checkpoint_keys_E.tsv`` (photo encoder and both decoders) and ``checkpoint_keys_M.tsv`` (motion
encoder) list every key with its shape, its place in our parameters and how it is transposed.
The stored values are kept as they are: gains are applied at run time, as in the release.
"""

import ast
import csv
import functools
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

ENCODER, MOTION_ENCODER = "E", "M"
_DROPPED = "(drop)"  # counters of batch norms, of no use once training is over
_TRANSPOSE = {"-": None, "T (1,0)": (1, 0), "OIHW->HWIO (2,3,1,0)": (2, 3, 1, 0)}


class Entry(NamedTuple):
    """One tensor of the checkpoint.

    Attributes:
        key: Its name there.
        shape: Its shape there.
        path: Its place in our parameters; empty if it is dropped.
        transpose: Permutation of its axes, or None.
    """

    key: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    transpose: tuple[int, ...] | None


@functools.cache
def entries(part: str) -> tuple[Entry, ...]:
    """All tensors of one network, in the order of the file.

    Args:
        part: ``ENCODER`` (126 entries) or ``MOTION_ENCODER`` (407).
    """
    file = pathlib.Path(__file__).with_name(f"checkpoint_keys_{part}.tsv")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return tuple(
        Entry(
            row["torch_key"],
            tuple(ast.literal_eval(row["shape"])),
            _path(part, row["flax_path"]),
            _TRANSPOSE[row["transpose"]],
        )
        for row in rows
    )


def _path(part: str, text: str) -> tuple[str, ...]:
    if text == _DROPPED:
        return ()
    path = tuple(text.split()[0].split("/"))  # a remark may follow
    # The motion encoder keeps its collections: params, batch_stats, constants.
    return path[1:] if part == ENCODER else path


def problems(part: str, state: dict) -> list[str]:
    """Everything wrong with a state dict: missing, unknown, misshapen, not floats or not finite.

    Entries that are dropped may be whole numbers, too.

    Args:
        part: ``ENCODER`` or ``MOTION_ENCODER``.
        state: Key to array.

    Returns:
        One line a problem; empty if ``to_params`` can take it.
    """
    expected = {entry.key: entry for entry in entries(part)}
    lines = [f"missing: {key}" for key in expected if key not in state]
    lines += [f"unknown: {key}" for key in state if key not in expected]
    for key, entry in expected.items():
        if key not in state:
            continue
        if not isinstance(state[key], np.ndarray | np.generic):
            lines.append(f"not an array: {key} is {type(state[key]).__name__}")
            continue
        shape, dtype = state[key].shape, state[key].dtype
        is_float = np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16
        is_counter = not entry.path and np.issubdtype(dtype, np.integer)
        if shape != entry.shape:
            lines.append(f"shape of {key}: expected {entry.shape}, got {shape}")
        elif not is_float and not is_counter:
            lines.append(f"type of {key}: expected floats, got {dtype}")
        elif entry.path and not np.isfinite(np.asarray(state[key], np.float32)).all():
            lines.append(f"not finite: {key}")
    return lines


def to_params(part: str, state: dict) -> dict:
    """The parameters of one network, float32.

    Args:
        part: ``ENCODER`` or ``MOTION_ENCODER``.
        state: Key to array, without ``problems``.

    Returns:
        ``{"backbone", "decoder", "motion_decoder"}``, or the motion encoder's variables.
    """
    tree = {}
    for entry in entries(part):
        if not entry.path:
            continue
        array = np.asarray(state[entry.key], np.float32)
        if entry.transpose:
            array = array.transpose(entry.transpose)
        group = tree
        for name in entry.path[:-1]:
            group = group.setdefault(name, {})
        group[entry.path[-1]] = np.ascontiguousarray(array)
    return tree
