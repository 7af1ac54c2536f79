"""Renders a teacher pack: `python -m instant_gs.teacher.procedural --pack=DIR --identities=200`."""

import time

from absl import flags

from instant_gs import cli
from instant_gs.teacher.procedural import pack, sheet

_FLAGS = flags.FLAGS
_DEFAULT = pack.Settings()

flags.DEFINE_string("pack", None, "Folder of the teacher pack to write or to continue.")
flags.DEFINE_integer("identities", 8, "How many identities to render.", lower_bound=1)
flags.DEFINE_integer(
    "start", 0, "Index of the first identity; ranges that do not overlap never share a person.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_integer("seed", _DEFAULT.seed, "Pack seed: people and cameras (0 to 9999).")
flags.DEFINE_integer(
    "performance_seed", None, "Seed of the performances; the pack seed when not given."
)
flags.DEFINE_integer("bank", _DEFAULT.bank, "Performances of the pack (24 named, then mixtures).")
flags.DEFINE_integer("performances", _DEFAULT.performances, "Performances of every identity.")
flags.DEFINE_integer("frames", _DEFAULT.frames, "Frames of every performance.")
flags.DEFINE_integer("views", _DEFAULT.views, "Cameras of every performance; view 0 is frontal.")
flags.DEFINE_integer("image_size", _DEFAULT.image_size, "Side of the square frames in pixels.")
flags.DEFINE_float("max_yaw", _DEFAULT.max_yaw_degrees, "Largest azimuth in degrees (0 to 90).")
flags.DEFINE_bool("video", False, "Write RGB as mp4 instead of PNG.")
flags.DEFINE_integer("workers", 1, "Processes.", lower_bound=1)
flags.DEFINE_string("contact_sheet", None, "Write a picture of identities x expressions instead.")


def main(argv):
    """Renders a pack or a contact sheet."""
    del argv
    if _FLAGS.contact_sheet and _FLAGS.pack:
        raise cli.UserError(
            "--contact_sheet: draws a picture instead of a pack; leave out --pack, or run it twice",
            cli.EXIT_USAGE,
        )
    if _FLAGS.contact_sheet:
        sheet.write(
            _FLAGS.contact_sheet,
            seed=_FLAGS.seed,
            start=_FLAGS.start,
            identities=_FLAGS.identities,
            image_size=_FLAGS.image_size,
        )
        print(_FLAGS.contact_sheet)
        return
    if not _FLAGS.pack:
        raise cli.UserError(
            "--pack is missing; give the folder to write, or --contact_sheet=FILE.png",
            cli.EXIT_USAGE,
        )
    settings = pack.Settings(
        seed=_FLAGS.seed,
        performance_seed=(
            _FLAGS.seed if _FLAGS.performance_seed is None else _FLAGS.performance_seed
        ),
        bank=_FLAGS.bank,
        performances=_FLAGS.performances,
        frames=_FLAGS.frames,
        views=_FLAGS.views,
        image_size=_FLAGS.image_size,
        max_yaw_degrees=_FLAGS.max_yaw,
        video=_FLAGS.video,
    )
    began = time.monotonic()
    rendered, skipped = pack.write(
        _FLAGS.pack,
        settings,
        start=_FLAGS.start,
        identities=_FLAGS.identities,
        workers=_FLAGS.workers,
    )
    print(pack.summary_line(_FLAGS.pack, rendered, skipped, settings))
    print(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    cli.run(main)
