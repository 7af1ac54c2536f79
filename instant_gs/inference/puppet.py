"""One photo's avatar, moved and drawn one driving face after the other.

What a video (``animate``) and a camera (``live``) share: neither knows the frames to come.
"""

import dataclasses

import jax
import numpy as np

from instant_gs import types
from instant_gs.inference import level_of_detail, one_euro
from instant_gs.inference import reader as reader_lib
from instant_gs.models import folded
from instant_gs.portrait import alignment

#: Of a motion's largest number; a noise below it is that of the arithmetic.
ROUNDING = 1e-4
MAX_EXPRESSION = 10.0  # in place of 1.5, 150 may be meant as per cent


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
        overflow: ``avatar.Drawn.overflow``; above 0, Gaussians are missing in the picture.
    """

    image: np.ndarray
    driver: np.ndarray | None
    motion: types.Motion
    gaussians: types.Gaussians
    overflow: int


class Puppet:
    """An avatar that is shown with the expressions of the drivers it is called with.

    A One-Euro filter calms the motion, if wanted. It starts with the first driving face, and its
    unit is how such a face trembles (``reader.Reader.noise``).

    Attributes:
        reader: ``reader.Reader``, who reads photo and drivers.
    """

    def __init__(
        self,
        engine,
        source: np.ndarray | alignment.AlignedFace,
        *,
        size: int,
        fps: float,
        steady: bool = True,
        expression: float = 1.0,
        gaussians: int = 0,
        reader: str | None = None,
        progress=iter,
    ):
        """Makes the avatar.

        Args:
            engine: ``avatar.InstantAvatar`` or anything with its ``encode``, ``motion``, ``fold``,
                ``frame`` and what ``reader.Reader`` needs.
            source: The photo, aligned, over black: (S, S, 3) uint8, or with its coefficients;
                without them its drivers need none.
            size: Side of the pictures in pixels.
            fps: Frames a second, where a call does not say.
            steady: Whether to calm the motion.
            expression: Share of the way from the photo's expression to the driver's: 0 keeps the
                photo's, above 1 exaggerates.
            gaussians: How many to draw (``level_of_detail.prefix``); 0 draws all.
            reader: As for ``reader.Reader``.
            progress: Of the pictures that sorting takes, as ``level_of_detail.order``'s.

        Raises:
            ValueError: The avatar has fewer than ``gaussians``; ``expression`` is out of range; the
                weights do not go with ``reader``.
        """
        check_expression(expression)
        self._engine, self._source, self._size = engine, _face(source), size
        self._fps, self._steady, self._calm = fps, steady, None
        known = self._source.coefficients is not None
        self.reader = reader_lib.Reader(engine, reader, known=known)
        self._code = self.reader.code(self._source)
        avatar = engine.encode(self._source.image, self._code)
        if gaussians:
            ordered = level_of_detail.order(engine, avatar, self._code, progress=progress)
            avatar = level_of_detail.prefix(ordered, gaussians)
        self._avatar = jax.block_until_ready(engine.fold(avatar))
        own = engine.motion(self._code, np.zeros_like(self._code))
        self._own = reader_lib.as_array(own)  # the photo's part of every motion
        self._expression = float(expression)
        # The driver's part that shows the photo's own expression.
        still = reader_lib.as_array(engine.motion(self._code, self._code))
        self._still = types.Motion(*(still - self._own))

    @property
    def calibrated(self) -> bool:
        """Whether the filter has started, which takes longer than any other frame."""
        return self._calm is not None

    def __call__(
        self,
        driver: np.ndarray | alignment.AlignedFace | types.Motion | None,
        camera: types.Camera,
        seconds: float | None = None,
    ) -> Frame:
        """The next frame.

        Args:
            driver: (S, S, 3) uint8, aligned, over black, or with its coefficients; None, or a
                black one, where there is no face: the photo's own expression is shown. Or a
                recorded Motion, which no filter touches; ``expression`` does.
            camera: One.
            seconds: Since the frame before; None: one by ``fps``.
        """
        if isinstance(driver, types.Motion):
            part, seen = reader_lib.as_array(driver), None
        else:
            face = None if driver is None else _face(driver)
            shows_face = face is not None and self.reader.sees(face)
            face = face if shows_face else self._source
            part, seen = self._read(face, shows_face, seconds) - self._own, face.image
        moved = folded.blend(types.Motion(*part), self._still, 1 - self._expression)
        shown = types.Motion(*(self._own + reader_lib.as_array(moved)))
        drawn = self._engine.frame(self._avatar, shown, camera, self._size)
        image, overflow = jax.device_get((drawn.image, drawn.overflow))
        return Frame(np.array(image), seen, moved, drawn.gaussians, int(overflow))

    def _read(self, face, shows_face: bool, seconds: float | None) -> np.ndarray:
        read = reader_lib.as_array(self.reader.motion(self._code, face))
        if self._calm is None and shows_face and self._steady:
            self._calm = one_euro.OneEuro(self._fps, self._noise(face, read))
        return read if self._calm is None else self._calm(read, seconds)

    def _noise(self, face, read: np.ndarray) -> float:
        """How a driving face, read as ``read``, trembles; the photo, where none is seen in it."""
        noise = self.reader.noise(self._code, face)
        if noise > ROUNDING * np.abs(read).max():
            return noise
        return self.reader.noise(self._code, self._source)


def _face(given: np.ndarray | alignment.AlignedFace) -> alignment.AlignedFace:
    return given if isinstance(given, alignment.AlignedFace) else alignment.AlignedFace(given)


def check_expression(value: float) -> None:
    """Refuses a share of the way to the driver's expression that is none.

    Raises:
        ValueError: It is negative, too large, or no number.
    """
    if not 0 <= value <= MAX_EXPRESSION:
        raise ValueError(
            f"expression: expected 0 to {MAX_EXPRESSION:g}, got {value:g}; 1 is the driver's"
        )
