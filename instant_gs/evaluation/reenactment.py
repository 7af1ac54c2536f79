"""Runs a model on a test case."""

import dataclasses
from typing import Any, Protocol

import cv2
import numpy as np

from instant_gs import cli, rendering, types
from instant_gs.evaluation import protocol


class Animator(Protocol):
    """What an evaluation needs of a model; ``instant_gs.load`` returns one. Images are uint8."""

    @property
    def image_size(self) -> int:
        """Side of the images that it reads."""

    @property
    def fov_degrees(self) -> float:
        """What they show, ``config.model.fov_degrees``."""

    def motion_code(self, image: np.ndarray) -> Any:
        """(S, S, 3) aligned image to a motion code."""

    def encode(self, image: np.ndarray, code: Any) -> Any:
        """(S, S, 3) photo and its motion code to an avatar."""

    def animate(self, avatar: Any, code_source: Any, code_driving: Any) -> Any:
        """Gaussians with the driver's expression."""

    def rest(self, avatar: Any) -> Any:
        """Gaussians with the motion residual switched off."""

    def render(self, gaussians: Any, camera: types.Camera) -> Any:
        """Object with ``image`` (S, S, 3), about [0, 1], and ``overflow``, what was dropped."""

    def raster_options(self, size: int) -> Any:
        """Object with ``capacity``, asked for where something was dropped."""


@dataclasses.dataclass(frozen=True, eq=False)
class Enlarged:
    """A model that sees and draws pictures of another side than its own, at least as large.

    Attributes:
        animator: As ``instant_gs.load`` returns.
        image_size: Side of the pictures; those that go in are shrunk as a pack's are.

    Raises:
        UserError: The side is smaller than the model's.
    """

    animator: Any
    image_size: int

    def __post_init__(self):
        own, size = self.animator.image_size, self.image_size
        if size < own:
            raise cli.UserError(f"--size: expected at least the model's {own}, got {size}", 2)

    @property
    def fov_degrees(self) -> float:
        return self.animator.fov_degrees

    def motion_code(self, image):
        return self.animator.motion_code(self._shrunk(image))

    def encode(self, image, code):
        return self.animator.encode(self._shrunk(image), code)

    def animate(self, avatar, code_source, code_driving):
        return self.animator.animate(avatar, code_source, code_driving)

    def rest(self, avatar):
        return self.animator.rest(avatar)

    def render(self, gaussians, camera):
        return self.animator.render(gaussians, camera, self.image_size)

    def raster_options(self, size):
        return self.animator.raster_options(size)

    def _shrunk(self, image):
        return cv2.resize(image, (self.animator.image_size,) * 2, interpolation=cv2.INTER_AREA)


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What the model made of a case.

    Attributes:
        case: The case.
        moved: (S, S, 3) uint8: the result.
        rest: (S, S, 3) uint8: the same with the motion residual switched off, the avatar as the
            photo shows it: what a model scores that ignores the driver.
    """

    case: protocol.Case
    moved: np.ndarray
    rest: np.ndarray


def run(animator: Animator, case: protocol.Case) -> Outcome:
    """Animates a case's source by its driver, seen by its camera.

    Raises:
        FloatingPointError: A picture is not finite.
        UserError: Gaussians are missing in a picture: no score of it would mean anything.
    """
    avatar, moved = _animate(animator, case)
    return Outcome(
        case=case,
        moved=_picture(animator, moved, case.camera),
        rest=_picture(animator, animator.rest(avatar), case.camera),
    )


def turntable(
    animator: Animator, case: protocol.Case, cameras: list[types.Camera]
) -> list[np.ndarray]:
    """The animated head of a case seen by several cameras: (S, S, 3) uint8 each."""
    _, gaussians = _animate(animator, case)
    return [_picture(animator, gaussians, camera) for camera in cameras]


def _animate(animator: Animator, case: protocol.Case) -> tuple[Any, Any]:
    """The avatar and its Gaussians under the driver."""
    source, driver = (animator.motion_code(image) for image in (case.source, case.driver))
    avatar = animator.encode(case.source, source)
    return avatar, animator.animate(avatar, source, driver)


def _picture(animator: Animator, gaussians: Any, camera: types.Camera) -> np.ndarray:
    """Rendered to 8 bits: scored is what a viewer sees, not what the rasterizer knows."""
    drawn = animator.render(gaussians, camera)
    image = np.asarray(drawn.image)
    if not np.isfinite(image).all():
        raise FloatingPointError(
            "the model rendered values that are not finite; its weights are broken, use another "
            "checkpoint"
        )
    if np.any(drawn.overflow):
        capacity = animator.raster_options(animator.image_size).capacity
        raise cli.UserError(rendering.shortage(drawn.overflow, capacity))
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
