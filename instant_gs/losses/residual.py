"""The price of motion: residuals that nothing asks for should be zero."""

import jax.numpy as jnp

# Inside the root, so that the norm of an exactly zero residual has gradient zero and not NaN.
TINY = 1e-12


def norm(residuals):
    """Mean L2 norm of the residual feature vectors (the paper's weight on it is 0.001).

    Args:
        residuals: (…, N, F), N Gaussians.

    Returns:
        () float32, at least 0 (1e-6 for residuals of exactly zero).
    """
    squares = jnp.square(residuals.astype(jnp.float32)).sum(-1)
    return jnp.sqrt(squares + TINY).mean()
