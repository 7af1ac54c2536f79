"""From a user's photo to what the encoder reads: found, cut out, upright, over black."""

import dataclasses
import math
import os
from typing import Protocol

import cv2
import numpy as np

from instant_gs import cli
from instant_gs.inference import alignment, matting, photo

#: The crop is cut and matted at this size before it is reduced to the model's.
WORK_SIZE = 512

#: Beyond it one half of the face is hidden and the crop is a guess.
MAX_YAW_DEGREES = 50.0

#: A crop with fewer source pixels than this share of the model's side is blurred.
MIN_DETAIL = 0.5

#: Where the whole picture shows no face it is searched with a border of this share of its side,
PADDING = 0.5
#: then in squares of these shares of its longer side.
TILES = (0.5, 0.25)


class Detector(Protocol):
    """What is needed of ``instant_gs.metrics.face.FaceLandmarker``."""

    def detect(self, image: np.ndarray):
        """(H, W, 3) uint8 -> object with landmarks (478, 3) px and num_faces, or None."""


@dataclasses.dataclass(frozen=True)
class Source:
    """An aligned photo.

    Attributes:
        image: (S, S, 3) uint8 over black: the encoder's input.
        warnings: Sentences for the user.
        picture: The photo as read, or None if it came aligned.
        crop: What was taken of it, or None.
        cutout: (WORK_SIZE, WORK_SIZE, 4) uint8 RGBA crop with its matte, or None.
        landmarks: (478, 3) in the photo's pixels, or None.
    """

    image: np.ndarray
    warnings: tuple[str, ...] = ()
    picture: photo.Photo | None = None
    crop: alignment.Crop | None = None
    cutout: np.ndarray | None = None
    landmarks: np.ndarray | None = None


def align(
    path: str | os.PathLike,
    detector: Detector,
    size: int,
    mask: str | os.PathLike | None = None,
) -> Source:
    """Finds the largest face of a photo and cuts the model's wide crop around it.

    The matte is the mask, else the photo's alpha, else estimated (``matting``).

    Args:
        path: The photo.
        detector: Finds landmarks.
        size: Side of the result in pixels, ``InstantAvatar.image_size``.
        mask: Grey image of the photo's size, white where the person is.

    Returns:
        Source.

    Raises:
        FileNotFoundError: There is no such file.
        cli.UserError: Not a usable image, or no face in it.
    """
    picture = photo.read(path, mask)
    warnings = []
    # Under a transparent background may be anything; grey confuses no detector.
    found = find_face(detector, picture.over(127))
    if found is None:
        raise cli.UserError(
            f"{path}: no face found; give a photo that shows one face clearly, from the front"
        )
    landmarks = np.asarray(found.landmarks, np.float64)
    if found.num_faces > 1:
        warnings.append(f"{path}: {found.num_faces} faces found, the largest is taken")
    crop = alignment.locate(landmarks)
    if abs(math.degrees(crop.yaw_rad)) > MAX_YAW_DEGREES:
        warnings.append(
            f"{path}: the head is turned by {abs(math.degrees(crop.yaw_rad)):.0f} degrees; a "
            "photo from the front gives a better avatar"
        )
    if crop.side < MIN_DETAIL * size:
        warnings.append(
            f"{path}: the head is only {crop.side:.0f} pixels wide and the model reads {size}; "
            "a larger photo gives a sharper avatar"
        )
    image = alignment.warp(picture.over(0), crop, WORK_SIZE)
    if picture.alpha is not None:
        alpha = alignment.warp(picture.alpha, crop, WORK_SIZE)
        if alpha.max() == 0:
            raise cli.UserError(
                f"{mask or path}: the matte hides the face; it must be white where the person is"
            )
    else:
        alpha, warning = matting.matte(image, alignment.to_crop(landmarks, crop, WORK_SIZE))
        inside = alignment.warp(np.full(image_shape(picture), 255, np.uint8), crop, WORK_SIZE)
        alpha = np.minimum(alpha, inside)
        image = matting.over_black(image, alpha)
        if warning:
            warnings.append(f"{path}: {warning}")
    return Source(
        image=alignment.fit(image, size),
        warnings=tuple(warnings),
        picture=picture,
        crop=crop,
        cutout=np.dstack([image, alpha]),
        landmarks=landmarks,
    )


