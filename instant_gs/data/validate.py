"""Checks every file of a teacher pack, source or packed form.

    python -m instant_gs.data.validate DIR

Prints one line for each problem and exits with 1 if there is any; otherwise prints what the pack
holds. Reads everything: hashes, then every frame.
"""

import collections
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from tqdm import tqdm

from instant_gs import cli
from instant_gs.data import digest, packed_index, reader, source
from instant_gs.data import format as pack_format
from instant_gs.data.error import PackError

_LIMIT = flags.DEFINE_integer("max_problems", 20, "Stop after so many problems.", lower_bound=1)


def source_problems(pack: str | Path) -> Iterator[str]:
    """Yields each problem of a source pack as one line."""
    try:
        manifest = source.load_manifest(pack)
    except PackError as error:
        yield str(error)
        return
    names, unfinished = source.list_identities(pack)
    for name in unfinished:
        yield f"{name}: unfinished, it has no {pack_format.IDENTITY_NAME}; render it again"
    if not names:
        yield f"{pack}: holds no identity"
    tracks: dict[tuple[str, int], tuple[str, bytes]] = {}
    for name in tqdm(names, unit="identity", disable=not sys.stderr.isatty()):
        try:
            identity = source.load_identity(pack, name)
        except PackError as error:
            yield str(error)
            continue
        for clip in identity.clips:
            try:
                yield from _clip_problems(clip, manifest.image_size, tracks)
            except PackError as error:
                yield str(error)


def _clip_problems(
    clip: source.Clip,
    image_size: tuple[int, int],
    tracks: dict[tuple[str, int], tuple[str, bytes]],
) -> Iterator[str]:
    source.verify_hashes(clip)
    coefficients = source.load_coefficients(clip)
    for _ in source.read_frames(clip, image_size):
        pass
    if coefficients is not None and not clip.coefficients_estimated:
        track = coefficients.tobytes()
        where = f"{clip.identity}/{clip.name}"
        first, expected = tracks.setdefault((clip.performance, clip.frames), (where, track))
        if track != expected:
            yield (
                f"{where}: performs {clip.performance} differently from {first}; one name must"
                " mean the same coefficients, rename one performance"
            )


def packed_problems(pack: str | Path) -> Iterator[str]:
    """Yields each problem of a packed pack as one line."""
    pack = Path(pack)
    try:
        opened = reader.Pack(pack)
    except PackError as error:
        yield str(error)
        return
    listed = {pack / entry["index"] for entry in opened.manifest["shards"]}
    listed |= {pack / packed_index.load_index(path)["shard"] for path in listed}
    for folder in (pack_format.INDEX_FOLDER, pack_format.SHARD_FOLDER):
        for path in sorted((pack / folder).iterdir()):
            if path not in listed:
                yield (
                    f"{path}: not in the manifest; remove it, or if packing was killed, pack with"
                    " --resume"
                )
    try:
        opened.verify_shards()
    except PackError as error:
        yield str(error)
    for index in tqdm(range(len(opened)), unit="frame", disable=not sys.stderr.isatty()):
        try:
            opened.read(index)
        except PackError as error:
            yield str(error)


def describe_source(pack: str | Path) -> str:
    """One line on what a source pack without problems holds."""
    names, _ = source.list_identities(pack)
    clips = [clip for name in names for clip in source.load_identity(pack, name).clips]
    return _describe(pack, "source", names, [(c.frames, c.cam2world is not None) for c in clips])


def describe_packed(pack: str | Path) -> str:
    """One line on what a packed pack without problems holds."""
    opened = reader.Pack(pack)
    clips = [(clip.frames, clip.camera_known) for clip in opened.clips]
    return _describe(pack, "packed", opened.identities(), clips)


def _describe(
    pack: str | Path, form: str, identities: list[str], clips: list[tuple[int, bool]]
) -> str:
    splits = collections.Counter(digest.split_of(name) for name in identities)
    parts = ", ".join(f"{splits[name]} {name}" for name in pack_format.SPLITS)
    unknown = sum(not known for _, known in clips)
    return (
        f"{pack}: whole ({form}): {len(identities)} identities ({parts}), {len(clips)} clips"
        f" ({unknown} without a camera), {sum(frames for frames, _ in clips)} frames"
    )


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise cli.UserError(f"give one pack's folder, got {len(argv) - 1} arguments", 2)
    pack = Path(argv[1])
    manifest = source.load_json(pack / pack_format.MANIFEST_NAME) if _is_source(pack) else {}
    is_source = manifest.get("format") == pack_format.SOURCE_FORMAT
    problems = source_problems(pack) if is_source else packed_problems(pack)
    found = 0
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
        found += 1
        if found == _LIMIT.value:
            break
    if found:
        more = " or more" if found == _LIMIT.value else ""
        raise cli.UserError(f"{pack}: {found}{more} problem{'s' if found > 1 else ''}, named above")
    print(describe_source(pack) if is_source else describe_packed(pack))


def _is_source(pack: Path) -> bool:
    """Whether to look into the manifest: an unfinished packed pack has shards and no manifest."""
    if not pack.is_dir():
        raise cli.UserError(f"{pack}: no such folder; give the folder of a teacher pack")
    return not (pack / pack_format.SHARD_FOLDER).is_dir()


if __name__ == "__main__":
    cli.run(main, positional=True)
