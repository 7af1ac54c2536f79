"""Packs a source pack into ArrayRecord shards: parallel, resumable, nothing half-written.

A shard counts only once its index file exists, which is written after the shard; the pack counts
only once its manifest exists, which is written last. See docs/teacher_pack.md.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tqdm import tqdm

from instant_gs import output
from instant_gs.data import digest, packed_index, record, source, worker
from instant_gs.data import format as pack_format
from instant_gs.data.error import BrokenClipError, PackError

#: Records a shard aims at: small enough that a killed run loses seconds and two workers have work,
#: large enough (about 20 MB at 128x128) that shards stay few.
RECORDS_PER_SHARD = 1024

# One record a group lets a reader fetch exactly one; the records are compressed already.
_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class Options:
    """How to pack.

    Attributes:
      image_size: side of the stored frames, pixels; at most the source's.
      codec: "png" or "webp", see record.CODECS.
      records_per_shard: a shard is full once it has this many; identities are never divided.
      skip_broken: leave broken clips out and name them in the index, instead of failing.
    """

    image_size: int = 128
    codec: str = "png"
    records_per_shard: int = RECORDS_PER_SHARD
    skip_broken: bool = False

    def validate(self) -> None:
        """Raises ValueError for an impossible option."""
        for name in ("image_size", "records_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.codec not in record.CODECS:
            raise ValueError(f"codec: expected one of {sorted(record.CODECS)}, got {self.codec!r}")


@dataclass(frozen=True)
class Summary:
    """What a packing run did.

    Attributes:
      identities, records: in the whole pack.
      new_records: written by this run.
      unfinished: folders of the source without identity.json, left out.
      broken: clips (or identities) that could not be packed.
    """

    identities: int
    records: int
    new_records: int
    unfinished: list[str]
    broken: list[BrokenClipError]


@dataclass(frozen=True)
class _Task:
    """One shard to write."""

    out: Path
    number: int
    identities: list[source.Identity]
    source_size: tuple[int, int]
    options: Options
    common: dict[str, Any]


def pack(
    source_pack: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    workers: int | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Summary:
    """Packs every whole identity of a source pack.

    Args:
      source_pack: folder of the source form.
      out: folder of the packed form; must be new or empty unless `resume`.
      options: how to pack.
      workers: processes; as many as cores by default, 1 packs in this process.
      resume: keep finished shards of `out` and add the identities that are missing.
      progress: draw a progress bar on stderr.

    Returns:
      What was done. With broken clips and not `options.skip_broken`, the good identities are in
      finished shards but no manifest is written: mend the clips, then resume.

    Raises:
      PackError: source or out are not what they should be.
      ValueError: an impossible option.
    """
    source_pack, out, options = Path(source_pack), Path(out), options or Options()
    options.validate()
    manifest = source.load_manifest(source_pack)
    if options.image_size > min(manifest.image_size):
        raise PackError(
            f"{source_pack}: its frames are {manifest.image_size}, smaller than"
            f" image_size={options.image_size}; give at most image_size={manifest.image_size[0]}"
        )
    common = {
        **{key: manifest.content[key] for key in ("teacher", "licence", "fps")},
        "image_size": [options.image_size] * 2,
    }
    finished = _prepare_out(source_pack, out, common, resume)
    names, unfinished = source.list_identities(source_pack)
    if not names:
        raise PackError(f"{source_pack}: no identity has an identity.json; nothing to pack")
    identities, broken = _load_identities(source_pack, names)
    tasks = _plan(identities, finished, manifest.image_size, options, common, out)
    results, broken_clips = _run(tasks, workers, progress)
    broken += broken_clips
    shards = sorted([*finished, *results], key=lambda shard: shard["shard"])
    if (not broken or options.skip_broken) and shards:
        packed_index.write_manifest(out, manifest.content, common, shards)
    return Summary(
        identities=sum(len(shard["identities"]) for shard in shards),
        records=sum(shard["records"] for shard in shards),
        new_records=sum(shard["records"] for shard in results),
        unfinished=unfinished,
        broken=sorted(broken, key=str),
    )


def _prepare_out(
    source_pack: Path, out: Path, common: dict[str, Any], resume: bool
) -> list[dict[str, Any]]:
    """Makes the folders and gives the indices of the shards that are already finished."""
    places = out.resolve(), source_pack.resolve()
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        raise PackError(
            f"out: {out} is the source itself, in it or around it ({source_pack}); give another"
            " folder"
        )
    if out.exists() and not out.is_dir():
        raise PackError(f"out: {out} is a file; give a folder")
    if out.exists() and any(out.iterdir()) and not resume:
        raise PackError(f"out: {out} is not empty; resume it (--resume) or give another folder")
    for folder in (pack_format.SHARD_FOLDER, pack_format.INDEX_FOLDER):
        (out / folder).mkdir(parents=True, exist_ok=True)
        output.remove_partials(out / folder)
    finished = []
    for path in sorted((out / pack_format.INDEX_FOLDER).glob("*.json")):
        if not path.stem.isdigit():  # of another program: "._00000.json", "00000 copy.json"
            continue
        index = packed_index.load_index(path)
        for key, expected in common.items():
            if index.get(key) != expected:
                raise PackError(
                    f"{path}: was packed with {key} {index.get(key)}, now it is {expected};"
                    " pack into another folder"
                )
        shard = out / index["shard"]
        if shard.is_file() and shard.stat().st_size == index["bytes"]:
            finished.append(index)
        else:
            path.unlink()  # The shard is gone or cut: its identities are packed again.
    return finished


def _load_identities(
    source_pack: Path, names: Sequence[str]
) -> tuple[list[source.Identity], list[BrokenClipError]]:
    identities, broken = [], []
    for name in names:
        try:
            identities.append(source.load_identity(source_pack, name))
        except BrokenClipError as error:
            broken.append(error)
    return identities, broken


def _plan(
    identities: Sequence[source.Identity],
    finished: Sequence[dict[str, Any]],
    source_size: tuple[int, int],
    options: Options,
    common: dict[str, Any],
    out: Path,
) -> list[_Task]:
    """Groups what is not packed yet into shards with free numbers, the same way on every run."""
    packed = {
        entry["identity"]: (entry["source_sha256"], index["shard"])
        for index in finished
        for entry in index["identities"]
    }
    groups: list[list[source.Identity]] = []
    room = 0
    for identity in identities:
        if identity.name in packed:
            sha256, shard = packed[identity.name]
            if sha256 != identity.sha256:
                raise PackError(
                    f"{identity.name}: its identity.json changed since it was packed into"
                    f" {out / shard}; pack into another folder, or delete that shard and resume"
                )
            continue
        if room <= 0:
            groups.append([])
            room = options.records_per_shard
        groups[-1].append(identity)
        room -= sum(clip.frames for clip in identity.clips)
    taken = {packed_index.shard_number(index["shard"]) for index in finished}
    free = (number for number in range(len(taken) + len(groups)) if number not in taken)
    return [
        _Task(out, number, group, source_size, options, common)
        for number, group in zip(free, groups, strict=False)
    ]


def _run(
    tasks: Sequence[_Task], workers: int | None, progress: bool
) -> tuple[list[dict[str, Any]], list[BrokenClipError]]:
    workers = min(workers or os.cpu_count() or 1, max(len(tasks), 1))
    total = sum(clip.frames for task in tasks for one in task.identities for clip in one.clips)
    indices, broken = [], []
    with tqdm(total=total, unit="frame", desc="packing", disable=not progress) as bar:
        for index, errors in worker.results(_write_shard, tasks, workers):
            if index is not None:
                indices.append(index)
                bar.update(index["records"])
            broken += errors
    return indices, broken


class _NothingGoodError(Exception):
    """No identity of a shard could be packed: there is no shard."""


def _write_shard(task: _Task) -> tuple[dict[str, Any] | None, list[BrokenClipError]]:
    """Writes one shard and its index; gives the index (None if no identity was good)."""
    name = packed_index.shard_name(task.number)
    broken: list[BrokenClipError] = []
    try:
        with output.replacing(task.out / name) as partial:
            count, entries = _write_records(partial, task, broken)
            if not entries:
                raise _NothingGoodError
            written = {"bytes": partial.stat().st_size, "sha256": digest.file_sha256(partial)}
    except _NothingGoodError:
        return None, broken
    index = {"shard": name, "records": count, **written, **task.common, "identities": entries}
    return packed_index.write_index(task.out, task.number, index), broken


def _write_records(
    path: Path, task: _Task, broken: list[BrokenClipError]
) -> tuple[int, list[dict[str, Any]]]:
    """Writes the shard's records; gives their number and the identities' index entries."""
    writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    entries: list[dict[str, Any]] = []
    count = 0
    try:
        for identity in task.identities:
            # Encoded as a whole first: a broken identity leaves nothing in the shard.
            clips, records, errors = _encode_identity(identity, task, count)
            broken += errors
            if not clips or (errors and not task.options.skip_broken):
                continue
            for data in records:
                writer.write(data)
            count += len(records)
            entries.append(_describe_identity(identity, clips, errors))
    finally:
        writer.close()
    if count and ArrayRecordReader(str(path)).num_records() != count:
        raise PackError(f"{path}: the shard was not written whole; is the disk full?")
    return count, entries


def _describe_identity(
    identity: source.Identity, clips: list[dict[str, Any]], errors: list[BrokenClipError]
) -> dict[str, Any]:
    return {
        "identity": identity.name,
        "attributes": identity.attributes,
        "source_sha256": identity.sha256,
        "clips": clips,
        "skipped": {error.clip: error.reason for error in errors},
    }


def _encode_identity(
    identity: source.Identity, task: _Task, first: int
) -> tuple[list[dict[str, Any]], list[bytes], list[BrokenClipError]]:
    """Encodes the good clips of an identity; `first` is the number of their first record."""
    entries: list[dict[str, Any]] = []
    records: list[bytes] = []
    errors: list[BrokenClipError] = []
    for clip in identity.clips:
        worker.stop_if_asked()
        try:
            entry, encoded = _encode_clip(clip, task, first + len(records))
        except BrokenClipError as error:
            errors.append(error)
            continue
        entries.append(entry)
        records += encoded
    return entries, records, errors


def _encode_clip(clip: source.Clip, task: _Task, first: int) -> tuple[dict[str, Any], list[bytes]]:
    source.verify_hashes(clip)
    coefficients = source.load_coefficients(clip)
    size = (task.options.image_size,) * 2
    records = []
    for frame, images in enumerate(source.read_frames(clip, task.source_size)):
        image, alpha, regions = record.resize_images(*images, size)
        known = clip.cam2world is not None
        data = record.encode(
            identity=clip.identity,
            performance=clip.performance,
            view=clip.view,
            frame=frame,
            image=image,
            alpha=alpha,
            regions=regions,
            camera=(clip.cam2world[frame], clip.intrinsics) if known else None,
            coefficients=None if coefficients is None else coefficients[frame],
            codec=task.options.codec,
        )
        records.append(data)
    entry = packed_index.clip_entry(clip, first, _track(clip, coefficients))
    return entry, records


def _track(clip: source.Clip, coefficients: np.ndarray | None) -> str | None:
    """Tells whether two clips of one performance's name really perform the same.

    Estimates differ from face to face even then, so the name alone is believed.
    """
    if coefficients is None:
        return None
    if clip.coefficients_estimated:
        return pack_format.ESTIMATED_TRACK
    return digest.bytes_sha256(coefficients.tobytes())
