"""How fast a run is: seconds a step and for its batch, samples a second, share of the peak."""

import contextlib
import copy
import time

import jax

from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import abstract, curriculum, device_peak, parallel, step


class Meter:
    """Times steps between two readings; compilation, pictures and checkpoints do not count.

    Args:
        samples: Samples a step, of all hosts together.
        peak: FLOP/s of a device, or None if unknown.
    """

    def __init__(self, samples: int, peak: float | None = None):
        self._samples, self._peak = samples, peak
        self._phase, self._steps, self._start, self._flops = None, 0, 0.0, None
        self._waited = 0.0  # seconds, for batches of the steps that are timed

    def count(self, phase: curriculum.Phase, result, flops) -> None:
        """Notes that a step was started.

        Args:
            phase: Of the step; the first step of a phase compiles and is not timed.
            result: Something that the step computes.
            flops: Called at the first step of a phase if the peak is known: a device's FLOPs, or
                None if they are unknown.
        """
        if phase == self._phase:
            self._steps += 1
            return
        jax.block_until_ready(result)
        self._flops = flops() if self._peak else None
        self._phase, self._steps, self._start = phase, 0, time.monotonic()
        self._waited = 0.0

    def read(self) -> dict[str, float]:
        """Speed since the last reading, empty without a step; call it when the steps are done."""
        now = time.monotonic()
        if not self._steps:
            self._start = now
            return {}
        seconds, waited = (now - self._start) / self._steps, self._waited / self._steps
        self._steps, self._start, self._waited = 0, now, 0.0
        speed = {
            "step_seconds": seconds,
            "input_seconds": waited,
            "samples_per_second": self._samples / seconds,
        }
        if self._flops:
            speed["model_flop_utilisation"] = self._flops / seconds / self._peak
        return speed

    @contextlib.contextmanager
    def input(self):
        """What happens inside waits for the batch of the step that is counted next."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

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
    model: AvatarModel, config: Config, phase: curriculum.Phase, devices: int
) -> float | None:
    """FLOPs of one device in one step, as XLA's cost analysis counts the step before optimisation.

    What is computed twice to save memory counts once. Loops count as one round, kernels that are
    not XLA's as nothing: the rasterizer is left out almost entirely, and a utilisation made of
    this is a lower bound.

    Args:
        model: The model.
        config: Of the run.
        phase: Of the step.
        devices: That share the samples of a step.

    Returns:
        The number, or None where JAX has no CPU (``JAX_PLATFORMS=cuda``).
    """
    try:
        # XLA counts through this client alone: a GPU's or TPU's plugin does not offer it.
        counting = jax.local_devices(backend="cpu")[:1]
    except RuntimeError:  # JAX's way to say that there is no such platform
        return None
    plain = copy.deepcopy(config)
    plain.model.encoder.remat = False
    plain.train.accumulate = plain.train.shard_parameters = 1
    plain.data.batch_size //= devices
    model, mesh = type(model)(plain.model), parallel.mesh_of(plain, counting)
    shapes = abstract.train_state(model, plain, mesh), abstract.batch(plain, mesh)
    traced = step.make(model, plain, phase, mesh).trace(*shapes)
    platform = jax.default_backend().replace("gpu", "cuda")  # the kernels of the run
    return float(traced.lower(lowering_platforms=(platform,)).cost_analysis()["flops"])
