"""A run with an adversarial loss at a reduced size."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import demo
from instant_gs import models
from instant_gs.config import AdversarialConfig, LossSteps
from instant_gs.training import checkpoint, loop, state

SAVED, END = 4, 7  # an odd number of steps apart, and the penalty comes every second step


def _config(pack):
    config = demo.get_config("smoke")
    config.data.packs = (str(pack),)
    config.motion_pretrain.steps = 0
    config.loss.lpips, config.loss.adversarial = 0.0, 0.025
    config.loss.start, config.loss.ramp = LossSteps(), LossSteps(adversarial=4)
    config.adversarial = AdversarialConfig(
        channel_base=128, channel_max=4, condition_width=8, group_size=2, r1_every=2
    )
    config.train.resolutions = ((0, 16),)
    config.train.steps, config.train.image_every, config.train.checkpoint_every = END, END, SAVED
    return config


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory):
    """Configuration, folder and final state."""
    config, workdir = _config(pack), tmp_path_factory.mktemp("adversarial")
    return config, workdir, jax.tree.map(np.asarray, loop.train(config, workdir))


def _metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


@pytest.mark.slow
def test_both_sides_of_the_adversarial_loss_are_recorded(run):
    metrics = _metrics(run[1])
    assert all(np.isfinite(v) for line in metrics.values() for v in line.values())
    for number in (1, END):
        assert 0.2 < metrics[number]["avatar/adversarial"] < 4
        assert 0.2 < metrics[number]["avatar/discriminator"] < 4
        assert 0 <= metrics[number]["avatar/discriminator_right"] <= 1


@pytest.mark.slow
def test_the_discriminator_learns_when_it_is_its_turn_and_is_not_released(run):
    config, workdir, final = run
    fresh = state.create(models.build(config.model), config)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), fresh.discriminator, final.discriminator
    )
    assert min(jax.tree.leaves(moved)) > 0
    _, params, _ = checkpoint.load_weights(workdir)
    assert sorted(params) == sorted(final.params)


@pytest.mark.slow
def test_a_resumed_run_continues_the_discriminator_bit_for_bit(run, tmp_path):
    config, workdir, final = run
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(END))  # as if killed after SAVED
    resumed = loop.train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, final)
