"""Region labels of an aligned face from its landmarks.

A landmark network knows where face, eyes, brows and mouth are, and nothing about hair, neck and
clothes: the person outside the face stays unlabelled (`format.REGION_UNKNOWN`).
"""

import cv2
import numpy as np

from instant_gs.data import format as pack_format

# Outlines in MediaPipe's mesh of 478 points, in order.
_FACE = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# The ring around the eye's rim: the lids are part of the region, also when they are closed.
_EYES = (
    (247, 30, 29, 27, 28, 56, 190, 243, 112, 26, 22, 23, 24, 110, 25, 130),
    (467, 260, 259, 257, 258, 286, 414, 463, 341, 256, 252, 253, 254, 339, 255, 359),
)
_BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)

#: Rims around eyes and lips, shares of the image's side: with them the regions overlap best with
#: those of the procedural teacher.
_EYE_RIM, _LIP_RIM = 0.016, 0.026

_SHIFT = 4  # bits below the pixel in OpenCV's polygons


def label(points: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Draws the regions.

    Args:
        points: (478, 2 or more) landmarks in pixels of the aligned image, centres at .5.
        alpha: (S, S) uint8 coverage.

    Returns:
        (S, S) uint8 labels of `format.REGIONS`; `format.REGION_UNKNOWN` where the person is and no
        landmark says what it is.
    """
    labels = np.where(alpha < 128, 0, pack_format.REGION_UNKNOWN).astype(np.uint8)
    _fill(labels, points[list(_FACE)], "skin")
    for outline in _BROWS:
        _fill(labels, points[list(outline)], "brows")
    for outline in _EYES:
        _fill(labels, points[list(outline)], "eyes", _EYE_RIM)
    _fill(labels, points[list(_LIPS)], "mouth", _LIP_RIM)
    return labels


def _fill(labels: np.ndarray, outline: np.ndarray, name: str, rim: float = 0.0) -> None:
    polygon, value = _whole(outline), pack_format.REGIONS.index(name)
    cv2.fillPoly(labels, [polygon], value, shift=_SHIFT)
    if rim:
        thickness = max(1, round(2 * rim * labels.shape[0]))
        cv2.polylines(labels, [polygon], True, value, thickness, shift=_SHIFT)


def _whole(outline: np.ndarray) -> np.ndarray:
    """Fixed-point pixels of OpenCV, whose pixel centres are whole numbers."""
    return np.round((outline[:, :2] - 0.5) * 2**_SHIFT).astype(np.int32)
