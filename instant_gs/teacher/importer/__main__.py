"""Imports another teacher's videos:

    python -m instant_gs.teacher.importer --videos=DIR --layout=folder --pack=DIR \
        --teacher=NAME --licence=LICENCE

docs/training.md says what becomes of them. Run the same command again to continue.
"""

import sys

from absl import flags

from instant_gs import cli
from instant_gs.teacher.importer import layout, pack, sheet

_FLAGS = flags.FLAGS

flags.DEFINE_string("videos", None, "Folder of the videos.")
flags.DEFINE_enum(
    "layout", "folder", layout.LAYOUTS,
    "folder: IDENTITY/*.mp4 or IDENTITY.mp4; xnemo: split_vid/SOURCE_drivenby_DRIVER.mp4.",
)  # fmt: skip
flags.DEFINE_string("pack", None, "Folder of the teacher pack to write or to continue.")
flags.DEFINE_string("teacher", None, "Name of whatever made the videos; goes into the manifest.")
flags.DEFINE_string(
    "licence", None, "What others may do with the frames: an SPDX name, a sentence."
)
flags.DEFINE_integer("image_size", 256, "Side of the square frames in pixels.")
flags.DEFINE_integer("every", 1, "Take every so many frames of a video.", lower_bound=1)
flags.DEFINE_integer("workers", 1, "Processes.", lower_bound=1)
flags.DEFINE_string(
    "contact_sheet", None,
    "Write a picture of what was imported, too; one that is there is replaced if the pack is, too.",
)  # fmt: skip


def main(argv: list[str]) -> None:
    """Imports and says what came of it."""
    del argv
    missing = [
        f"--{name}" for name in ("videos", "pack", "teacher", "licence") if not _FLAGS[name].value
    ]
    if missing:
        raise cli.UserError(
            f"{', '.join(missing)}: missing; the manifest must say who made the videos and what"
            " others may do with them (--help)",
            2,
        )
    if _FLAGS.contact_sheet:
        sheet.check(_FLAGS.pack, _FLAGS.contact_sheet)
    settings = pack.Settings(
        teacher=_FLAGS.teacher,
        licence=_FLAGS.licence,
        layout=_FLAGS.layout,
        image_size=_FLAGS.image_size,
        every=_FLAGS.every,
    )
    summary = pack.write(
        _FLAGS.pack,
        _FLAGS.videos,
        settings,
        workers=_FLAGS.workers,
        progress=sys.stderr.isatty(),
    )
    print("\n".join(pack.lines(_FLAGS.pack, summary)))
    if not summary.frames:
        raise cli.UserError(
            f"--videos: {_FLAGS.videos} gave no usable frame; {summary.report} says why"
        )
    if _FLAGS.contact_sheet:
        sheet.write(_FLAGS.pack, _FLAGS.contact_sheet)
        print(_FLAGS.contact_sheet)


if __name__ == "__main__":
    cli.run(main)
