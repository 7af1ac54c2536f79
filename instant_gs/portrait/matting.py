"""Separating a person from the background: the model knows heads over black only.

The network is MediaPipe's selfie segmentation (``asset/NOTICE.md``), a quarter of a megabyte, run
by the package that finds the landmarks, too; 12 ms a picture on one CPU core. It knows people, not
this one's hair: a photo with its own alpha or a ``--mask`` is better.
"""

import functools
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np

from instant_gs.metrics import mediapipe_runtime

NETWORK = Path(__file__).parent / "asset" / "selfie_segmentation.tflite"

#: A matte is not believed if it covers less than the first share of the face, or more than the
#: second share of the picture.
MIN_FACE, MAX_PICTURE = 0.8, 0.95

#: Coverage below it becomes 0: at the edge of a half-covered hair a light wall shines through, and
#: over black that rim is what one sees first.
RIM = 0.3


#: The network serves one picture at a time, whichever threads ask.
_ONE_AT_A_TIME = threading.Lock()


def matte(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, str]:
    """Estimates coverage; may be called from several threads.

    Args:
        image: (S, S, 3) uint8 aligned crop, the head upright.
        landmarks: (478, 2 or more) in the crop's pixels.

    Returns:
        (S, S) uint8 coverage: the person to whom the face belongs, all of the face included. And
        a warning or "": whether the result cannot be true.

    Raises:
        ImportError: MediaPipe is missing; says which command helps.
    """
    with _ONE_AT_A_TIME:
        coverage = _network().coverage(image)
    face = np.zeros(coverage.shape, np.uint8)
    hull = cv2.convexHull(landmarks[:, :2].astype(np.float32))[:, 0]
    cv2.fillPoly(face, [np.round(hull).astype(np.int32)], 1)
    face = face.astype(bool)
    warning = ""
    if (face.any() and coverage[face].mean() < MIN_FACE) or coverage.mean() > MAX_PICTURE:
        warning = (
            "the background could not be told from the person; give a photo with a transparent "
            "background or --mask"
        )
    coverage = np.clip((coverage - RIM) / (1 - RIM), 0, 1)
    coverage[face] = 1
    return np.round(255 * coverage * _together_with(face, coverage > 0)).astype(np.uint8), warning


def over_black(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 times (H, W) uint8 coverage."""
    return cv2.multiply(image, cv2.merge([alpha] * 3), scale=1 / 255)


def _together_with(face: np.ndarray, person: np.ndarray) -> np.ndarray:
    """The parts of ``person`` (S, S) bool that touch the face; all of it if there is no face."""
    _, parts = cv2.connectedComponents(person.astype(np.uint8))
    return np.isin(parts, np.unique(parts[face])) & person if face.any() else person


class _Segmenter:
    """The network; not thread-safe."""

    def __init__(self):
        with mediapipe_runtime.silenced():
            vision, base, _ = mediapipe_runtime.load()
            options = vision.ImageSegmenterOptions(
                base_options=base.BaseOptions(model_asset_path=str(NETWORK)),
                output_confidence_masks=True,
                output_category_mask=False,
            )
            self._segmenter = vision.ImageSegmenter.create_from_options(options)
            self.coverage(np.zeros((64, 64, 3), np.uint8))  # the first call logs, too
        weakref.finalize(self, mediapipe_runtime.close, self._segmenter)

    def coverage(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (H, W) float32 in [0, 1]."""
        found = self._segmenter.segment(mediapipe_runtime.image(np.ascontiguousarray(image)))
        return found.confidence_masks[0].numpy_view().reshape(image.shape[:2]).copy()


@functools.cache
def _network() -> _Segmenter:
    return _Segmenter()
