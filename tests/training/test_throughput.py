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
    assert set(meter.read()) == {"step_seconds", "input_seconds", "samples_per_second"}


def test_waiting_for_batches_is_measured_in_the_steps_that_are_timed(monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(throughput.time, "monotonic", lambda: next(clock))
    meter = throughput.Meter(samples=4)

    def steps(count, phase=MOTION):
        for _ in range(count):
            with meter.input():  # by this clock 10 s
                pass
            meter.count(phase, (), lambda: None)

    steps(3)  # the first compiles and is not timed, nor is what it waited
    speed = meter.read()
    assert speed["input_seconds"] == 10 < speed["step_seconds"]
    steps(4)
    assert meter.read()["input_seconds"] == 10
    steps(1, curriculum.Phase("avatar", 32))
    assert meter.read() == {}


def test_speed_leaves_out_pauses_and_is_compared_with_the_peak(monkeypatch):
    now = 0.0
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now)
    meter = throughput.Meter(samples=6, peak=100.0)
    for _ in range(3):  # the first compiles
        now += 2.0
        meter.count(MOTION, (), lambda: 50.0)
    with meter.pause(()):
        now += 30.0
    speed = meter.read()
    assert speed["step_seconds"] == 2.0 and speed["samples_per_second"] == 3.0
    assert speed["model_flop_utilisation"] == 0.25
