"""A run with a discriminator and a toy avatar.

The toy is one colour that wants to pass for the pack's pictures: compiling the rasterizer and the
encoder once more would take minutes and test nothing of the discriminator's.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import models, types
from instant_gs.config import AdversarialConfig, LossSteps
from instant_gs.training import (
    adversary,
    loop,
    objective,
    sample_grid,
    state,
    weights,
)

BEGIN, SAVED, END = 2, 4, 7  # saved while the penalty, every second step, is not due


def _toy(model, config, judges, size, networks, batch, keys, number):
    views = batch.driven
    colour = jax.nn.sigmoid(networks["model"]["decoder"]["fc1"]["bias"][:3]).reshape(1, 1, 1, 1, 3)
    real = objective.unit(views.image)
    lead = real.shape[:2]
    codes = jax.vmap(lambda key: jax.random.normal(key, (lead[1], 512)))(keys)
    camera = types.Camera(views.cam2world, views.intrinsics)
    pair = adversary.Pair(real, jnp.broadcast_to(colour, real.shape), camera, codes)
    if "adversarial" not in judges:
        value = jnp.abs(pair.fake - real).mean()
        return value, {"loss": value}
    judge, critic = judges["adversarial"], networks["discriminator"]
    value = adversary.generator_loss(judge, critic, pair).mean()
    contest, facts = adversary.discriminator_loss(judge, critic, pair, config.adversarial, number)
    return value + contest, facts | {"loss": value}


def _config(pack):
    config = demo.get_config("smoke")
    config.data.packs = (str(pack),)
    config.data.batch_size = 8  # two for each of four devices
    config.motion_pretrain.steps = 0
    config.loss.lpips, config.loss.adversarial = 0.0, 0.025
    config.loss.start, config.loss.ramp = LossSteps(adversarial=BEGIN), LossSteps()
    config.adversarial = AdversarialConfig(
        channel_base=64, channel_max=4, condition_width=4, group_size=2, r1_every=2
    )
    config.train.steps, config.train.image_every, config.train.checkpoint_every = END, END, SAVED
    return config


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory):
    """Configuration, folder and final state; the toy stays in place."""
    config, workdir = _config(pack), tmp_path_factory.mktemp("adversarial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "avatar_objective", _toy)
        patch.setattr(
            sample_grid, "make", lambda *_: lambda *_: (np.zeros((8, 8, 3), np.uint8), {})
        )
        yield config, workdir, jax.tree.map(np.asarray, loop.train(config, workdir))


@pytest.mark.slow
def test_the_discriminator_begins_at_its_step_and_is_not_released(run):
    config, workdir, final = run
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    metrics = {line["step"]: line for line in lines}
    # Lines are numbered by the steps taken: line BEGIN is the last step without it.
    assert "avatar/discriminator" not in metrics[BEGIN]
    assert 0.2 < metrics[BEGIN + 1]["avatar/discriminator"] < 4
    fresh = state.create(models.build(config.model), config)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), fresh.discriminator, final.discriminator
    )
    assert min(jax.tree.leaves(moved)) > 0
    _, params, _ = weights.load(workdir)
    assert sorted(params) == sorted(final.params)


@pytest.mark.slow
def test_a_resumed_run_continues_the_discriminator_bit_for_bit(run, tmp_path):
    config, workdir, final = run
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(END))  # as if killed after SAVED
    resumed = loop.train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, final)
