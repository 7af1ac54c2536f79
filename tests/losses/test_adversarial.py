"""The adversarial loss's values and its gradient penalty."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.losses import adversarial


def test_values():
    np.testing.assert_allclose(adversarial.generator(jnp.zeros(2)), np.log(2), rtol=1e-6)
    blind = adversarial.discriminator(jnp.zeros(2), jnp.zeros(2))
    np.testing.assert_allclose(blind, 2 * np.log(2), rtol=1e-6)
    sure = adversarial.discriminator(jnp.array([9.0]), jnp.array([-9.0]))
    assert 0 < float(sure[0]) < 1e-3


def test_the_generator_still_learns_where_it_is_found_out():
    slope = jax.grad(lambda x: adversarial.generator(x).sum())(jnp.array([-9.0, 0.0, 9.0]))
    np.testing.assert_allclose(slope, [-1.0, -0.5, 0.0], atol=2e-4)


def test_r1_of_a_known_function():
    image = jnp.asarray(np.random.default_rng(0).random((2, 1, 3, 3, 3), np.float32))
    penalty = adversarial.r1(lambda x: jnp.sum(x**2, (-3, -2, -1)), image)
    assert penalty.shape == (2, 1)
    np.testing.assert_allclose(penalty, 4 * jnp.sum(image**2, (-3, -2, -1)), rtol=1e-5)
