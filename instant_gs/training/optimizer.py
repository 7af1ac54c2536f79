"""Optax transforms: the motion encoder's head start, the avatar, and the discriminator."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from instant_gs.config import Config, OptimizerConfig


def build(config: Config) -> dict[str, optax.GradientTransformation]:
    """Adam for both phases, and for the discriminator if there is an adversarial loss.

    In the phase "motion" only the motion encoder and the pose encoder learn; in the phase "avatar"
    everything does, except these where they are frozen.
    """
    settings, pretrain = config.optimizer, config.motion_pretrain
    motion_adam = _adam(settings, motion_schedule(config))
    is_fan = config.model.motion.encoder == "fan"
    readers = ("motion_encoder", "pose_encoder")
    frozen = readers if is_fan or pretrain.freeze else ()
    transforms = {
        "motion": _only(motion_adam, lambda group: group in readers),
        "avatar": _only(
            _adam(settings, schedule(config), multipliers=dataclasses.asdict(settings.multipliers)),
            lambda group: group not in frozen,
        ),
    }
    if config.loss.adversarial:
        critic = config.adversarial
        transforms["discriminator"] = optax.adam(critic.learning_rate, b1=critic.b1, b2=critic.b2)
    return transforms


def learning_rate(config: Config, phase: str, step: int) -> float:
    """The rate of step number ``step`` (from 0, both phases together), before multipliers."""
    if phase == "motion":
        return float(motion_schedule(config)(step))
    return float(schedule(config)(step - config.motion_pretrain.steps))


def ema_decay(config: Config, step):
    """The decay of the averages at a step of its phase, from 0, () int32.

    It grows with the phase: early on a long memory would remember the initialisation.
    """
    count = step.astype(jnp.float32)
    return jnp.minimum(config.optimizer.ema_decay, (1 + count) / (10 + count))


def motion_schedule(config: Config) -> optax.Schedule:
    """A cosine to zero over the phase "motion"."""
    pretrain = config.motion_pretrain
    return optax.cosine_decay_schedule(pretrain.learning_rate, max(pretrain.steps, 1))


def schedule(config: Config) -> optax.Schedule:
    """Linear warm-up, then a cosine to ``final_learning_rate_ratio`` over ``train.steps``."""
    settings = config.optimizer
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_steps=max(config.train.steps, settings.warmup_steps + 1),
        end_value=settings.learning_rate * settings.final_learning_rate_ratio,
    )


def _adam(settings: OptimizerConfig, rate, multipliers=None) -> optax.GradientTransformation:
    # Without a norm something stands in its place: a run may resume with one, and then without.
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    steps = [clip, optax.scale_by_adam(b1=settings.b1, b2=settings.b2)]
    if multipliers and set(multipliers.values()) != {1.0}:
        steps.append(_scale_groups(multipliers))
    return optax.chain(*steps, optax.scale_by_learning_rate(rate))


def _scale_groups(multipliers: dict[str, float]) -> optax.GradientTransformation:
    def update(updates, params=None):
        return {
            group: optax.tree.scale(multipliers[group], tree) for group, tree in updates.items()
        }

    return optax.stateless(update)


def _only(transform, selected) -> optax.GradientTransformation:
    """Applies ``transform`` to the selected top-level groups; the others do not move."""

    def labels(params):
        return {
            group: jax.tree.map(lambda _, name=group: "on" if selected(name) else "off", tree)
            for group, tree in params.items()
        }

    return optax.multi_transform({"on": transform, "off": optax.set_to_zero()}, labels)
