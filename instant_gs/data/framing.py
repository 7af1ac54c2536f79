"""What a pack's pictures show, compared with what a model takes for granted.

A model crops the driving face, lays photos on a head and reads cameras for pictures of one view,
`config.model.fov_degrees`. Another one shows larger or smaller heads, on which it would train, or
be judged, wrongly without a sign. The format leaves cameras free, so each pack is asked.
"""

import contextlib
from collections.abc import Sequence

import numpy as np

from instant_gs import cli
from instant_gs.data.error import PackError
from instant_gs.data.reader import Pack
from instant_gs.geometry import camera as camera_lib

#: Share by which focal lengths may differ: as much as training varies the driving crop's side.
#: Between the wide and the first release's view lie 24 %.
TOLERANCE = 0.1

# Clips that are looked at, evenly over the pack: it may have millions of records.
_CLIPS = 16


def focal_length(pack: Pack) -> float | None:
    """How large a pack's pictures show the head.

    Args:
      pack: an open pack.

    Returns:
      The focal length, in image widths, of a camera at the reference distance that shows it as
      large: the (lower) median over the first frames of up to 16 clips. So a longer lens farther
      away is no other view, and single cameras that differ do not count. None if no camera is
      known, none has the head before it, or no such frame can be read (whoever needs one says so).
    """
    known = [clip for clip in pack.clips if clip.camera_known]
    chosen = [known[i * len(known) // _CLIPS] for i in range(_CLIPS)] if known else []
    focals = []
    for first in sorted({clip.first for clip in chosen}):
        with contextlib.suppress(PackError):
            item = pack.read(first)
            depth = -item.cam2world[:3, 2] @ item.cam2world[:3, 3]  # of the head, the origin
            if depth > 0:
                focals.append(np.diag(item.intrinsics)[:2].mean() * camera_lib.RADIUS / depth)
    return float(sorted(focals)[(len(focals) - 1) // 2]) if focals else None


def check(packs: Sequence[Pack], fov_degrees: float) -> None:
    """Refuses packs of another view than a model's.

    Args:
      packs: open packs.
      fov_degrees: the model's `config.model.fov_degrees`.

    Raises:
      UserError: names the first such pack and both views.
    """
    expected = camera_lib.focal_length(fov_degrees)
    for pack in packs:
        focal = focal_length(pack)
        if focal is not None and abs(focal / expected - 1) > TOLERANCE:
            view = camera_lib.fov_degrees(focal)
            raise cli.UserError(
                f"{pack.path}: its pictures show a view of {view:.5g} degrees (focal length"
                f" {focal:.4g} at {camera_lib.RADIUS} world units), the model's one of"
                f" {fov_degrees:.5g} ({expected:.4g}); give a pack of the model's view; a model"
                f" for this one trains with --config.model.fov_degrees={view:.5g}"
            )
