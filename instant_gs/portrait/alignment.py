"""Where the head is in a picture: the square "wide" crop that the model's camera sees.

The model knows heads that stay at the world's origin, upright, seen by a camera at 2.7 units with
a 23.28 degree field of view. A crop must put a real head at the same place and size. FFHQ's recipe
takes the larger of the distance between the eyes and that from eyes to mouth, so that a turned
head keeps its size; the authors' own crop also looks behind the face for the centre, since the
middle of a turned head is not between its eyes. Both follow from one fit: a rigid template of
landmarks that expressions do not move, in units of the crop's side with the world's origin at
zero, laid over the detected landmarks by a similarity in 3D (Umeyama, "Least-squares estimation
of transformation parameters between two point patterns", 1991). Its translation is the crop's
centre, its scale the crop's side, its rotation the head's pose.
"""

import dataclasses
import math

import cv2
import numpy as np

from instant_gs.geometry import camera as camera_lib
from instant_gs.portrait import template


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedFace:
    """A face as the model sees it.

    Attributes:
        image: (S, S, 3) uint8, its wide crop; all black where there is no face.
        coefficients: (52,) float32 in [0, 1], order ``data.format.COEFFICIENT_NAMES``: the
            expression as the landmark network reads it in the whole picture; None if unknown.
    """

    image: np.ndarray
    coefficients: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square in a picture, turned with the head.

    Attributes:
        x: Centre in pixels, to the right; pixel centres are at .5.
        y: Centre in pixels, downwards.
        side: Length of a side in pixels.
        roll_rad: Lean of the head in the picture, clockwise; the crop turns it upright.
        yaw_rad: Turn of the head seen from the camera: positive looks to the picture's right.
        pitch_rad: Nod of the head: positive looks up.
    """

    x: float
    y: float
    side: float
    roll_rad: float = 0.0
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) affine map from picture pixels to those of a ``size`` x ``size`` crop."""
        scale = size / self.side
        cosine, sine = scale * math.cos(self.roll_rad), scale * math.sin(self.roll_rad)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        shift = size / 2 - turn @ [self.x, self.y]
        return np.concatenate([turn, shift[:, None]], axis=1)

    def viewpoint(self) -> tuple[float, float, float]:
        """The camera that sees an upright head at the world's origin as this picture shows it.

        Returns:
            Yaw, pitch and roll in radians, as ``geometry.camera.look_at`` takes them.
        """
        right = math.cos(self.pitch_rad) * math.sin(self.yaw_rad)  # where the face looks
        down = -math.sin(self.pitch_rad)
        near = math.cos(self.pitch_rad) * math.cos(self.yaw_rad)
        cosine, sine = math.cos(self.roll_rad), math.sin(self.roll_rad)
        right, down = cosine * right + sine * down, cosine * down - sine * right
        return -math.asin(max(-1.0, min(1.0, right))), math.atan2(down, near), -self.roll_rad

    def corners(self) -> np.ndarray:
        """(4, 2) corners in picture pixels, from the top left clockwise."""
        inverse = cv2.invertAffineTransform(self.matrix(1))
        unit = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], np.float64)
        return unit @ inverse.T


def locate(landmarks: np.ndarray, *, fov_degrees: float = camera_lib.FOV_WIDE_DEGREES) -> Crop:
    """The crop of a face that the model's camera sees.

    Args:
        landmarks: (478, 3) MediaPipe landmarks in pixels; z grows away from the camera, in
            pixels too.
        fov_degrees: The model's view; the template is of the wide one.

    Returns:
        Crop.

    Raises:
        ValueError: Another shape, or all landmarks on one spot.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (478, 3):
        raise ValueError(
            f"landmarks: expected shape (478, 3), got {landmarks.shape}; pass the landmarks of "
            "one MediaPipe face"
        )
    scale, rotation, shift = similarity(template.POINTS, landmarks[list(template.LANDMARKS)])
    view = camera_lib.focal_length() / camera_lib.focal_length(fov_degrees)
    up, forward = -rotation[:, 1], -rotation[:, 2]  # picture axes: y down, z away
    return Crop(
        x=float(shift[0]),
        y=float(shift[1]),
        side=float(scale) * view,
        roll_rad=math.atan2(up[0], -up[1]),
        yaw_rad=math.atan2(forward[0], -forward[2]),
        pitch_rad=math.asin(float(np.clip(-forward[1], -1, 1))),
    )


def warp(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Cuts a crop out of a picture; what lies outside the picture is black.

    Args:
        image: (H, W) or (H, W, C) uint8.
        crop: Where.
        size: Side of the result in pixels.

    Returns:
        (size, size) or (size, size, C) uint8, averaged when it shrinks.
    """
    # Bilinear sampling skips pixels when it shrinks, so sample densely and average.
    factor = max(1, math.ceil(crop.side / size))
    dense = cv2.warpAffine(
        image,
        _half_pixel(crop.matrix(size * factor)),
        (size * factor, size * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return fit(dense, size)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a square uint8 image (S, S, …) to side ``size``, averaging when it shrinks."""
    if image.shape[0] == size:
        return image
    shrinks = image.shape[0] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=method)


def to_crop(points: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Picture points (…, 2 or more) to pixels (…, 2) of the ``size`` x ``size`` crop."""
    matrix = crop.matrix(size)
    return points[..., :2] @ matrix[:, :2].T + matrix[:, 2]


def similarity(source: np.ndarray, target: np.ndarray):
    """The least-squares similarity between two point sets in 3D (Umeyama, 1991).

    Args:
        source: (K, 3).
        target: (K, 3).

    Returns:
        Scale, rotation (3, 3) and shift (3,): target ~ scale * rotation @ source + shift.

    Raises:
        ValueError: The targets lie on one spot or are not finite.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    source, target = source - source_mean, target - target_mean
    spread = float((source**2).sum())
    if not np.isfinite(target).all() or float((target**2).sum()) < 1e-9:
        raise ValueError("landmarks: expected a face's points, got one spot or non-finite values")
    left, values, right = np.linalg.svd(target.T @ source)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * sign) @ right
    scale = float((values * sign).sum()) / spread
    return scale, rotation, target_mean - scale * rotation @ source_mean


def _half_pixel(matrix: np.ndarray) -> np.ndarray:
    """From pixel centres at .5 (ours) to pixel centres at integers (OpenCV's)."""
    out = matrix.copy()
    out[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return out
