"""Finding one face of a picture, also one that is small or touches the edge."""

import dataclasses
import math
from typing import Protocol

import cv2
import numpy as np

from instant_gs.portrait import alignment

#: Where the whole picture shows no face it is searched with a border of this share of its side,
PADDING = 0.5
#: then in squares of these shares of its longer side.
TILES = (0.5, 0.25)

#: A head moves less from frame to frame than this share of its wide crop's side; the next one in
#: the picture is farther, since no two heads are closer than they are wide.
SAME_HEAD = 0.5


class Detector(Protocol):
    """What is needed of ``instant_gs.metrics.face.FaceLandmarker``."""

    def faces(self, image: np.ndarray) -> list:
        """(H, W, 3) uint8 -> objects with landmarks (478, 3) px, coefficients (52,), num_faces."""


def find_face(
    detector: Detector,
    image: np.ndarray,
    *,
    near: alignment.Crop | None = None,
    thorough: bool = True,
):
    """Finds the largest face, or one seen before, also if it is small or fills the picture.

    MediaPipe's detector misses heads narrower than a fifth of the picture, and faces that touch
    its edges. So where the whole picture shows none, parts of it are searched.

    Args:
        detector: Finds landmarks.
        image: (H, W, 3) uint8.
        near: Its wide crop a moment ago: the nearest one is wanted, and where the whole
            picture does not show it there, this place is searched.
        thorough: Whether to search with a border and in overlapping tiles, too: up to
            60 detections, half a second, if there is no face.

    Returns:
        The detector's answer, landmarks in pixels of ``image``, with all faces counted; or None.
        With ``near`` it may be far from there (``is_same``): then no other was found.
    """
    height, width = image.shape[:2]
    levels = [[(0, 0, width, height)]]
    if near is not None:
        x, y, reach = round(near.x), round(near.y), max(1, round(near.side))
        levels.append([(x - reach, y - reach, x + reach, y + reach)])
    if thorough:
        border = round(PADDING * max(height, width))
        levels.append([(-border, -border, width + border, height + border)])
        levels += [_tiles(height, width, round(share * max(height, width))) for share in TILES]
    answers = []
    for index, level in enumerate(levels):
        answers += [answer for box in level for answer in _find_in(detector, image, box)]
        if not answers:
            continue
        face = _choose(answers, near)
        if index > 0 or near is None or is_same(face, near):
            return dataclasses.replace(face, num_faces=_count(answers))
    return None


def is_same(face, near: alignment.Crop) -> bool:
    """Whether a face is the one that was there a moment ago, judged by its place."""
    return _distance(face, near) < SAME_HEAD * near.side


def _choose(answers, near: alignment.Crop | None):
    if near is None:
        return max(answers, key=lambda answer: np.ptp(answer.landmarks[:, :2], axis=0).prod())
    return min(answers, key=lambda answer: _distance(answer, near))


def _distance(face, near: alignment.Crop) -> float:
    """Pixels between the middle of a head and that of a crop."""
    crop = alignment.locate(face.landmarks)
    return math.hypot(crop.x - near.x, crop.y - near.y)


def _count(answers) -> int:
    """How many faces the answers for parts of one picture show: at least so many."""
    places = []
    for answer in answers:
        points = answer.landmarks[:, :2]
        place, reach = points.mean(0), 0.5 * np.ptp(points[:, 1])
        if all(np.linalg.norm(place - other) > reach for other in places):
            places.append(place)
    return max(len(places), *(answer.num_faces for answer in answers))


def _tiles(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """Squares that overlap by half and cover the picture."""
    corners = [
        np.linspace(0, max(0, length - side), max(1, math.ceil(2 * length / side) - 1)).astype(int)
        for length in (height, width)
    ]
    return [(x, y, x + side, y + side) for y in corners[0].tolist() for x in corners[1].tolist()]


def _find_in(detector: Detector, image: np.ndarray, box: tuple[int, int, int, int]) -> list:
    """The detector's answers for a part of a picture; what lies outside of it is grey."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    part = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.size == 0:
        return []
    outside = (-top, bottom - height, -left, right - width)
    part = cv2.copyMakeBorder(
        part,
        *(max(0, length) for length in outside),
        cv2.BORDER_CONSTANT,
        value=(127, 127, 127),
    )
    corner = np.array([left, top, 0])
    return [
        dataclasses.replace(face, landmarks=np.asarray(face.landmarks, np.float64) + corner)
        for face in detector.faces(part)
    ]
