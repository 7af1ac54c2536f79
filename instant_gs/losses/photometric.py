"""Pixel losses."""

import jax.numpy as jnp


def l1(prediction, target, weights=None):
    """Mean absolute error of each image.

    Args:
        prediction: (…, H, W, C), in [0, 1] (not clamped: a colour out of range must be felt).
        target: (…, H, W, C) in [0, 1].
        weights: (…, H, W), not negative, or None for equal weights. Where all weights of an
            image are zero its loss is zero.

    Returns:
        (…) float32 in [0, 1] for inputs in range, differentiable in ``prediction``.

    Raises:
        ValueError: The shapes differ.
    """
    check_images(prediction, target)
    error = jnp.abs(prediction - target).astype(jnp.float32)
    if weights is None:
        return error.mean((-3, -2, -1))
    return weighted_mean(error.mean(-1), weights)


def weighted_mean(values, weights):
    """Weighted mean over the last two axes; zero, with zero gradient, where no weight is.

    Args:
        values: (…, H, W).
        weights: (…, H, W), not negative.

    Returns:
        (…) float32.
    """
    weights = jnp.asarray(weights, jnp.float32)
    total = weights.sum((-2, -1))
    # Both branches are finite, so that the gradient of the one not taken is zero, not NaN.
    safe = jnp.where(total > 0, total, 1.0)
    return (values * weights).sum((-2, -1)) / safe


def check_images(prediction, target) -> None:
    """Raises ValueError unless both are images (…, H, W, C) of one shape."""
    if jnp.ndim(prediction) < 3 or jnp.shape(prediction) != jnp.shape(target):
        raise ValueError(
            "prediction and target: expected equal shapes (…, H, W, C), got "
            f"{jnp.shape(prediction)} and {jnp.shape(target)}; resize or index one of them"
        )
