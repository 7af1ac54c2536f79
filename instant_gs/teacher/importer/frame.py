"""One frame of somebody's video to what a teacher pack holds of it, or the reason why not.

The head of a pack stays at the world's origin, upright, and the camera moves around it. So the head
pose that the landmarks show becomes the camera's position, the lean of the head is turned back
by the crop, and the crop's scale puts the head at the reference camera's distance.
"""

import dataclasses
import math

import cv2
import numpy as np

from instant_gs.geometry import camera
from instant_gs.portrait import alignment, matting
from instant_gs.teacher.importer import region

#: Beyond this turn one half of the face is hidden and landmarks are guesses.
MAX_YAW_DEGREES = 60.0
#: A crop with fewer pixels than this share of the pack's side would be blurred.
MIN_DETAIL = 0.5
#: The share of the crop that must lie inside the picture: tight framings (X-NeMo's) cut the
#: shoulders' ends off, which is fine.
MIN_INSIDE = 0.7
#: Above the shoulders a matte may reach this share of the left and of the right border: hair hardly
#: does, walls do.
MAX_BORDER = 0.12
_SHOULDERS = 0.6  # of the crop's height


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a pack holds of one frame.

    Attributes:
        image: (S, S, 3) uint8 RGB over black, the head upright.
        alpha: (S, S) uint8 coverage.
        regions: (S, S) uint8 labels.
        cam2world: (4, 4) float32, OpenCV axes; intrinsics are `camera.intrinsics()`.
        coefficients: (52,) float32 in [0, 1], the landmark network's estimate.
        crop: Where it was in the picture.
        warnings: Sentences on what is doubtful.
    """

    image: np.ndarray
    alpha: np.ndarray
    regions: np.ndarray
    cam2world: np.ndarray
    coefficients: np.ndarray
    crop: alignment.Crop
    warnings: tuple[str, ...]


class RefusedError(Exception):
    """A frame that cannot be used; the message is the reason."""


def take(picture: np.ndarray, found, size: int) -> Taken:
    """Makes one frame of a pack of a face in a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        found: Its landmarks and coefficients (`metrics.face.FaceObservation`), or None.
        size: S, side of the result in pixels.

    Raises:
        RefusedError: No face, or one that teaches nothing.
    """
    if found is None:
        raise RefusedError("no face, or another person's")
    crop = alignment.locate(found.landmarks)
    yaw, pitch, _ = crop.viewpoint()  # the crop turns the roll back
    _check(crop, yaw, size)
    inside = alignment.warp(np.full(picture.shape[:2], 255, np.uint8), crop, size)
    share = float(inside.mean()) / 255
    if share < MIN_INSIDE:
        raise RefusedError(
            f"only {share:.0%} of head and shoulders are inside the picture (at least"
            f" {MIN_INSIDE:.0%})"
        )
    image = alignment.warp(picture, crop, size)
    points = alignment.to_crop(np.asarray(found.landmarks, np.float64), crop, size)
    alpha, doubt = matting.matte(image, points)
    alpha = np.minimum(alpha, inside)
    if doubt or _border(alpha, inside) > MAX_BORDER:
        raise RefusedError("the background could not be told from the person")
    warnings = (f"{found.num_faces} faces, one is taken",) if found.num_faces > 1 else ()
    return Taken(
        image=matting.over_black(image, alpha),
        alpha=alpha,
        regions=region.label(points, alpha),
        cam2world=camera.look_at(yaw, pitch),
        coefficients=np.clip(np.asarray(found.coefficients, np.float32), 0, 1),
        crop=crop,
        warnings=warnings,
    )


def _check(crop: alignment.Crop, yaw: float, size: int) -> None:
    turned = abs(math.degrees(yaw))
    if turned > MAX_YAW_DEGREES:
        raise RefusedError(
            f"the head is turned by {turned:.0f} degrees (at most {MAX_YAW_DEGREES:.0f})"
        )
    if crop.side < MIN_DETAIL * size:
        raise RefusedError(
            f"head and shoulders are only {crop.side:.0f} pixels wide (at least"
            f" {MIN_DETAIL * size:.0f} for frames of {size})"
        )


def _border(alpha: np.ndarray, inside: np.ndarray) -> float:
    """Share of the left or the right border of what is shown, above the shoulders, that is covered.

    The larger one of both. The upper border does not count: hair may be high.
    """
    rows, half = round(_SHOULDERS * len(alpha)), len(alpha) // 2
    shown = np.pad((inside[:rows] > 127).astype(np.uint8), ((0, 0), (1, 1)))
    rim = (shown - cv2.erode(shown, np.ones((1, 5), np.uint8)))[:, 1:-1] > 0
    covered = alpha[:rows] > 127
    halves = (slice(None, half), slice(half, None))
    shares = [covered[:, part][rim[:, part]] for part in halves]
    return max(float(share.mean()) if share.size else 0.0 for share in shares)


def associated(taken: Taken) -> np.ndarray:
    """(S, S, 4) uint8 RGBA, the colours over black already, as packs store them."""
    return cv2.merge([*cv2.split(taken.image), taken.alpha])
