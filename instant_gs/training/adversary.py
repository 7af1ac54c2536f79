"""Both sides of the adversarial loss: what the avatar and what the discriminator minimise.

The two are added into one loss; gradients are stopped so that each part moves its own network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.config import AdversarialConfig
from instant_gs.losses import adversarial
from instant_gs.models.discriminator import DiscriminatorModel


class Pair(NamedTuple):
    """True and rendered pictures of the same motions, seen from the same cameras.

    Attributes:
        real: (B, K, S, S, 3) in [0, 1].
        fake: (B, K, S, S, 3), about [0, 1].
        camera: Arrays (B, K, …).
        codes: (B, K, C), the motion of each.
    """

    real: jax.Array
    fake: jax.Array
    camera: types.Camera
    codes: jax.Array


def generator_loss(judge: DiscriminatorModel, params, pair: Pair):
    """(B, K): how surely rendered pictures are found out; no gradient for ``params``."""
    logits = judge.logits(
        jax.lax.stop_gradient(params),
        2 * pair.fake - 1,
        pair.camera,
        jax.lax.stop_gradient(pair.codes),
    )
    return adversarial.generator(logits)


def discriminator_loss(
    judge: DiscriminatorModel, params, pair: Pair, config: AdversarialConfig, step
):
    """The discriminator's loss with its penalty; no gradient for the pictures.

    Args:
        judge: The network.
        params: Its parameters.
        pair: What it judges.
        config: ``r1`` and ``r1_every``: the penalty is computed every so many steps and counts
            so many times ("lazy regularisation", StyleGAN2).
        step: () int32.

    Returns:
        () loss, and a dict of () metrics.
    """
    pair = jax.lax.stop_gradient(pair)

    def logits(image):
        return judge.logits(params, image, pair.camera, pair.codes)

    real, fake = logits(2 * pair.real - 1), logits(2 * pair.fake - 1)
    loss = adversarial.discriminator(real, fake).mean()
    metrics = {
        "discriminator": loss,
        "discriminator_right": 0.5 * ((real > 0).mean() + (fake < 0).mean()),
    }
    if config.r1:
        penalty = jax.lax.cond(
            step % config.r1_every == 0,
            lambda: config.r1_every * adversarial.r1(logits, 2 * pair.real - 1).mean(),
            lambda: jnp.zeros(()),
        )
        loss += 0.5 * config.r1 * penalty
    return loss, metrics
