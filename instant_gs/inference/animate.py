"""The loop from driving faces to pictures: what ``python -m instant_gs.animate`` runs."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.inference import alignment

#: One swing of the orbiting camera to the left, to the right and back.
ORBIT_SECONDS = 4.0

#: Elevations near the poles have no "up".
MAX_PITCH_DEGREES = 80.0


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of the result.

    Attributes:
        image: (size, size, 3) uint8, the rendered avatar.
        driver: (S, S, 3) uint8, the driving face, aligned.
        gaussians: What was rendered, still on the device.
    """

    image: np.ndarray
    driver: np.ndarray
    gaussians: types.Gaussians


@dataclasses.dataclass
class Clock:
    """How fast the avatar itself is.

    Attributes:
        frames: Timed frames, the first (which compiles) left out.
        seconds: From the aligned driving image in memory to the picture in memory: motion code,
            animation, rendering and both transfers, one frame after the other. Neither
            compilation nor decoding, tracking, matting and writing of video.
        compile_seconds: What the first frame took.
    """

    frames: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames a second, 0 if nothing was timed."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def camera_path(
    count: int, *, yaw: float = 0.0, pitch: float = 0.0, orbit: float = 0.0, fps: float = 25.0
) -> Iterator[types.Camera]:
    """Reference cameras, one a frame; angles in degrees.

    Args:
        count: Frames.
        yaw: Positive moves the camera to the head's left side.
        pitch: Positive moves it up.
        orbit: How far it swings to either side of ``yaw``; 0 keeps it still.
        fps: Frames a second; one swing takes ``ORBIT_SECONDS``.

    Raises:
        ValueError: A pitch beyond ``MAX_PITCH_DEGREES``.
    """
    if not abs(pitch) <= MAX_PITCH_DEGREES:
        raise ValueError(
            f"pitch: expected within ±{MAX_PITCH_DEGREES:.0f} degrees, got {pitch}; lower it"
        )
    for index in range(count):
        swing = orbit * math.sin(2 * math.pi * index / (fps * ORBIT_SECONDS))
        yield camera_lib.orbit_camera(math.radians(yaw + swing), math.radians(pitch))


def frames(
    engine,
    source: np.ndarray,
    drivers: Iterable[np.ndarray],
    cameras: Iterable[types.Camera],
    *,
    size: int,
    clock: Clock | None = None,
) -> Iterator[Frame]:
    """Animates one photo.

    Args:
        engine: ``avatar.InstantAvatar`` or anything with its ``encode``, ``motion_code`` and
            ``frame``.
        source: (S, S, 3) uint8, aligned, over black.
        drivers: (S, S, 3) uint8, aligned, over black.
        cameras: At least as many as drivers.
        size: Side of the pictures in pixels.
        clock: Filled while the frames are made.

    Yields:
        Frame.
    """
    clock = clock if clock is not None else Clock()
    avatar = engine.encode(source)
    code_source = engine.motion_code(source)
    for index, (driver, camera) in enumerate(zip(drivers, cameras, strict=False)):
        start = time.perf_counter()
        image, gaussians = engine.frame(avatar, code_source, driver, camera, size)
        image = np.asarray(jax.device_get(image))
        elapsed = time.perf_counter() - start
        if index == 0:
            clock.compile_seconds = elapsed
        else:
            clock.frames, clock.seconds = clock.frames + 1, clock.seconds + elapsed
        yield Frame(image, driver, gaussians)


def side_by_side(source: np.ndarray, frame: Frame) -> np.ndarray:
    """Photo | driving face | avatar, (size, 3 * size, 3) uint8."""
    size = frame.image.shape[0]
    panels = (alignment.fit(picture, size) for picture in (source, frame.driver))
    return np.hstack([*panels, frame.image])
