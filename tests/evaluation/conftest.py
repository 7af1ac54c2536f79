"""A packed pack of colour blobs, and a model that pastes pictures instead of animating heads."""

import dataclasses

import numpy as np
import pytest

from instant_gs.data import packing, reader, synthetic
from instant_gs.evaluation import evaluator, score
from instant_gs.geometry import camera as camera_lib
from instant_gs.metrics import face

SIZE = 32
OPTIONS = evaluator.Options(limit=5, identity=False, shown=2, worst=1, strips=1)


@dataclasses.dataclass
class Rendered:
    """What ``render`` returns."""

    image: np.ndarray
    overflow: int = 0


class PastingAnimator:
    """Shows the driver where a model would animate, and the source at rest."""

    image_size = SIZE
    fov_degrees = camera_lib.FOV_WIDE_DEGREES

    def motion_code(self, image):
        return image

    def encode(self, image, code):
        assert np.array_equal(code, image)
        return image

    def animate(self, avatar, code_source, code_driving):
        assert np.array_equal(avatar, code_source)
        return code_driving / np.float32(255)

    def rest(self, avatar):
        return avatar / np.float32(255)

    def render(self, gaussians, camera):
        assert camera.cam2world.shape == (4, 4)
        return Rendered(gaussians)


class BlobLandmarker:
    """Finds a face in every picture that is not black; the redder, the wider the mouth."""

    def __init__(self):
        self.blind = False

    def detect(self, image):
        if self.blind or not image.any():
            return None
        landmarks = np.zeros((478, 3), np.float32)
        landmarks[face.PUPILS[1]] = [8.0, 0, 0]
        landmarks[list(face.EXPRESSION_LANDMARKS), 1] = image.mean() / 16
        coefficients = np.full(52, image[..., 0].mean() / 255, np.float32)
        return face.FaceObservation(landmarks, coefficients, 1)


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    names = synthetic.names_in_split("test", 2)
    synthetic.write_pack(folder / "source", names, image_size=SIZE)
    packing.pack(folder / "source", folder / "packed", packing.Options(SIZE), workers=1)
    return reader.Pack(folder / "packed")


@pytest.fixture
def animator():
    return PastingAnimator()


@pytest.fixture
def landmarker():
    return BlobLandmarker()


@pytest.fixture(scope="session")
def image_scorer():
    return score.ImageScorer()


@pytest.fixture
def evaluation(animator, pack, landmarker, image_scorer):
    scorers = [image_scorer, score.FaceScorer(landmarker)]
    return evaluator.evaluate(animator, pack, OPTIONS, scorers, about={"weights": "<pasted>"})
