"""FLOPs of a step are counted on any machine that has a CPU."""

import jax
import pytest

from instant_gs import models
from instant_gs.training import curriculum, throughput

MOTION = curriculum.Phase("motion")  # the quickest to lower


@pytest.mark.slow
def test_devices_share_the_work_and_a_gpu_changes_nothing(config, monkeypatch):
    config.train.accumulate = 2  # does not count twice
    model = models.build(config.model)
    one, four = (throughput.model_flops(model, config, MOTION, devices) for devices in (1, 4))
    assert 3 < one / four < 4.5 and one > 1e6
    # GPUs and TPUs refuse to count: what a run on them lowers is counted on the CPU.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert throughput.model_flops(model, config, MOTION, 4) == pytest.approx(four, rel=0.01)


def test_without_a_cpu_nothing_is_counted(config, monkeypatch):
    def refuse(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", refuse)
    flops = throughput.model_flops(models.build(config.model), config, MOTION, 1)
    assert flops is None
    meter = throughput.Meter(samples=4, peak=1e12)
    for _ in range(2):
        meter.count(MOTION, (), lambda: flops)
    assert set(meter.read()) == {"step_seconds", "samples_per_second"}
