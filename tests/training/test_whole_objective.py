"""The whole step of the paper's configuration and of its ablations fits together."""

import jax
import pytest

from configs import ablation
from instant_gs import models
from instant_gs.training import abstract, curriculum, parallel, step


@pytest.mark.parametrize("variant", ["full", "ray", "spatial"])
def test_the_whole_objective_at_a_reduced_size(variant):
    """Traced, not compiled: networks, losses, gradients and optimizers fit together."""
    config = ablation.get_config(f"{variant},smoke")
    config.model.image_size, config.train.resolutions = 64, ((0, 32), (3, 64))
    config.validate()
    phase = curriculum.at(config.motion_pretrain.steps + config.loss.start.adversarial, config)
    assert phase == curriculum.Phase("avatar", 32, curriculum.JUDGED)
    model = models.build(config.model)
    mesh = parallel.make_mesh(config.data.batch_size, jax.devices()[:1])
    fresh = abstract.train_state(model, config, mesh)
    take = step.make(model, config, phase, mesh)
    after, metrics = jax.eval_shape(take, fresh, abstract.batch(config, mesh))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), fresh
    )
    weights = {"l1", "lpips", "identity", "region", "residual", "mask", "adversarial"}
    assert weights | {"loss", "discriminator"} <= set(metrics)
