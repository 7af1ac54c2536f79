"""Models that compile and run in seconds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import config, models

ENCODER = config.EncoderConfig(
    resnet_widths=(8, 8, 8, 16, 16),
    aspp_width=16,
    token_width=32,
    low_heads=2,
    branch_width=8,
    tail_widths=(16, 8, 8),
)


def build(*, dtype="float32", encoder=None, motion=None, **gaussians):
    """A model for images of 64; keyword arguments go to ``GaussianConfig``."""
    gaussians = {"grid": 32, "rays": 6, "samples_per_ray": 8} | gaussians
    return models.build(
        config.ModelConfig(
            image_size=64,
            dtype=dtype,
            encoder=encoder or ENCODER,
            gaussians=config.GaussianConfig(**gaussians),
            motion=motion or config.MotionConfig(),
        )
    )


def params(model) -> dict:
    """Parameters from numpy: of order one behind every layer, and quicker than ``model.init``."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        group, name = path[0].key, path[-1].key
        noise = generator.standard_normal(leaf.shape)
        if name == "kernel" and group in ("decoder", "motion_decoder") and "fc" in path[-2].key:
            return jnp.asarray(noise, jnp.float32)  # equalised: divided at run time
        if name == "kernel":
            return jnp.asarray(noise / math.sqrt(math.prod(leaf.shape[:-1])), jnp.float32)
        return jnp.asarray((name == "scale") + 0.1 * noise, jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))


def image(seed: int = 0, batch: int = 1):
    """Noise (batch, 64, 64, 3) in [-1, 1]."""
    return jax.random.uniform(jax.random.key(seed), (batch, 64, 64, 3), minval=-1)


def codes(seed: int, batch: int = 1):
    """Two codes (batch, 512), large enough that the residual matters."""
    return 3 * jax.random.normal(jax.random.key(seed), (2, batch, 512))


def relative(got, want) -> float:
    """Relative L2 distance."""
    return float(jnp.linalg.norm(jnp.asarray(got) - want) / jnp.linalg.norm(jnp.asarray(want)))
