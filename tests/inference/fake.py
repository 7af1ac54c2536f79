"""Stand-ins with known answers: a painted head, its landmarks, a detector and a model."""

import dataclasses

import cv2
import numpy as np

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.inference import avatar as avatar_lib
from instant_gs.portrait import template

SIZE = 32  # of the fake model's images


@dataclasses.dataclass
class Face:
    """What the landmark detector answers."""

    landmarks: np.ndarray
    num_faces: int = 1
    coefficients: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(52, np.float32))


def landmarks(x: float, y: float, side: float, rotation=None) -> np.ndarray:
    """(478, 3) landmarks of a head whose wide crop is known: the template, and nothing else.

    Landmarks that the template does not hold repeat its first point, except the chin (152).
    """
    rotation = np.eye(3) if rotation is None else rotation
    points = np.tile(template.POINTS[:1], (478, 1))
    points[list(template.LANDMARKS)] = template.POINTS
    points[152] = [0.0, 0.24, -0.2]
    return points @ rotation.T * side + [x, y, 0]


def picture(height=200, width=260, x=130.0, y=90.0, side=120.0) -> np.ndarray:
    """(H, W, 3) uint8: a skin-coloured head with a blue body over a green wall.

    The ellipse is centred where the crop's centre is; a red dot marks that centre.
    """
    image = np.full((height, width, 3), (40, 140, 60), np.uint8)
    noise = np.random.default_rng(0).integers(-12, 12, image.shape)
    center = (round(x), round(y))
    bottom = (round(x + 0.4 * side), height)
    cv2.rectangle(image, (round(x - 0.4 * side), round(y + 0.4 * side)), bottom, (30, 40, 160), -1)
    axes = (round(0.26 * side), round(0.36 * side))
    cv2.ellipse(image, center, axes, 0, 0, 360, (220, 170, 140), -1)
    cv2.rectangle(
        image,
        (round(x - 0.08 * side), round(y + 0.2 * side)),
        (round(x + 0.08 * side), round(y + 0.45 * side)),
        (220, 170, 140),
        -1,
    )
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    cv2.circle(image, center, 2, (255, 0, 0), -1)
    return image


class Detector:
    """Answers from a list, one entry a picture; repeats the last.

    An entry is a Face, a list of them, or None for no face.

    Parts of a picture, which are searched when it shows no face, get ``elsewhere``.
    """

    def __init__(self, *answers, elsewhere=None):
        self.answers, self.elsewhere, self.calls, self.shape = answers, elsewhere, 0, None

    def faces(self, image: np.ndarray) -> list[Face]:
        assert image.dtype == np.uint8 and image.ndim == 3
        self.shape = self.shape or image.shape
        answer = self.elsewhere
        if image.shape == self.shape:
            answer = self.answers[min(self.calls, len(self.answers) - 1)]
            self.calls += 1
        if isinstance(answer, list):
            return [dataclasses.replace(face, num_faces=len(answer)) for face in answer]
        return [] if answer is None else [answer]


class Segmenter:
    """Takes for a person whatever ``picture`` paints other than its wall."""

    def coverage(self, image: np.ndarray):
        image = image.astype(np.float32)
        return (image[..., 1] < image[..., [0, 2]].max(-1)).astype(np.float32)


class Engine:
    """A model whose motion, and picture, is the driving image's mean colour.

    ``cameras`` are those that its frames were seen by.
    """

    image_size = SIZE
    config = config_lib.Config()

    def __init__(self, weight: float = 1.0):
        kernel = np.full((3, 2), weight)
        self.cameras = []
        self.params = {"motion_decoder": {"fc1": {"kernel": kernel}}, "motion_encoder": {}}

    @property
    def fov_degrees(self):
        return self.config.model.fov_degrees

    filter_width = 0.01

    def encode(self, image, code):
        assert code.shape == (4,)
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        return image

    def motion_code(self, image):
        assert image.shape == (SIZE, SIZE, 3)
        return np.zeros(4)

    def code_from_coefficients(self, coefficients):
        assert coefficients.shape == (52,)
        return np.zeros(4)

    def motion(self, code_source, code_driving):
        return types.Motion(*np.zeros((2, 3), np.float32))

    def read_motion(self, code_source, driver):
        assert driver.shape == (SIZE, SIZE, 3) and driver.dtype == np.uint8
        color = driver.mean((0, 1)).astype(np.float32)
        return types.Motion(color, np.zeros(3, np.float32))

    def fold(self, avatar):
        return avatar

    def frame(self, avatar, motion, camera, size):
        assert camera.cam2world.shape == (4, 4)
        self.cameras.append(camera)
        color = np.clip(np.round(motion.scale), 0, 255).astype(np.uint8)
        return avatar_lib.Drawn(np.broadcast_to(color, (size, size, 3)), gaussians(), np.int32(0))


def gaussians(count: int = 5) -> types.Gaussians:
    """Deterministic Gaussians; the first is invisible."""
    random = np.random.default_rng(1)
    quats = random.normal(size=(count, 4)).astype(np.float32)
    opacities = random.uniform(0.1, 1, count).astype(np.float32)
    opacities[0] = 0.5 / 255
    return types.Gaussians(
        means=random.normal(size=(count, 3)).astype(np.float32),
        quats=quats / np.linalg.norm(quats, axis=-1, keepdims=True),
        scales=random.uniform(0.001, 0.05, (count, 3)).astype(np.float32),
        opacities=opacities,
        colors=random.uniform(0, 1, (count, 3)).astype(np.float32),
    )
