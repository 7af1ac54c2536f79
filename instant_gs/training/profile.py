"""A window of steps under JAX's profiler, for TensorBoard or Perfetto."""

import pathlib

import jax

from instant_gs import cli


def parse(text: str | None) -> tuple[int, int] | None:
    """ "10,15" to (10, 15): numbers of the first and of the last step, counted from 1.

    Raises:
        UserError: It is something else.
    """
    if text is None:
        return None
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 2 or text.count(",") != 1 or not 1 <= numbers[0] <= numbers[1]:
        raise cli.UserError(
            f"--profile_steps={text}: expected the numbers of the first and last step, as 10,15",
            cli.EXIT_USAGE,
        )
    return numbers[0], numbers[1]


class Window:
    """Records the steps of a window.

    Args:
        folder: Receives the trace.
        steps: First and last step, or None for nothing at all. A run that is resumed within the
            window records what is left of it.
    """

    def __init__(self, folder: pathlib.Path, steps: tuple[int, int] | None):
        self._folder, self._steps, self._active = folder, steps, False

    def before(self, number: int) -> None:
        """Call before the step ``number``."""
        if self._steps and not self._active and self._steps[0] <= number <= self._steps[1]:
            jax.profiler.start_trace(self._folder)
            self._active = True

    def misses(self, first: int, last: int) -> bool:
        """Whether a run of these steps will record nothing that was asked for."""
        return self._steps is not None and (last < self._steps[0] or first > self._steps[1])

    def ends(self, number: int) -> bool:
        """Whether to call ``close`` once the step ``number`` is done."""
        return self._active and number == self._steps[1]

    def close(self) -> None:
        """Writes what was recorded."""
        if self._active:
            self._active = False
            jax.profiler.stop_trace()
