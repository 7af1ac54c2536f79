"""The One-Euro filter: steady when still, prompt when something moves.

Casiez, Roussel and Vogel, "1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012: an exponential filter whose cutoff frequency rises with the speed.
Here a vector is one signal: its components share one cutoff, so that a motion keeps its direction,
and speeds are counted in multiples of the noise, so that the constants below serve any unit. It
looks at no future frame: it serves a live camera as it serves a file.
"""

import math

import numpy as np

#: Hz, of a signal that rests: noise that is new in each of 25 frames a second shrinks to 0.4.
MIN_CUTOFF = 1.0

#: Hz a (noise deviation a second). White noise alone moves a smoothed signal by 5 deviations a
#: second (at 25 frames a second): half a hertz. A step of 20 deviations opens the filter to 11 Hz.
BETA = 0.1

#: Hz, of the speed itself; the authors' constant.
SPEED_CUTOFF = 1.0


class OneEuro:
    """Filters a stream of vectors, one call a frame; a value that is not finite is left out.

    Attributes:
        fps: Frames a second.
        noise: Standard deviation of one component while nothing moves, in the signal's unit; 0
            lets everything pass.
    """

    def __init__(self, fps: float, noise: float):
        """Starts at rest: the first value passes as it is.

        Args:
            fps: Frames a second.
            noise: See the class.

        Raises:
            ValueError: A frame rate that is not positive, or a noise that is negative.
        """
        if not (fps > 0 and noise >= 0 and math.isfinite(fps) and math.isfinite(noise)):
            raise ValueError(
                f"fps, noise: expected fps > 0 and noise >= 0, got {fps} and {noise}; measure the "
                "noise of the signal at rest"
            )
        self.fps, self.noise = fps, noise
        self._value = self._before = self._speed = None
        self._waited = 0.0  # seconds since the last value that was taken

    def __call__(self, value, seconds: float | None = None) -> np.ndarray:
        """The filtered value of this frame.

        Args:
            value: Array of any shape, the same in all calls. One that is not finite all over is
                not taken: the last result is repeated, and the next value counts as that much
                later.
            seconds: Since the call before, for frames that come unevenly; None: one frame.

        Returns:
            Array of that shape; ``value`` itself as long as none was finite.

        Raises:
            ValueError: ``seconds`` is not positive.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(
                f"seconds: expected more than 0, got {seconds}; give the time since the call before"
            )
        value = np.asarray(value)
        self._waited += 1 / self.fps if seconds is None else seconds
        if not np.isfinite(value).all():
            return value if self._value is None else self._value
        rate, self._waited = 1 / self._waited, 0.0
        if self._value is None or self.noise == 0:
            self._value, self._before, self._speed = value, value, np.zeros_like(value)
            return value
        speed = (value - self._before) * rate
        self._speed = _mixed(self._speed, speed, _weight(SPEED_CUTOFF, rate))
        relative = float(np.sqrt(np.mean(np.square(self._speed)))) / self.noise
        weight = _weight(MIN_CUTOFF + BETA * relative, rate)
        self._value, self._before = _mixed(self._value, value, weight), value
        return self._value


def _weight(cutoff: float, fps: float) -> float:
    """Share of the newest value in an exponential filter of this cutoff frequency in Hz."""
    return 1.0 / (1.0 + fps / (2.0 * math.pi * cutoff))


def _mixed(old: np.ndarray, new: np.ndarray, weight: float) -> np.ndarray:
    return (old + weight * (new - old)).astype(old.dtype)
