"""Packs a source teacher pack for training.

    python -m instant_gs.data.pack --source=DIR --out=DIR [--image_size=128] [--resume]

Broken clips are named with the reason, one a line, and the pack stays unfinished until they are
mended (run again with --resume) or left out (--skip_broken).
"""

import sys

from absl import flags

from instant_gs import cli
from instant_gs.data import packing, record

_SOURCE = flags.DEFINE_string("source", None, "Folder of the source pack.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder of the packed form.", required=True)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 128, "Side of the stored frames in pixels, at most the source's.", lower_bound=1
)
_WORKERS = flags.DEFINE_integer("workers", None, "Processes; all cores by default.", lower_bound=1)
_RESUME = flags.DEFINE_bool("resume", False, "Go on with --out: add what is missing.")
_SKIP_BROKEN = flags.DEFINE_bool("skip_broken", False, "Leave broken clips out and finish.")
_CODEC = flags.DEFINE_enum(
    "codec", "png", sorted(record.CODECS), "webp is a third smaller and 40 times slower to write."
)
_RECORDS = flags.DEFINE_integer(
    "records_per_shard", packing.RECORDS_PER_SHARD, "Frames a shard aims at.", lower_bound=1
)


def main(argv: list[str]) -> None:
    del argv
    options = packing.Options(
        image_size=_IMAGE_SIZE.value,
        codec=_CODEC.value,
        records_per_shard=_RECORDS.value,
        skip_broken=_SKIP_BROKEN.value,
    )
    summary = packing.pack(
        _SOURCE.value,
        _OUT.value,
        options,
        workers=_WORKERS.value,
        resume=_RESUME.value,
        progress=sys.stderr.isatty(),
    )
    for error in summary.broken:
        print(f"broken clip: {error}", file=sys.stderr)
    if summary.broken and not _SKIP_BROKEN.value:
        raise cli.UserError(
            f"{_SOURCE.value}: {len(summary.broken)} broken clips (named above, first:"
            f" {summary.broken[0]}); mend them and run again with --resume, or add --skip_broken"
        )
    if not summary.records:
        raise cli.UserError(f"{_SOURCE.value}: no clip could be packed")
    if summary.unfinished:
        names = ", ".join(summary.unfinished[:3])
        print(
            f"{len(summary.unfinished)} unfinished identities were left out (no identity.json):"
            f" {names}{' ...' if len(summary.unfinished) > 3 else ''}"
        )
    print(
        f"{_OUT.value}: {summary.records} frames of {summary.identities} identities"
        f" ({summary.new_records} new), {_IMAGE_SIZE.value}x{_IMAGE_SIZE.value}"
    )


if __name__ == "__main__":
    cli.run(main)
