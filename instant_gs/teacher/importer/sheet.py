"""A picture of what is in a source pack: a row for each clip, with the regions' outlines."""

import itertools
from pathlib import Path

import cv2
import numpy as np

from instant_gs import output
from instant_gs.data import format as pack_format
from instant_gs.data import source
from instant_gs.portrait import photo

CLIPS, FRAMES = 12, 8
SIDE = 128  # of a frame on the sheet, pixels

_COLORS = {"skin": (255, 210, 60), "eyes": (60, 255, 90), "mouth": (255, 70, 70)}


def check(pack: str | Path, path: str | Path) -> None:
    """Refuses a path before hours of importing and not after.

    An existing file can be a picture of a pack that is being continued, and is replaced then.

    Args:
        pack: Folder of the source pack, which need not be there yet.
        path: Where the picture is going to be.

    Raises:
        cli.UserError: An ending that no picture has, or a file that is there before the pack.
    """
    photo.check_name(path)
    output.check_free(path, overwrite=Path(pack).exists(), option="--contact_sheet")


def write(pack: str | Path, path: str | Path) -> None:
    """Writes the first clips of a pack, `FRAMES` frames of each, spread over the clip.

    An existing file is replaced: it is a picture of the pack as it is now.

    Args:
        pack: Folder of the source pack.
        path: A .png, .jpg or .webp file.

    Raises:
        cli.UserError: Another ending.
        instant_gs.data.error.PackError: The pack is broken.
    """
    names, _ = source.list_identities(pack)
    size = source.load_manifest(pack).image_size
    clips = (clip for name in names for clip in source.load_identity(pack, name).clips)
    rows = [_row(clip, size) for clip in itertools.islice(clips, CLIPS)]
    photo.write(path, np.vstack(rows), overwrite=True)


def _row(clip: source.Clip, size: tuple[int, int]) -> np.ndarray:
    wanted = set(np.linspace(0, clip.frames - 1, FRAMES).round().astype(int).tolist())
    row = np.zeros((SIDE, FRAMES * SIDE, 3), np.uint8)
    column = 0
    for number, (image, _, regions) in enumerate(source.read_frames(clip, size)):
        if number in wanted:
            row[:, column : column + SIDE] = _outlined(image, regions)
            column += SIDE
    return row


def _outlined(image: np.ndarray, regions: np.ndarray | None) -> np.ndarray:
    shown = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if regions is None:
        return shown
    labels = cv2.resize(regions, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST_EXACT)
    for name, color in _COLORS.items():
        mask = (labels == pack_format.REGIONS.index(name)).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, lines, -1, color, 1)
    return shown
