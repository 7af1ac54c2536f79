"""The JSON files of a packed teacher pack: one index a shard, and the manifest over all.

Both carry the SHA-256 of their own content, so a changed digit is noticed, and the manifest holds
the hash of every index, which holds the hash of its shard.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from instant_gs import output
from instant_gs.data import digest, source
from instant_gs.data import format as pack_format
from instant_gs.data.error import PackError

_SELF = "content_sha256"


def shard_name(number: int) -> str:
    """Path of a shard inside its pack."""
    return f"{pack_format.SHARD_FOLDER}/{number:05d}{pack_format.SHARD_SUFFIX}"


def shard_number(name: str) -> int:
    """The number in a shard's path."""
    return int(PurePosixPath(name).name.removesuffix(pack_format.SHARD_SUFFIX))


def clip_entry(clip: source.Clip, first: int, track: str | None) -> dict[str, Any]:
    """How a clip stands in the index.

    Args:
      clip: the source clip.
      first: number of its first record in the shard; its frames follow in order.
      track: hash of its coefficients, None without.
    """
    return {
        "name": clip.name,
        "performance": clip.performance,
        "view": clip.view,
        "first": first,
        "frames": clip.frames,
        "camera": clip.cam2world is not None,
        "track": track,
    }


def write_index(out: Path, number: int, content: dict[str, Any]) -> dict[str, Any]:
    """Writes the index of a shard and gives it back; from here on the shard is finished."""
    content = {
        "format": pack_format.PACKED_FORMAT,
        "version": pack_format.PACKED_VERSION,
        **content,
    }
    _write(out / pack_format.INDEX_FOLDER / f"{number:05d}.json", content)
    return content


def load_index(path: Path) -> dict[str, Any]:
    """Reads and checks the index of a shard, or what a manifest has in common with one.

    Raises:
      PackError: missing, damaged, or of another format or version.
    """
    content = source.load_json(path)
    if content.get("format") == pack_format.SOURCE_FORMAT:
        raise PackError(f"{path}: this is a source pack; pack it with instant_gs.data.pack first")
    if content.get("format") != pack_format.PACKED_FORMAT:
        raise PackError(
            f"{path}: expected format {pack_format.PACKED_FORMAT!r}, got {content.get('format')!r}"
        )
    if content.get("version") != pack_format.PACKED_VERSION:
        raise PackError(
            f"{path}: version {content.get('version')!r}, this reader knows"
            f" {pack_format.PACKED_VERSION}; pack the source again"
        )
    expected = content.pop(_SELF, None)
    if expected != _hash(content):
        raise PackError(f"{path}: its content changed after packing; restore it or pack again")
    return content


def write_manifest(
    out: Path,
    source_manifest: dict[str, Any],
    common: dict[str, Any],
    shards: Sequence[dict[str, Any]],
) -> None:
    """Writes the manifest of a pack: from here on it is whole.

    Args:
      out: folder of the pack.
      source_manifest: content of the source pack's manifest.
      common: what all shards share (teacher, licence, fps, image_size).
      shards: their indices, sorted.
    """
    listed = []
    for shard in shards:
        name = f"{pack_format.INDEX_FOLDER}/{shard_number(shard['shard']):05d}.json"
        listed.append({"index": name, "sha256": digest.file_sha256(out / name)})
    content = {
        "format": pack_format.PACKED_FORMAT,
        "version": pack_format.PACKED_VERSION,
        "coefficient_names": source_manifest["coefficient_names"],
        "regions": source_manifest["regions"],
        **common,
        "records": sum(shard["records"] for shard in shards),
        "identities": sum(len(shard["identities"]) for shard in shards),
        "shards": listed,
    }
    _write(out / pack_format.MANIFEST_NAME, content)


def load_manifest(pack: Path) -> dict[str, Any]:
    """Reads and checks the manifest of a packed pack.

    Raises:
      PackError: the pack is missing, unfinished, damaged, or of another format or version.
    """
    path = pack / pack_format.MANIFEST_NAME
    if not pack.is_dir():
        raise PackError(f"{pack}: no such folder; give the folder of a packed teacher pack")
    if not path.exists() and (pack / pack_format.SHARD_FOLDER).is_dir():
        raise PackError(f"{pack}: packing did not finish; run instant_gs.data.pack with --resume")
    manifest = load_index(path)
    for key, expected in (
        ("coefficient_names", pack_format.COEFFICIENT_NAMES),
        ("regions", pack_format.REGIONS),
    ):
        if manifest.get(key) != list(expected):
            raise PackError(f"{path}: {key} are not this version's; pack the source again")
    return manifest


def _write(path: Path, content: dict[str, Any]) -> None:
    output.write_json(path, {**content, _SELF: _hash(content)})


def _hash(content: dict[str, Any]) -> str:
    return digest.bytes_sha256(json.dumps(content, sort_keys=True).encode())
