"""Whether two images show the same person: dlib's face embedding, which nothing was trained on.

The networks come with the package `face-recognition-models` 0.3.0 (CC0), the runtime is `dlib-bin`
20.0.1 (Boost licence). Only the 5-point landmark model is used: the 68-point one was trained on a
data set that excludes commercial use.
"""

import importlib.util
from pathlib import Path

import cv2
import numpy as np

from instant_gs.metrics import face

# The embedding looks at 150 pixels around a face; the detector wants 80.
DETECTION_SIDE = 384
# A box around MediaPipe's landmarks, from forehead to chin, is taller than dlib's detector would
# draw it; its upper edge is moved down by this share of the height.
FOREHEAD_SHARE = 0.15

_FILES = ("shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat")


class IdentityEmbedder:
    """Embeds faces so that distances tell people apart."""

    def __init__(self):
        """Loads the networks.

        Raises:
            ImportError: A package is missing; says which command helps.
        """
        try:
            import dlib
        except ImportError as error:
            raise ImportError(
                "dlib is missing; run `pip install dlib-bin==20.0.1`, or evaluate with "
                "--identity=false"
            ) from error
        landmarks, network = (str(path) for path in model_files())
        self._dlib = dlib
        self._detector = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(landmarks)
        self._network = dlib.face_recognition_model_v1(network)

    def embed(self, image, box=None) -> np.ndarray | None:
        """Embeds the largest face.

        Args:
            image: (H, W, 3) RGB; uint8, or float in [0, 1].
            box: (left, top, right, bottom) of the face in pixels, e.g. ``FaceObservation.box``,
                used if dlib's own detector finds nothing.

        Returns:
            (128,) float32, or None when no face is found.

        Raises:
            ValueError: Another shape.
        """
        image = face.to_uint8(image)
        scale = max(1.0, DETECTION_SIDE / min(image.shape[:2]))
        if scale > 1:
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        image = np.ascontiguousarray(image)
        found = self._detector(image, 0)
        if found:
            rectangle = max(found, key=lambda r: r.area())
        elif box is not None:
            left, top, right, bottom = (scale * value for value in box)
            top += FOREHEAD_SHARE * (bottom - top)
            rectangle = self._dlib.rectangle(*(round(v) for v in (left, top, right, bottom)))
        else:
            return None
        shape = self._landmarks(image, rectangle)
        return np.asarray(self._network.compute_face_descriptor(image, shape), np.float32)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Euclidean distance of two embeddings, about 0 to 1.2.

    Photos of real people show the same person below 0.6 (dlib's documentation: 99.38 % right on
    Labeled Faces in the Wild). Rendered heads differ less: at 96 pixels two pictures of one head of
    the procedural teacher are 0.24 apart (90 % below 0.43), of two heads 0.54 (90 % above 0.44).
    Compare distances there instead of using the threshold.
    """
    return float(np.linalg.norm(np.asarray(first) - np.asarray(second)))


def model_files() -> list[Path]:
    """Paths of the 5-point landmark model and the embedding network.

    Raises:
        ImportError: The package that carries them is not installed.
    """
    # find_spec does not run the package's code, which needs a pkg_resources of long ago.
    spec = importlib.util.find_spec("face_recognition_models")
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else None
    if folder is None or not all((folder / name).is_file() for name in _FILES):
        raise ImportError(
            "dlib's networks are missing; run `pip install --no-deps "
            "face-recognition-models==0.3.0`, or evaluate with --identity=false"
        )
    return [folder / name for name in _FILES]
