"""The loop from driving faces to pictures: what ``python -m instant_gs.animate`` runs."""

import dataclasses
import time
from collections.abc import Iterable, Iterator

import numpy as np

from instant_gs import types
from instant_gs.inference import puppet as puppet_lib
from instant_gs.portrait import alignment


@dataclasses.dataclass
class Clock:
    """How fast the avatar itself is.

    Attributes:
        frames: Timed frames, without those of ``compile_seconds``.
        seconds: From the driving face in memory, aligned, to the picture in memory: motion code,
            filter, animation, rendering and all transfers, one frame after the other. Neither
            compilation nor decoding, tracking, matting and writing of video.
        photo_seconds: What the avatar took: code, encoding, sorting where asked for, compiling.
        compile_seconds: What the first frame took, and the one that the filter is calibrated on.
    """

    frames: int = 0
    seconds: float = 0.0
    photo_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames a second, 0 if nothing was timed."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def speed(self) -> str:
        """The speed in words, by the unit in which it is a number above one."""
        if self.fps >= 1:
            return f"{self.fps:.1f} frames per second"
        return f"{self.seconds / self.frames:.1f} seconds a frame"


def frames(
    engine,
    source: np.ndarray | alignment.AlignedFace,
    drivers: Iterable[np.ndarray | alignment.AlignedFace | types.Motion | None],
    cameras: Iterable[types.Camera],
    *,
    size: int,
    fps: float,
    steady: bool = True,
    expression: float = 1.0,
    gaussians: int = 0,
    reader: str | None = None,
    progress=iter,
    clock: Clock | None = None,
) -> Iterator[puppet_lib.Frame]:
    """Animates one photo.

    Args:
        engine: As for ``puppet.Puppet``.
        source: As for ``puppet.Puppet``.
        drivers: As its calls take them.
        cameras: At least as many as drivers.
        size: Side of the pictures in pixels.
        fps: Frames a second.
        steady, expression, gaussians, reader, progress: As for ``puppet.Puppet``.
        clock: Filled while the frames are made.

    Yields:
        puppet.Frame.

    Raises:
        ValueError: As ``puppet.Puppet``.
    """
    clock = clock if clock is not None else Clock()
    start = time.perf_counter()
    puppet = puppet_lib.Puppet(
        engine,
        source,
        size=size,
        fps=fps,
        steady=steady,
        expression=expression,
        gaussians=gaussians,
        reader=reader,
        progress=progress,
    )
    clock.photo_seconds = time.perf_counter() - start
    for index, (driver, camera) in enumerate(zip(drivers, cameras, strict=False)):
        start, calibrated = time.perf_counter(), puppet.calibrated
        frame = puppet(driver, camera)
        elapsed = time.perf_counter() - start
        if index == 0 or puppet.calibrated != calibrated:
            clock.compile_seconds += elapsed
        else:
            clock.frames, clock.seconds = clock.frames + 1, clock.seconds + elapsed
        yield frame


def side_by_side(source: np.ndarray, frame: puppet_lib.Frame) -> np.ndarray:
    """Photo | driving face | avatar, (size, 3 * size, 3) uint8."""
    size = frame.image.shape[0]
    panels = (alignment.fit(picture, size) for picture in (source, frame.driver))
    return np.hstack([*panels, frame.image])
