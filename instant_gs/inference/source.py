"""From a user's photo to what the encoder reads: found, cut out, upright, over black."""

import dataclasses
import math
import os

import cv2
import numpy as np

from instant_gs import cli
from instant_gs.geometry import camera as camera_lib
from instant_gs.portrait import alignment, detection, matting, photo

#: The crop is cut and matted at this size before it is reduced to the model's.
WORK_SIZE = 512

#: Beyond it one half of the face is hidden and the crop is a guess.
MAX_YAW_DEGREES = 50.0

#: A crop with fewer source pixels than this share of the model's side is blurred.
MIN_DETAIL = 0.5


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
        coefficients: (52,) float32 in [0, 1], order ``data.format.COEFFICIENT_NAMES``: the
            expression as the landmark network reads it, or None.
    """

    image: np.ndarray
    warnings: tuple[str, ...] = ()
    picture: photo.Photo | None = None
    crop: alignment.Crop | None = None
    cutout: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    coefficients: np.ndarray | None = None

    @property
    def face(self) -> alignment.AlignedFace:
        """What an avatar is made of."""
        return alignment.AlignedFace(self.image, self.coefficients)


def align(
    path: str | os.PathLike | np.ndarray,
    detector: detection.Detector,
    size: int,
    mask: str | os.PathLike | None = None,
    *,
    fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
) -> Source:
    """Finds the largest face of a photo and cuts the model's wide crop around it.

    The matte is the mask, else the photo's alpha, else estimated (``matting``).

    Args:
        path: The photo, or its pixels, (H, W, 3) uint8 RGB.
        detector: Finds landmarks.
        size: Side of the result in pixels, ``InstantAvatar.image_size``.
        mask: Grey image of the photo's size, white where the person is.
        fov_degrees: The model's view, ``config.model.fov_degrees``: what the result shows.

    Returns:
        Source.

    Raises:
        TypeError, ValueError: Neither a path nor such an array.
        FileNotFoundError: There is no such file.
        cli.UserError: Not a usable image, or no face in it.
    """
    picture, name = photo.read(path, mask), photo.name_of(path)
    warnings = []
    # Under a transparent background may be anything; grey confuses no detector.
    found = detection.find_face(detector, picture.over(127))
    if found is None:
        raise cli.UserError(
            f"{name}: no face found; give a photo that shows one face clearly, from the front"
        )
    landmarks = np.asarray(found.landmarks, np.float64)
    if found.num_faces > 1:
        warnings.append(f"{name}: {found.num_faces} faces found, the largest is taken")
    crop = alignment.locate(landmarks, fov_degrees=fov_degrees)
    if abs(math.degrees(crop.yaw_rad)) > MAX_YAW_DEGREES:
        warnings.append(
            f"{name}: the head is turned by {abs(math.degrees(crop.yaw_rad)):.0f} degrees; a "
            "photo from the front gives a better avatar"
        )
    if crop.side < MIN_DETAIL * size:
        warnings.append(
            f"{name}: the head is only {crop.side:.0f} pixels wide and the model reads {size}; "
            "a larger photo gives a sharper avatar"
        )
    image = alignment.warp(picture.over(0), crop, WORK_SIZE)
    if picture.alpha is not None:
        alpha = alignment.warp(picture.alpha, crop, WORK_SIZE)
        if alpha.max() == 0:
            raise cli.UserError(
                f"{mask or name}: the matte hides the face; it must be white where the person is"
            )
    else:
        alpha, warning = matting.matte(image, alignment.to_crop(landmarks, crop, WORK_SIZE))
        inside = alignment.warp(np.full(picture.image.shape[:2], 255, np.uint8), crop, WORK_SIZE)
        alpha = np.minimum(alpha, inside)
        image = matting.over_black(image, alpha)
        if warning:
            warnings.append(f"{name}: {warning}")
    return Source(
        image=alignment.fit(image, size),
        warnings=tuple(warnings),
        picture=picture,
        crop=crop,
        cutout=np.dstack([image, alpha]),
        landmarks=landmarks,
        coefficients=found.coefficients,
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


def read(
    path: str | os.PathLike,
    size: int,
    *,
    aligned: bool,
    fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
) -> Source:
    """``read_aligned`` for a wide crop, ``align`` with the packaged landmark network otherwise.

    Args:
        path: PNG, JPEG or WebP.
        size: Side of the result in pixels.
        aligned: Whether the picture is a wide crop already.
        fov_degrees: As for ``align``.

    Raises:
        As the function that it calls.
    """
    if aligned:
        return read_aligned(path, size)
    from instant_gs.metrics import face

    return align(path, face.FaceLandmarker(), size, fov_degrees=fov_degrees)


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
