"""How fast a run is: seconds a step, samples a second, share of the device's peak."""

import contextlib
import copy
import time

import jax

from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import curriculum, device_peak, step


class Meter:
    """Times steps between two readings; compilation, pictures and checkpoints do not count.

    Args:
        samples: Samples a step, of all hosts together.
        peak: FLOP/s of a device, or None if unknown.
    """

    def __init__(self, samples: int, peak: float | None = None):
        self._samples, self._peak = samples, peak
        self._phase, self._steps, self._start, self._flops = None, 0, 0.0, 0.0

    def count(self, phase: curriculum.Phase, result, flops) -> None:
        """Notes that a step was started.

        Args:
            phase: Of the step; the first step of a phase compiles and is not timed.
            result: Something that the step computes.
            flops: Called at the first step of a phase if the peak is known: a device's FLOPs.
        """
        if phase == self._phase:
            self._steps += 1
            return
        jax.block_until_ready(result)
        self._flops = flops() if self._peak else 0.0
        self._phase, self._steps, self._start = phase, 0, time.monotonic()

    def read(self) -> dict[str, float]:
        """Speed since the last reading, empty without a step; call it when the steps are done."""
        now = time.monotonic()
        if not self._steps:
            self._start = now
            return {}
        seconds = (now - self._start) / self._steps
        self._steps, self._start = 0, now
        speed = {"step_seconds": seconds, "samples_per_second": self._samples / seconds}
        if self._peak:
            speed["model_flop_utilisation"] = self._flops / seconds / self._peak
        return speed

    @contextlib.contextmanager
    def pause(self, result):
        """What happens inside does not count; first waits for the step that computes ``result``."""
        jax.block_until_ready(result)
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start


def peak(config: Config) -> float | None:
    """FLOP/s of one of these devices at the model's precision, or None if unknown."""
    return device_peak.flops_per_second(jax.devices()[0].device_kind, config.model.dtype)


def model_flops(
    model: AvatarModel, config: Config, phase: curriculum.Phase, mesh, state, batch
) -> float:
    """FLOPs of one device in one step, as XLA's cost analysis counts the step before optimisation.

    What is computed twice to save memory counts once. Loops count as one round, kernels that are
    not XLA's as nothing: the rasterizer is left out almost entirely, and a utilisation made of
    this is a lower bound.

    Args:
        model: The model.
        config: Of the run.
        phase: Of the step.
        mesh: From ``parallel.make_mesh``.
        state: TrainState, or its shapes.
        batch: All samples of a step, or their shapes.
    """
    plain = copy.deepcopy(config)
    plain.model.encoder.remat, plain.train.accumulate = False, 1
    take = step.make(type(model)(plain.model), plain, phase, mesh)
    return float(take.lower(state, batch).cost_analysis()["flops"])
