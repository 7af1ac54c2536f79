"""Training on several devices is training on one."""

import re

import jax
import numpy as np
import pytest

from instant_gs import models
from instant_gs.data import pipeline
from instant_gs.training import parallel, state, step


def _setting(config):
    config.loss.lpips = 0.0  # quicker to compile; it is a mean over images like the other losses
    model = models.build(config.model)
    data = config.data
    loader = pipeline.make_loader(
        data.packs,
        "train",
        batch_size=data.batch_size,
        driven_per_sample=data.driven_per_sample,
        seed=0,
        image_size=config.model.image_size,
    )
    return model, state.create(model, config), next(iter(loader))


def _one_step(model, config, phase, fresh, batch, devices):
    mesh = parallel.make_mesh(config.data.batch_size, jax.devices()[:devices])
    fresh = parallel.replicate(jax.tree.map(np.asarray, fresh), mesh)
    take = step.make(model, config, phase, mesh)
    batch = parallel.split(batch, mesh)
    text = take.lower(fresh, batch).compile().as_text()
    after, metrics = take(fresh, batch)
    moments = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(after.optimizers[phase])])
    return moments, jax.tree.map(float, metrics), text


@pytest.mark.slow
@pytest.mark.parametrize("phase", step.PHASES)
def test_four_devices_take_the_step_of_one(config, phase):
    if jax.device_count() < 4:
        pytest.skip("needs 4 virtual CPU devices")
    model, fresh, batch = _setting(config)
    one, metrics, _ = _one_step(model, config, phase, fresh, batch, 1)
    four, metrics_of_four, text = _one_step(model, config, phase, fresh, batch, 4)
    assert metrics["loss"] == pytest.approx(metrics_of_four["loss"], rel=1e-5)
    # Of the gradients, in Adam's memory of them: the step itself is only about their signs.
    assert np.linalg.norm(one - four) < 1e-4 * np.linalg.norm(one)
    # Only sums of gradients and metrics travel.
    found = set(re.findall(r"all-reduce|all-gather|all-to-all|collective-permute", text))
    assert found == {"all-reduce"}


def test_a_batch_that_cannot_be_split_is_a_clear_error():
    with pytest.raises(ValueError, match=r"data\.batch_size=3: expected a multiple of the 2 dev"):
        parallel.make_mesh(3, jax.devices()[:1] * 2)
