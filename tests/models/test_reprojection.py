"""A Gaussian sees the photo where it is: the colour there or at its mirror image, or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder, head_surface, reprojection

SIDE = 8
MIDDLE = (4, 4)  # row and column of a cell in the face
YAW = 0.6  # from the head's left, which is at +x and at the map's right


@pytest.fixture(scope="module")
def module():
    return reprojection.Reprojection()


@pytest.fixture(scope="module")
def camera():
    pose = camera_lib.look_at(YAW, 0.0)
    return types.Camera(pose[None], np.asarray(camera_lib.intrinsics())[None])


@pytest.fixture(scope="module")
def means():
    return jnp.asarray(head_surface.points(SIDE))[None]


def _colors(module, features, means, photo, camera):
    params = module.init(jax.random.key(0), features, means, photo, camera)
    out = module.apply(params, features, means, photo, camera)
    raw = 4 * out[0, :, :3] - 2  # what a fresh decoder makes of a colour's features
    return np.asarray(jax.nn.sigmoid(raw)).reshape(SIDE, SIDE, 3), out


def _ramp(size=64):
    """Red grows to the right, green downwards, blue is 0.5."""
    position = (np.arange(size) + 0.5) / size
    red, green = np.meshgrid(0.1 + 0.8 * position, 0.1 + 0.8 * position)
    return jnp.asarray(np.stack([red, green, np.full_like(red, 0.5)], -1), jnp.float32)[None]


def test_a_visible_cell_has_the_colour_of_its_place_in_the_photo(module, camera, means):
    features = jnp.zeros((1, SIDE * SIDE, 5)).at[..., 3:].set(7.0)
    colors, out = _colors(module, features, means, _ramp(), camera)
    pixel = np.asarray(camera_lib.view_matrix(camera.cam2world[0])) @ np.append(
        np.asarray(means).reshape(SIDE, SIDE, 3)[MIDDLE[0], 6], 1
    )
    x, y = (np.asarray(camera.intrinsics[0]) @ pixel[:3])[:2] / pixel[2]
    np.testing.assert_allclose(colors[MIDDLE[0], 6], [0.1 + 0.8 * x, 0.1 + 0.8 * y, 0.5], atol=0.03)
    assert (np.asarray(out[..., 3:]) == 7.0).all()  # at the start the rest is left alone


def test_a_moved_gaussian_takes_the_colour_of_where_it_went(module, camera, means):
    features = jnp.zeros((1, SIDE * SIDE, 5))
    at = (MIDDLE[0], 6)
    before, _ = _colors(module, features, means, _ramp(), camera)
    after, _ = _colors(module, features, means - jnp.array([[[0.0, 0.1, 0.0]]]), _ramp(), camera)
    assert after[at][1] > before[at][1] + 0.05  # down is greener
    params = module.init(jax.random.key(0), features, means, _ramp(), camera)
    slope = jax.grad(lambda m: module.apply(params, features, m, _ramp(), camera)[..., 1].sum())(
        means
    )
    assert (np.asarray(slope).reshape(SIDE, SIDE, 3)[at][1]) < 0


def test_a_hidden_cell_has_the_colour_of_its_mirror_image(module, camera, means):
    features = jnp.zeros((1, SIDE * SIDE, 5))
    colors, _ = _colors(module, features, means, _ramp(), camera)
    row = MIDDLE[0]
    np.testing.assert_allclose(colors[row, 0], colors[row, SIDE - 1], atol=0.05)
    assert colors[row, SIDE - 1][0] > colors[row, 3][0] + 0.1  # and not that of its neighbours


def test_a_gaussian_can_tell_background_from_a_head_and_from_the_edge(module, camera, means):
    """The three numbers that the correction reads beside colours."""
    photo = np.zeros((64, 64, 3), np.float32)
    photo[:, 32:] = 0.1  # dark, but there
    projected = np.asarray(means[0]) + np.array([[0.0, 100.0, 0.0]])  # far above the picture
    _, _, present = reprojection._look(jnp.asarray(projected), photo, _single(camera))
    np.testing.assert_allclose(present, 0.0, atol=1e-6)
    _, _, present = reprojection._look(means[0], photo, _single(camera))
    x = np.asarray(reprojection.unwrap.project(means[0], _single(camera))[0])
    there, around, inside = np.asarray(present).T
    np.testing.assert_allclose(inside, 1, atol=1e-6)
    assert (there[x > 0.05] > 0.999).all() and (there[x < -0.05] < 0.001).all()
    assert ((0 < around) & (around < 1))[np.abs(x) < 0.05].all()


def _single(camera):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], camera)


def test_the_correction_reads_them(module, camera, means):
    features = jnp.zeros((1, SIDE * SIDE, 5))
    photo = jnp.full((1, 64, 64, 3), 0.5)
    params = module.init(jax.random.key(0), features, means, photo, camera)
    kernel = params["params"]["correction"]["kernel"]
    params["params"]["correction"]["kernel"] = jnp.ones_like(kernel)
    seen = module.apply(params, features, means, photo, camera)
    empty = module.apply(params, features, means, 0.0 * photo, camera)
    assert np.abs(np.asarray(seen - empty)[..., 3:]).max() > 1e-3


def test_the_last_of_the_three_colours_is_the_planes_own(module, camera, means):
    """And what the network says of the other features is added to them."""
    features = jax.random.normal(jax.random.key(0), (1, SIDE * SIDE, 5))
    photo = jnp.full((1, 64, 64, 3), 0.5)
    shapes = jax.eval_shape(module.init, jax.random.key(0), features, means, photo, camera)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)["params"]
    params["blend"]["bias"] = jnp.array([-50.0, -50.0, 50.0])
    params["correction"]["bias"] = jnp.array([1.0, 2.0])
    out = jax.jit(module.apply)({"params": params}, features, means, photo, camera)
    np.testing.assert_allclose(out, features + jnp.array([[[0, 0, 0, 1, 2.0]]]), atol=1e-6)


def test_around_is_the_mean_of_what_is_inside():
    maps = np.random.default_rng(0).random((9, 12, 2)).astype(np.float32)
    means = np.asarray(reprojection.around(jnp.asarray(maps)))
    for row, column in ((0, 0), (4, 6), (8, 5), (1, 11)):
        square = maps[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        np.testing.assert_allclose(means[row, column], square.mean((0, 1)), rtol=1e-5)


def test_colour_features_are_what_a_fresh_decoder_reads_as_that_colour():
    colors = jnp.asarray(np.linspace(0.02, 0.98, 30).reshape(10, 3))
    features = gaussian_decoder.color_features(colors)
    np.testing.assert_allclose(jax.nn.sigmoid(4 * features - 2), colors, atol=1e-6)
    ends = gaussian_decoder.color_features(jnp.array([0.0, 1.0]))
    assert np.isfinite(ends).all()


def test_a_fresh_decoder_is_float32_where_numbers_are_float64_by_default():
    config = config_lib.GaussianConfig(position="anchored")
    decoder = gaussian_decoder.GaussianDecoder(config)
    with jax.enable_x64(True):  # a warning of JAX's that types do not fit together is an error here
        params = decoder.init(jax.random.key(0), jnp.ones((1, 48), jnp.float32))["params"]
    assert {params[name]["kernel"].dtype for name in ("fc1", "fc2")} == {jnp.dtype("float32")}
