"""The optimizers do what their settings say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instant_gs.config import Config
from instant_gs.training import optimizer

GROUPS = {name: jnp.ones(3) for name in ("motion_encoder", "pose_encoder", "decoder")}


@pytest.fixture
def config():
    return Config()


def _one_update(config, name, gradient):
    """Updates and memory of an optimizer's first step."""
    transform = optimizer.build(config)[name]

    @jax.jit
    def update(gradient):
        return transform.update(gradient, transform.init(gradient), gradient)

    return update(gradient)


def test_a_group_learns_as_many_times_faster_as_its_multiplier_says(config):
    config.optimizer.multipliers.decoder = 4.0
    gradient = {"backbone": jnp.ones(3), "decoder": jnp.ones(3)}
    updates, _ = _one_update(config, "avatar", gradient)
    np.testing.assert_allclose(updates["backbone"], -config.optimizer.learning_rate, rtol=1e-5)
    np.testing.assert_allclose(updates["decoder"], 4 * updates["backbone"], rtol=1e-6)


@pytest.mark.parametrize(("clip_norm", "seen"), [(2.0, 2.0), (0.0, 1e6)])
def test_a_huge_gradient_is_clipped_where_a_norm_is_given(config, clip_norm, seen):
    config.optimizer.clip_norm = clip_norm
    gradient = {"backbone": jnp.array([6e5, 0.0]), "decoder": jnp.array([8e5])}
    _, memory = _one_update(config, "avatar", gradient)
    remembered = float(optax.tree.norm(optax.tree.get(memory, "mu")))
    assert remembered == pytest.approx((1 - config.optimizer.b1) * seen, rel=1e-5)


def test_the_rate_ends_at_its_final_ratio(config):
    config.motion_pretrain.steps, config.train.steps = 10, 100
    config.optimizer.warmup_steps, config.optimizer.final_learning_rate_ratio = 5, 0.05
    rate = config.optimizer.learning_rate
    found = [optimizer.learning_rate(config, "avatar", 10 + step) for step in (0, 5, 100)]
    np.testing.assert_allclose(found, [0, rate, 0.05 * rate], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "group"),
    [("motion", "motion_encoder"), ("avatar", "decoder"), ("discriminator", "out")],
)
def test_each_optimizer_learns_and_remembers_as_it_is_told(config, name, group):
    told = config.adversarial if name == "discriminator" else config.optimizer
    told.b1, told.b2 = 0.25, 0.75
    (config.motion_pretrain if name == "motion" else told).learning_rate = 0.5
    updates, memory = _one_update(config, name, {group: jnp.array([2.0])})
    np.testing.assert_allclose(updates[group], -0.5, rtol=1e-4)
    found = [float(optax.tree.get(memory, part)[group][0]) for part in ("mu", "nu")]
    np.testing.assert_allclose(found, [0.75 * 2, 0.25 * 4], rtol=1e-6)


def test_the_head_start_has_its_own_rate_which_falls_to_zero(config):
    config.motion_pretrain.steps, config.train.steps = 10, 100
    config.motion_pretrain.learning_rate = rate = 0.25
    found = [optimizer.learning_rate(config, "motion", step) for step in (0, 5, 10)]
    np.testing.assert_allclose(found, [rate, rate / 2, 0], atol=1e-6)
    updates, _ = _one_update(config, "motion", GROUPS)
    for name, update in updates.items():
        np.testing.assert_allclose(update, 0.0 if name == "decoder" else -rate, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "freeze", "learn"),
    [("learned", True, False), ("learned", False, True), ("fan", False, False)],
)
def test_readers_learn_with_the_avatar_unless_they_are_frozen(config, encoder, freeze, learn):
    config.model.motion.encoder, config.motion_pretrain.freeze = encoder, freeze
    updates, _ = _one_update(config, "avatar", GROUPS)
    moved = {name: bool(update.any()) for name, update in updates.items()}
    assert moved == {"motion_encoder": learn, "pose_encoder": learn, "decoder": True}


def test_the_memory_of_the_averages_grows_to_what_is_configured(config):
    config.optimizer.ema_decay = 0.75
    found = [float(optimizer.ema_decay(config, jnp.int32(step))) for step in (0, 10, 1000)]
    np.testing.assert_allclose(found, [0.1, 11 / 20, 0.75], rtol=1e-6)
