"""The box around a driving face, made steady without a look ahead.

``portrait.tracking`` smooths a video's box by the frames before and after; a camera has only those
before.
"""

import dataclasses
import math

import numpy as np

from instant_gs.inference import one_euro
from instant_gs.portrait import alignment

#: Standard deviation of a still head's box: 0.0027 and 0.0021 of its side along x and y, 0.0025 of
#: the side itself, 0.0019 radians of roll, measured like ``camera_path.POSE_NOISE_DEGREES``.
BOX_NOISE = 0.0023


class LiveBox:
    """Crops that follow a head, one call a frame."""

    def __init__(self, fps: float):
        """Args: frames a second, where a call does not say.

        Raises:
            ValueError: It is not positive.
        """
        self._place, self._side = (one_euro.OneEuro(fps, BOX_NOISE) for _ in range(2))
        self._unit = 0.0  # pixels: the first box's side

    def __call__(
        self, crop: alignment.Crop | None, seconds: float | None = None
    ) -> alignment.Crop | None:
        """The steady box of this frame.

        Args:
            crop: As detected (``alignment.locate``); None where there is no face.
            seconds: Since the frame before; None: one frame.

        Returns:
            The crop with place, side and roll calmed; None where there is no face.
        """
        if crop is None:  # the filters count the time
            self._place(np.full(3, math.nan), seconds)
            self._side(math.nan, seconds)
            return None
        self._unit = self._unit or crop.side
        place = np.array([crop.x / self._unit, crop.y / self._unit, crop.roll_rad])
        x, y, roll = self._place(place, seconds).tolist()
        side = math.exp(self._side(math.log(crop.side), seconds))
        x, y = x * self._unit, y * self._unit
        return dataclasses.replace(crop, x=x, y=y, side=side, roll_rad=roll)
