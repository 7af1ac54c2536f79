"""The discriminator: it tells sets apart, by picture and by condition, and its penalty is right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.losses import adversarial
from instant_gs.models import discriminator

TINY = config_lib.AdversarialConfig(
    channel_base=128, channel_max=8, condition_width=8, group_size=2
)
CODE = 6
BLIND = 2 * np.log(2)  # the loss of one who guesses


@pytest.fixture(scope="module")
def judge():
    return discriminator.DiscriminatorModel(TINY, image_size=16, code_width=CODE)


def _scene(batch=4, views=1, size=16, seed=0):
    rng = np.random.default_rng(seed)
    front = camera_lib.orbit_camera(0.2, 0.0)
    camera = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, views, *a.shape)), front)
    image = jnp.asarray(rng.normal(0, 0.3, (batch, views, size, size, 3)), jnp.float32)
    code = jnp.asarray(rng.normal(size=(batch, views, CODE)), jnp.float32)
    return image, types.Camera(camera.cam2world, camera.intrinsics), code


def test_shapes_order_and_other_sizes(judge):
    params = judge.init(jax.random.key(0))
    image, camera, code = _scene(batch=4, views=3)
    logits = jax.jit(judge.logits)(params, image, camera, code)
    assert logits.shape == (4, 3)
    # A view of a sample depends on its own pictures and on its group's, which is two samples.
    changed = image.at[3, 2].add(0.5)
    moved = np.abs(jax.jit(judge.logits)(params, changed, camera, code) - logits) > 1e-7
    expected = np.zeros((4, 3), bool)
    expected[2:, 2] = True
    np.testing.assert_array_equal(moved, expected)
    small, camera, code = _scene(size=8)
    assert jax.jit(judge.logits)(params, small, camera, code).shape == (4, 1)


@pytest.fixture(scope="module")
def fresh(judge):
    """Parameters of order one behind every layer, quicker than `init`, and compiled logits."""
    generator = np.random.default_rng(0)

    def draw(leaf):
        return jnp.float32(generator.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))

    params = jax.tree.map(draw, jax.eval_shape(judge.init, jax.random.key(0)))
    return params, jax.jit(judge.logits)


def test_channels_double_where_the_side_halves():
    config = config_lib.AdversarialConfig(channel_base=64, channel_max=10, condition_width=8)
    judge = discriminator.DiscriminatorModel(config, image_size=16, code_width=CODE)
    shapes = jax.eval_shape(judge.init, jax.random.key(0))
    names = {"from_rgb": "kernel", "block8": "skip", "block4": "skip"}
    widths = [jax.tree.leaves(shapes[name][part])[-1].shape[-1] for name, part in names.items()]
    assert widths == [4, 8, 10]


def test_where_a_picture_is_seen_from_matters(fresh):
    params, logits = fresh
    image, camera, code = _scene()
    other = types.Camera(jnp.roll(camera.cam2world, 1, -2), camera.intrinsics)
    change = logits(params, image, other, code) - logits(params, image, camera, code)
    assert np.abs(change).min() > 1e-4


def test_a_picture_is_seen_beside_its_blurred_copy(fresh):
    """With the picture itself hidden, its brightness shows and its details do not."""
    params, logits = fresh
    kernel = params["from_rgb"]["kernel"]
    params = params | {"from_rgb": params["from_rgb"] | {"kernel": kernel.at[:, :, :3].set(0.0)}}
    image, camera, code = _scene()
    checks = np.float32(-1.0) ** np.add.outer(range(16), range(16)).reshape(1, 1, 16, 16, 1)
    before, brighter, with_details = (
        logits(params, image + 0.3 * change, camera, code) for change in (0.0, 1.0, checks)
    )
    seen = np.abs(brighter - before).mean()
    assert seen > 1e-3 and np.abs(with_details - before).mean() < 0.1 * seen


def test_the_picture_passes_by_the_convolutions_of_a_block(fresh):
    params, logits = fresh
    params = {
        name: part | {"conv1": jax.tree.map(jnp.zeros_like, part["conv1"])}
        if name.startswith("block")
        else part
        for name, part in params.items()
    }
    image, camera, code = _scene()
    change = logits(params, image + 0.3, camera, code) - logits(params, image, camera, code)
    assert np.abs(change).min() > 1e-4


def _trained(judge, draw, steps):
    """Losses on ``draw(number) -> (real pictures, fake, camera, code of real, of fake)``."""
    params = judge.init(jax.random.key(1))
    transform = optax.adam(3e-3, b1=0.0, b2=0.99)

    @jax.jit
    def step(params, opt_state, real, fake, camera, code_real, code_fake):
        def loss(params):
            yes = judge.logits(params, real, camera, code_real)
            no = judge.logits(params, fake, camera, code_fake)
            return adversarial.discriminator(yes, no).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = transform.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state, history = transform.init(params), []
    for number in range(steps):
        params, opt_state, value = step(params, opt_state, *draw(number))
        history.append(float(value))
    return history


def test_it_learns_to_tell_two_sets_of_pictures_apart(judge):
    def draw(number):
        image, camera, code = _scene(batch=8, seed=number)
        smooth = 0.25 * sum(
            jnp.roll(image, (i, j), (2, 3)) for i in (0, 1) for j in (0, 1)
        )  # the same pictures, blurred
        return 2 * smooth, image, camera, code, code

    history = _trained(judge, draw, 150)
    assert history[0] > 0.9 * BLIND and np.mean(history[-15:]) < 0.5 * BLIND


def test_it_learns_that_a_picture_does_not_show_its_code(judge):
    """Real and rendered pictures are the same here: only the condition tells them apart."""

    def draw(number):
        image, camera, code = _scene(batch=8, seed=number)
        sign = jnp.sign(code[..., :1])
        image = 0.3 * image + 0.8 * sign[..., None, None]
        return image, image, camera, code, -code

    history = _trained(judge, draw, 150)
    assert history[0] > 0.9 * BLIND and np.mean(history[-15:]) < 0.3 * BLIND


def test_the_gradient_of_r1_equals_finite_differences(judge):
    params = judge.init(jax.random.key(2))
    image, camera, code = _scene(batch=2)

    @jax.jit
    def penalty(params):
        return adversarial.r1(lambda x: judge.logits(params, x, camera, code), image).mean()

    gradient = jax.grad(penalty)(params)
    norm = float(optax.tree.norm(gradient))
    assert norm > 1e-4
    direction = jax.tree.map(lambda g: g / norm, gradient)
    eps = 3e-4
    ahead, behind = (
        float(penalty(jax.tree.map(lambda p, d, s=s: p + s * eps * d, params, direction)))
        for s in (1, -1)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * eps), norm, rtol=0.01)


def test_halving_keeps_the_mean_and_removes_what_would_alias():
    flat = jnp.ones((1, 8, 8, 2))
    np.testing.assert_allclose(discriminator.halve(flat)[:, 1:-1, 1:-1], 1.0, rtol=1e-6)
    stripes = flat.at[:, :, ::2].set(-1.0)
    assert float(jnp.abs(discriminator.halve(stripes)[:, 1:-1, 1:-1]).max()) < 1e-6
    dot = jnp.zeros((1, 8, 8, 1)).at[0, 3, 4].set(1.0)
    spread = np.outer([3, 1], [1, 3]) / 64  # the filter (1, 3, 3, 1) / 8 both ways
    np.testing.assert_allclose(discriminator.halve(dot)[0, 1:3, 1:3, 0], spread, atol=1e-6)


def test_deviation_is_that_of_the_group():
    x = jnp.array([0.0, 2.0, 5.0, 5.0]).reshape(4, 1, 1, 1) * jnp.ones((4, 2, 2, 3))
    deviation = discriminator.group_deviation(x, 2)[:, 0, 0, 0]
    np.testing.assert_allclose(deviation, [1, 1, 0, 0], atol=1e-3)
    assert discriminator.group_deviation(x[:3], 2).shape == (3, 2, 2, 1)
