"""The non-saturating logistic loss (Goodfellow et al. 2014) and R1 (Mescheder et al. 2018)."""

import jax
import jax.numpy as jnp


def generator(fake_logits):
    """How surely the pictures are found out, each.

    Args:
        fake_logits: (…) the discriminator's logits of rendered pictures; positive means "true".

    Returns:
        (…) -log sigmoid(logit), at least 0.
    """
    return jax.nn.softplus(-fake_logits)


def discriminator(real_logits, fake_logits):
    """What the discriminator minimises, each pair.

    Args:
        real_logits: (…) of true pictures.
        fake_logits: (…) of rendered ones.

    Returns:
        (…) at least 0; 2 log 2 for a discriminator that knows nothing.
    """
    return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def r1(logits_fn, images):
    """Squared norm of the discriminator's gradient at true pictures.

    Args:
        logits_fn: (…, H, W, 3) to (…) logits.
        images: (…, H, W, 3).

    Returns:
        (…); the penalty is gamma / 2 times its mean.
    """
    gradient = jax.grad(lambda images: logits_fn(images).sum())(images)
    return jnp.square(gradient.astype(jnp.float32)).sum((-3, -2, -1))
