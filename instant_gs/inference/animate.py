"""The loop from driving faces to pictures: what ``python -m instant_gs.animate`` runs."""

import dataclasses
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from instant_gs import types
from instant_gs.inference import level_of_detail, one_euro, still_face
from instant_gs.portrait import alignment

#: Of a motion's largest number; a noise below it is that of the arithmetic.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of the result.

    Attributes:
        image: (size, size, 3) uint8, the rendered avatar.
        driver: (S, S, 3) uint8, the driving face, aligned, or the photo where there is none;
            None if a recording drives.
        motion: The driver's part of what was shown: record it (``motion_file``), replay it on
            another photo.
        gaussians: What was rendered, still on the device.
    """

    image: np.ndarray
    driver: np.ndarray | None
    motion: types.Motion
    gaussians: types.Gaussians


@dataclasses.dataclass
class Clock:
    """How fast the avatar itself is.

    Attributes:
        frames: Timed frames, without those of ``compile_seconds``.
        seconds: From the aligned driving image in memory to the picture in memory: motion code,
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
    source: np.ndarray,
    drivers: Iterable[np.ndarray | types.Motion | None],
    cameras: Iterable[types.Camera],
    *,
    size: int,
    fps: float,
    steady: bool = True,
    gaussians: int = 0,
    progress=iter,
    clock: Clock | None = None,
) -> Iterator[Frame]:
    """Animates one photo.

    Args:
        engine: ``avatar.InstantAvatar`` or anything with its ``encode``, ``motion_code``,
            ``motion``, ``fold``, ``read_motion`` and ``frame``.
        source: (S, S, 3) uint8, aligned, over black.
        drivers: (S, S, 3) uint8, aligned, over black; None, or a black one, where there is no
            face: the photo's own expression is shown. Or recorded Motions, which no filter touches.
        cameras: At least as many as drivers.
        size: Side of the pictures in pixels.
        fps: Frames a second.
        steady: Whether a One-Euro filter calms the motion; it starts with the first driving
            face, whose tremble it takes for noise (``still_face.motion_noise``).
        gaussians: How many to draw (``level_of_detail.prefix``); 0 draws all.
        progress: Of the pictures that sorting the Gaussians takes, as ``level_of_detail.order``'s.
        clock: Filled while the frames are made.

    Yields:
        Frame.

    Raises:
        ValueError: The avatar has fewer than ``gaussians``.
    """
    clock = clock if clock is not None else Clock()
    start = time.perf_counter()
    code_source = engine.motion_code(source)
    avatar = engine.encode(source, code_source)
    if gaussians:
        ordered = level_of_detail.order(engine, avatar, code_source, progress=progress)
        avatar = level_of_detail.prefix(ordered, gaussians)
    avatar, calm = jax.block_until_ready(engine.fold(avatar)), None
    photo = still_face.as_array(engine.motion(code_source, np.zeros_like(code_source)))
    clock.photo_seconds = time.perf_counter() - start
    for index, (driver, camera) in enumerate(zip(drivers, cameras, strict=False)):
        start, once = time.perf_counter(), index == 0
        if isinstance(driver, types.Motion):
            part, driver = still_face.as_array(driver), None
        else:
            shows_face = driver is not None and driver.any()
            driver = driver if shows_face else source
            read = still_face.as_array(engine.read_motion(code_source, driver))
            if calm is None and shows_face and steady:
                noise = _noise(engine, code_source, driver, source, read)
                calm, once = one_euro.OneEuro(fps, noise), True
            part = (read if calm is None else calm(read)) - photo
        shown = types.Motion(*(photo + part))
        image, gaussians = engine.frame(avatar, shown, camera, size)
        image = np.asarray(jax.device_get(image))
        elapsed = time.perf_counter() - start
        if once:
            clock.compile_seconds += elapsed
        else:
            clock.frames, clock.seconds = clock.frames + 1, clock.seconds + elapsed
        yield Frame(image, driver, types.Motion(*part), gaussians)


def _noise(engine, code_source, driver: np.ndarray, source: np.ndarray, read: np.ndarray) -> float:
    """How a driving face, read as ``read``, trembles; the photo, where the encoder sees no face."""
    noise = still_face.motion_noise(engine, code_source, driver)
    if noise > ROUNDING * np.abs(read).max():
        return noise
    return still_face.motion_noise(engine, code_source, source)


def side_by_side(source: np.ndarray, frame: Frame) -> np.ndarray:
    """Photo | driving face | avatar, (size, 3 * size, 3) uint8."""
    size = frame.image.shape[0]
    panels = (alignment.fit(picture, size) for picture in (source, frame.driver))
    return np.hstack([*panels, frame.image])