def read_aligned(path: str | os.PathLike, size: int) -> Source:
    """Reads a picture that is a wide crop already, such as a teacher's frame.

    Raises:
        FileNotFoundError: There is no such file.
        cli.UserError: Not an image, or not a square one.
    """
    image = photo.read(path).over(0)
    height, width = image.shape[:2]
    if height != width:
        raise cli.UserError(
            f"{path}: an aligned picture must be square, this is {width}x{height}; leave out "
            "--source_aligned for a photo that is not cut yet"
        )
    return Source(image=alignment.fit(image, size))


def read(path: str | os.PathLike, size: int, *, aligned: bool) -> Source:
    """``read_aligned`` for a wide crop, ``align`` with the packaged landmark network otherwise.

    Args:
        path: PNG, JPEG or WebP.
        size: Side of the result in pixels.
        aligned: Whether the picture is a wide crop already.

    Raises:
        As the function that it calls.
    """
    if aligned:
        return read_aligned(path, size)
    from instant_gs.metrics import face

    return align(path, face.FaceLandmarker(), size)


def find_face(
    detector: Detector,
    image: np.ndarray,
    *,
    near: alignment.Crop | None = None,
    thorough: bool = True,
):
    """Finds the largest face, also one that is small or fills the picture.

    MediaPipe's detector misses heads narrower than a fifth of the picture, and faces that touch
    its edges. So where the whole picture shows none, parts of it are searched.

    Args:
        detector: Finds landmarks.
        image: (H, W, 3) uint8.
        near: Where the face was a moment ago: searched second.
        thorough: Whether to search with a border and in overlapping tiles, too: up to
            60 detections, half a second, if there is no face.

    Returns:
        The detector's answer, landmarks in pixels of ``image``, or None.
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
    for level in levels:
        answers = [_find_in(detector, image, box) for box in level]
        answers = [answer for answer in answers if answer is not None]
        if answers:
            return max(answers, key=lambda answer: np.ptp(answer.landmarks[:, 1]))
    return None


def _tiles(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """Squares that overlap by half and cover the picture."""
    corners = [
        np.linspace(0, max(0, length - side), max(1, math.ceil(2 * length / side) - 1)).astype(int)
        for length in (height, width)
    ]
    return [(x, y, x + side, y + side) for y in corners[0].tolist() for x in corners[1].tolist()]


def _find_in(detector: Detector, image: np.ndarray, box: tuple[int, int, int, int]):
    """The detector's answer for a part of a picture; what lies outside of it is grey."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    part = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.size == 0:
        return None
    outside = (-top, bottom - height, -left, right - width)
    part = cv2.copyMakeBorder(
        part,
        *(max(0, length) for length in outside),
        cv2.BORDER_CONSTANT,
        value=(127, 127, 127),
    )
    found = detector.detect(part)
    if found is None:
        return None
    landmarks = np.asarray(found.landmarks, np.float64) + np.array([left, top, 0])
    return dataclasses.replace(found, landmarks=landmarks)


def image_shape(picture: photo.Photo) -> tuple[int, int]:
    """(height, width) of a photo."""
    return picture.image.shape[:2]


def explain(source: Source) -> np.ndarray:
    """A picture of what was taken: the photo with crop and landmarks | crop | over black.

    Returns:
        (WORK_SIZE, 3 * WORK_SIZE or less, 3) uint8; of an aligned source the image alone.
    """
    if source.crop is None:
        return alignment.fit(source.image, WORK_SIZE)
    picture = source.picture.over(127)
    height, width = picture.shape[:2]
    scale = WORK_SIZE / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    corners = np.round(source.crop.corners() * scale).astype(np.int32)
    cv2.polylines(shown, [corners], True, (255, 200, 0), 2, cv2.LINE_AA)
    for x, y in source.landmarks[:, :2] * scale:
        cv2.circle(shown, (round(x), round(y)), 1, (0, 255, 120), -1)
    shown = cv2.copyMakeBorder(
        shown, 0, WORK_SIZE - shown.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
    plain = alignment.warp(picture, source.crop, WORK_SIZE)
    return np.hstack([shown, plain, np.ascontiguousarray(source.cutout[..., :3])])
