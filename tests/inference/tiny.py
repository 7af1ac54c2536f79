"""A tiny untrained engine: right in every shape, built without the model's slow initialisation."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import demo
from instant_gs import models
from instant_gs.inference import avatar

SIZE = 32


def build(residual_scale: float = 1.0) -> avatar.InstantAvatar:
    """The demo's smallest variant, its motion decoder turned up until its effect is seen."""
    config = demo.get_config("smoke")
    config.model.motion.residual_scale = residual_scale
    config.model.encoder.unwrap = 0  # a random pose network would turn rounding into motion
    return avatar.InstantAvatar(config, random_parameters(config))


def random_parameters(config) -> dict:
    """Parameters of the right shapes; the model's own initialisation compiles for a minute."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(models.build(config.model).init, jax.random.key(0))

    def fill(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] != "kernel":
            return jnp.full(leaf.shape, float(names[-1] == "scale"), leaf.dtype)
        equalised = names[0] in ("decoder", "motion_decoder")  # scaled at run time
        deviation = 1.0 if equalised else (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(random.normal(0, deviation, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def photos() -> np.ndarray:
    """(2, SIZE, SIZE, 3) uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
