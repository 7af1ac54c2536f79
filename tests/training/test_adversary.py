"""The two sides of the adversarial loss: each moves its own network, alike on many devices."""

import dataclasses
import math
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import discriminator
from instant_gs.training import adversary, parallel

TINY = config_lib.AdversarialConfig(
    channel_base=64, channel_max=4, condition_width=4, group_size=2, r1_every=4
)
BATCH, VIEWS, SIZE, CODE = 8, 2, 8, 3


@pytest.fixture(scope="module")
def setting():
    judge = discriminator.DiscriminatorModel(TINY, SIZE, CODE)
    rng = np.random.default_rng(0)
    real, fake = rng.random((2, BATCH, VIEWS, SIZE, SIZE, 3), np.float32)
    front = camera_lib.orbit_camera(0.0, 0.1)
    camera = jax.tree.map(lambda a: np.broadcast_to(a, (BATCH, VIEWS, *a.shape)).copy(), front)
    codes = rng.normal(size=(BATCH, VIEWS, CODE)).astype(np.float32)
    camera = types.Camera(camera.cam2world, camera.intrinsics)
    return judge, judge.init(jax.random.key(0)), adversary.Pair(real, fake, camera, codes)


def _largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_true_and_rendered_pictures_are_shown_alike():
    """Black is -1 and white is 1 to the discriminator, whoever made the picture."""
    judge = python_types.SimpleNamespace(
        logits=lambda params, image, camera, codes: image.mean((2, 3, 4))
    )
    black = jnp.zeros((BATCH, VIEWS, SIZE, SIZE, 3))
    pair = adversary.Pair(black + 0.75, black, None, None)
    found_out = math.log1p(math.e)  # softplus(1): the logit of black is -1
    generator = adversary.generator_loss(judge, {}, pair)
    np.testing.assert_allclose(generator, np.full((BATCH, VIEWS), found_out), rtol=1e-6)
    never = dataclasses.replace(TINY, r1=0.0)
    _, facts = adversary.discriminator_loss(judge, {}, pair, never, 0)
    expected = math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1.0))
    assert float(facts["discriminator"]) == pytest.approx(expected, rel=1e-6)
    assert facts["discriminator_right"] == 1.0


def test_the_penalty_is_that_of_true_pictures():
    judge = python_types.SimpleNamespace(
        logits=lambda params, image, camera, codes: jnp.square(image).sum((2, 3, 4)) / 2
    )
    black = jnp.zeros((BATCH, VIEWS, SIZE, SIZE, 3))
    pair = adversary.Pair(black + 0.75, black, None, None)
    told = dataclasses.replace(TINY, r1=0.25, r1_every=4)
    loss, facts = adversary.discriminator_loss(judge, {}, pair, told, 0)
    squared = 0.5**2 * SIZE * SIZE * 3  # the gradient is the picture, 0.5 everywhere
    penalty = 0.25 / 2 * 4 * squared
    assert float(loss - facts["discriminator"]) == pytest.approx(penalty, rel=1e-4)


def test_no_gradient_crosses(setting):
    judge, params, pair = setting

    def avatar_side(params, pair):
        return adversary.generator_loss(judge, params, pair).mean()

    def other_side(params, pair):
        return adversary.discriminator_loss(judge, params, pair, TINY, 0)[0]

    to_params, to_pair = jax.jit(jax.grad(avatar_side, (0, 1)))(params, pair)
    assert _largest(to_params) == 0 and _largest(to_pair.codes) == 0
    assert _largest(to_pair.fake) > 1e-6
    to_params, to_pair = jax.jit(jax.grad(other_side, (0, 1)))(params, pair)
    assert _largest(to_params) > 1e-4 and _largest(to_pair) == 0


def test_the_penalty_comes_every_so_often_and_counts_so_often(setting):
    judge, params, pair = setting

    @jax.jit
    def loss(step):
        return adversary.discriminator_loss(judge, params, pair, TINY, step)

    (with_penalty, facts), (without, _), (again, _) = loss(0), loss(1), loss(4)
    assert float(without) == pytest.approx(float(facts["discriminator"]), rel=1e-6)
    assert float(again) == float(with_penalty)
    never = dataclasses.replace(TINY, r1=0.0)
    plain = adversary.discriminator_loss(judge, params, pair, never, 0)[0]
    assert float(plain) == pytest.approx(float(without), rel=1e-5)
    half, _ = adversary.discriminator_loss(
        judge, params, pair, dataclasses.replace(TINY, r1=0.5, r1_every=2), 0
    )
    penalty = float(with_penalty - without)
    assert penalty > 1e-3
    assert float(half - without) == pytest.approx(penalty / 4, rel=1e-3)


def test_four_devices_have_the_gradient_of_one(setting):
    if jax.device_count() < 4:
        pytest.skip("needs 4 virtual CPU devices")
    judge, params, pair = setting

    def gradient(devices):
        mesh = parallel.make_mesh(BATCH, jax.devices()[:devices])

        @jax.jit
        def both(params, pair, step):
            def loss(params, pair, keys):
                loss, facts = adversary.discriminator_loss(judge, params, pair, TINY, step)
                return loss + adversary.generator_loss(judge, params, pair).mean(), facts

            keys = parallel.sample_keys(jax.random.key(0), BATCH)
            return parallel.mean_gradient(loss, mesh)(params, pair, keys)

        placed = parallel.place(jax.tree.map(np.asarray, params), mesh)
        grads, facts = both(placed, parallel.split(pair, mesh), jnp.int32(0))
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
        return flat, jax.tree.map(float, facts)

    one, four = gradient(1), gradient(4)
    assert np.linalg.norm(one[0] - four[0]) < 1e-4 * np.linalg.norm(one[0])
    assert one[1] == pytest.approx(four[1], rel=1e-5)
