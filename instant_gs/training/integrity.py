"""Checksums of what a checkpoint holds, so that a broken one is noticed and never trained on.

Orbax notices a file that is missing or cut off; bytes that changed on the disk it may read as
other numbers.
"""

import json
import zlib
from concurrent import futures

import jax
import numpy as np
from jax.experimental import multihost_utils

_THREADS = 8  # zlib lets them run beside each other


class BrokenError(ValueError):
    """Something read is not what was written; names which part."""


def checksum(item) -> dict[str, int | dict[str, int]]:
    """CRC-32 of an item: one for each array of a pytree, or one for JSON-able content.

    An array of which other hosts hold a part has one for each part, by its place ("0:8,0:3").
    All hosts call this together, and each gets the sums of all.
    """
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(item)):
        return {"json": zlib.crc32(json.dumps(item, sort_keys=True).encode())}
    whole, parts = {}, {}
    for name, leaf in _named(item):
        if _is_whole(leaf):
            whole[name] = leaf
            continue
        own = {_place(shard.index, leaf.shape): shard.data for shard in leaf.addressable_shards}
        places = leaf.sharding.devices_indices_map(leaf.shape).values()
        for place in sorted({_place(index, leaf.shape) for index in places}):
            parts[name, place] = own.get(place)
    sums = dict(zip(whole, _crcs(whole.values()), strict=True))
    for (name, place), value in zip(parts, _of_all_hosts(_crcs(parts.values())), strict=True):
        sums.setdefault(name, {})[place] = value
    return sums


def check(name: str, item, expected: dict[str, int | dict[str, int]]) -> None:
    """Compares an item with the checksum it was written with.

    Of an array in parts, this host compares those that it holds; not compared is an array that was
    written whole and is read in parts, or in parts and read in others.

    Raises:
        BrokenError: They differ.
    """
    if "json" in expected:
        pairs = {"json": (expected["json"], checksum(item)["json"])}
    else:
        wanted = {}
        for key, leaf in _named(item):
            sums = expected.get(key, {})
            if isinstance(sums, dict):
                wanted |= {(key, place): (_part(leaf, place), sums[place]) for place in sums}
            elif _is_whole(leaf):
                wanted[key, ""] = leaf, sums
        found = _crcs([array for array, _ in wanted.values()])
        pairs = {
            "".join(key): (value, crc)
            for (key, (_, value)), crc in zip(wanted.items(), found, strict=True)
            if crc is not None
        }
    wrong = sorted(key for key, (one, other) in pairs.items() if one != other)
    if wrong:
        raise BrokenError(f"{name}: {len(wrong)} parts changed after writing, first {wrong[0]}")


def agreed(problem: str) -> str:
    """What is wrong according to any host: all call it together, with "" if nothing is."""
    if jax.process_count() == 1:
        return problem
    anywhere = multihost_utils.process_allgather(np.uint32(bool(problem))).any()
    return problem or ("another host cannot read its part" if anywhere else "")


def _named(item):
    leaves = jax.tree_util.tree_leaves_with_path(item)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _is_whole(array: jax.Array) -> bool:
    return array.is_fully_addressable or array.is_fully_replicated


def _place(index: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """Such as "0:8,0:3"."""
    bounds = [part.indices(length) for part, length in zip(index, shape, strict=True)]
    return ",".join(f"{start}:{stop}" for start, stop, _ in bounds)


def _part(array: jax.Array, place: str):
    """The part at a place, or None if this host does not hold exactly that."""
    if _is_whole(array):
        bounds = [map(int, part.split(":")) for part in place.split(",")]
        return np.asarray(array)[tuple(slice(*pair) for pair in bounds)]
    shards = {_place(shard.index, array.shape): shard.data for shard in array.addressable_shards}
    return shards.get(place)


def _crcs(arrays) -> list[int | None]:
    with futures.ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(_crc, arrays))


def _crc(array) -> int | None:
    if array is None:
        return None
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _of_all_hosts(own: list[int | None]) -> list[int]:
    """The same list with the gaps filled from the hosts that know."""
    if not own:
        return []
    known = [value is not None for value in own]
    table = np.array([[value or 0 for value in own], known], np.uint32)
    values, known = np.moveaxis(multihost_utils.process_allgather(table), 1, 0)
    return [int(value) for value in values[known.argmax(0), np.arange(len(own))]]
