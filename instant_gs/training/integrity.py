"""Checksums of what a checkpoint holds, so that a broken one is noticed and never trained on.

Orbax notices a file that is missing or cut off; bytes that changed on the disk it may read as
other numbers.
"""

import json
import zlib
from concurrent import futures

import jax
import numpy as np

_THREADS = 8  # zlib lets them run beside each other


class BrokenError(ValueError):
    """Something read is not what was written; names which part."""


def checksum(item) -> dict[str, int]:
    """CRC-32 of an item: one for each array of a pytree, or one for JSON-able content.

    Arrays of which other hosts hold a part are left out.
    """
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(item)):
        return {"json": zlib.crc32(json.dumps(item, sort_keys=True).encode())}
    arrays = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(item)
        if leaf.is_fully_addressable or leaf.is_fully_replicated
    }
    with futures.ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(arrays, threads.map(_crc, arrays.values()), strict=True))


def check(name: str, item, expected: dict[str, int]) -> None:
    """Compares an item with the checksum it was written with.

    Arrays that this or the writing process saw in part only are not compared.

    Raises:
        BrokenError: They differ.
    """
    found = checksum(item)
    wrong = sorted(key for key in expected.keys() & found if expected[key] != found[key])
    if wrong:
        raise BrokenError(f"{name}: {len(wrong)} parts changed after writing, first {wrong[0]}")


def _crc(array: jax.Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
