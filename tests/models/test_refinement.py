"""What the Gaussians draw beside the photo: what is hidden, what sticks out, and which way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import models, rendering, types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder, refinement

SIZE = 48
LEFT = 0.5 * np.pi  # a camera at the head's left, +x, which sees +z at its left


def _camera(yaw=0.0):
    intrinsics = jnp.asarray(camera_lib.intrinsics(), jnp.float32)
    return types.Camera(jnp.asarray(camera_lib.look_at(yaw, 0.0), jnp.float32), intrinsics)


def _disc(x=0.5, radius=0.25):
    """A grey disc (SIZE, SIZE, 1) with a soft edge; ``x`` and ``radius`` in image sides."""
    position = (np.arange(SIZE) + 0.5) / SIZE
    distance = np.hypot(*np.meshgrid(position - x, position - 0.5)) - radius
    return jnp.asarray(np.clip(0.5 - distance * SIZE / 2, 0, 1)[..., None], jnp.float32)


def _seen(means, disc_drawn, disc_photo, camera, depth):
    """``_compare`` of grey discs, by name; ``depth`` is where the drawn one lies."""
    drawn = rendering.Rendered(
        0.5 * jnp.repeat(disc_drawn, 3, -1), disc_drawn[..., 0], depth * disc_drawn[..., 0], 0
    )
    means = jnp.asarray(means, jnp.float32)
    colors, seen = refinement._compare(means, drawn, 0.5 * jnp.repeat(disc_photo, 3, -1), camera)
    names = ["alpha", "inside", "difference", "", "", "uncovered"]
    names += ["difference around", "", "", "uncovered around", "presence"]
    names += ["mirrored alpha", "mirrored inside", "x", "y", "z", "behind", "mirrored behind"]
    assert seen.shape[-1] == len(names) + 2  # and how the cells face the camera
    return colors, dict(zip(names, np.asarray(seen).T, strict=False))


@pytest.mark.parametrize("move", [(0.6, 0.0), (0.0, -0.9), (-0.4, 0.4)])
def test_misalignment_is_how_far_a_picture_moved(move):
    rows, columns = jnp.meshgrid(jnp.arange(SIZE), jnp.arange(SIZE), indexing="ij")

    def picture(right, down):
        x, y = columns - right, rows - down
        waves = [jnp.sin(0.3 * x + 0.2 * y), jnp.cos(0.25 * x - 0.3 * y), jnp.sin(0.35 * y)]
        return 0.5 + 0.4 * jnp.stack(waves, -1)

    found = refinement.misalignment(picture(0.0, 0.0), picture(*move))[6:-6, 6:-6]
    np.testing.assert_allclose(np.median(found, (0, 1)), move, atol=0.12)


def test_misalignment_of_what_has_no_structure_is_none():
    flat = jnp.full((SIZE, SIZE, 3), 0.5)
    np.testing.assert_array_equal(refinement.misalignment(flat, flat), 0.0)
    assert np.isfinite(refinement.misalignment(0 * flat, flat)).all()
    assert np.abs(refinement.misalignment(_disc(0.3), _disc(0.7))).max() <= 3.0


def test_a_place_behind_what_was_drawn_knows_it():
    camera = _camera(LEFT)
    distance = float(jnp.linalg.norm(camera.cam2world[:3, 3]))
    means = np.zeros((4, 3))
    means[:, 0] = [0.1, 0.0, -0.02, -0.1]  # from the near side to the far one
    for opacity in (1.0, 0.2):
        _, seen = _seen(means, opacity * _disc(), _disc(), camera, distance)
        np.testing.assert_allclose(seen["behind"], [-1.0, 0.0, 0.4, 1.0], atol=1e-3)
        np.testing.assert_allclose(seen["mirrored behind"], [1.0, 0.0, -0.4, -1.0], atol=1e-3)


def test_a_place_knows_what_its_mirror_image_shows():
    means = np.array([[0.2, 0.0, 0.0], [-0.2, 0.0, 0.0]] * 2)
    _, seen = _seen(means, _disc(x=0.75, radius=0.2), _disc(), _camera(), 2.7)
    np.testing.assert_allclose(seen["alpha"][:2], [1, 0], atol=1e-3)
    np.testing.assert_allclose(seen["mirrored alpha"][:2], [0, 1], atol=1e-3)


def test_the_error_counts_colours_and_three_tenths_of_coverage():
    photo = jnp.zeros((4, 4, 3)).at[:, 2:].set(0.5)
    drawn = rendering.Rendered(0 * photo, jnp.full((4, 4), 0.5), None, 0)
    assert float(refinement.error(drawn, photo)) == pytest.approx(0.125 + 0.3 * 0.25)


def test_a_step_goes_down_the_slope():
    """A usual slope is worth about 1; ten times as much goes little farther than the usual one."""
    camera = jax.tree.map(lambda a: a[None], _camera())
    photo, means = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4, 3))
    drawn = rendering.Rendered(photo, photo[..., 0], photo[..., 0], jnp.zeros(1, int))
    features = jax.random.normal(jax.random.key(0), (1, 4, 5))
    slope = jnp.array([1.0, -1.0, 10.0, -10.0] * 5).reshape(1, 4, 5) / 300
    module, inputs = refinement.Refinement(), (features, slope, means, drawn, photo, camera)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)["params"]
    params["blend"]["bias"] = jnp.array([50.0, 0.0, 0.0])
    params["step"]["bias"] = jnp.ones(5)
    out = jax.jit(module.apply)({"params": params}, *inputs)
    down = np.ravel(features - out) * np.sign(np.ravel(slope))
    usual, large = down.reshape(-1, 2, 2).transpose(1, 0, 2)
    assert ((usual > 0.8) & (usual < 1.0)).all()
    assert ((large > usual + 1.5) & (large < usual + np.log(10))).all()


def test_an_outline_that_is_too_wide_says_where_to_go():
    """The drawn head is wider than the photo's: at its edges the way is inwards, in the world."""
    for yaw, axis in ((0.0, "x"), (LEFT, "z")):
        means = np.zeros((4, 3))
        means[:, "xyz".index(axis)] = [0.2, -0.2, 0.0, 0.0]
        _, seen = _seen(means, _disc(radius=0.275), _disc(radius=0.25), _camera(yaw), 2.0)
        assert seen[axis][0] < -0.3 and seen[axis][1] > 0.3
        assert np.abs(seen[axis][2:]).max() < 1e-3
        assert (seen["uncovered around"][:2] < -0.05).all()  # more was drawn than there is
        other = "z" if axis == "x" else "x"
        assert np.abs(seen[other]).max() < 0.05


def test_colours_are_those_of_the_photo_at_both_places():
    means = np.array([[0.12, 0.0, 0.0], [-0.12, 0.0, 0.0]] * 2)
    photo = jnp.zeros((SIZE, SIZE, 3)).at[:, SIZE // 2 :, 0].set(0.8)  # red at the right
    black = jnp.zeros((SIZE, SIZE))
    drawn = rendering.Rendered(0 * photo, black, black, 0)
    (there, mirrored), _ = refinement._compare(jnp.asarray(means), drawn, photo, _camera())
    np.testing.assert_allclose(there[:2, 0], [0.8, 0.0], atol=1e-6)
    np.testing.assert_allclose(mirrored[:2, 0], [0.0, 0.8], atol=1e-6)


def test_a_fresh_refinement_leaves_shapes_alone_and_colours_nearly():
    module = refinement.Refinement()
    camera = jax.tree.map(lambda a: a[None], _camera())
    means, photo = jnp.zeros((1, 4, 3)), jnp.full((1, SIZE, SIZE, 3), 0.5)
    drawn = rendering.Rendered(photo, photo[..., 0], photo[..., 0], jnp.zeros(1, int))
    color = gaussian_decoder.color_features(jnp.full((1, 4, 3), 0.4))
    features = jnp.concatenate([color, jnp.full((1, 4, 5), 7.0)], -1)
    slope = jnp.ones_like(features)
    params = module.init(jax.random.key(0), features, slope, means, drawn, photo, camera)
    out = module.apply(params, features, slope, means, drawn, photo, camera)
    np.testing.assert_array_equal(out[..., 3:], 7.0)
    np.testing.assert_allclose(jax.nn.sigmoid(4 * out[..., :3] - 2), 0.4, atol=0.02)

    def total(slope, means):
        return module.apply(params, features, slope, means, drawn, photo, camera).sum()

    for gradient in jax.grad(total, (0, 1))(slope, means):
        np.testing.assert_array_equal(gradient, 0.0)  # where to look is not learned here


def _smoke_model():
    model = models.build(demo.get_config("smoke").model)
    return model, model.init(jax.random.key(0))


def test_pictures_do_not_teach_where_a_photo_was_taken_from(monkeypatch):
    """A camera follows the pose that is read, and its gradient ends there."""
    monkeypatch.setattr(models.AvatarModel, "pose", lambda self, params, image: params)
    model = models.build(demo.get_config("smoke").model)
    angles = jnp.array([[0.3, 0.1, 0.05]])

    @jax.jit
    def gradient(angles):
        return jax.grad(lambda a: model.camera(a, a).cam2world.sum())(angles)

    np.testing.assert_array_equal(gradient(angles), 0.0)
    expected = camera_lib.look_at(0.3, 0.1, roll_rad=0.05)
    np.testing.assert_allclose(model.camera(angles, angles).cam2world[0], expected, atol=1e-5)


def test_encoding_compares_the_photo_with_what_is_drawn_twice(monkeypatch):
    model, params = _smoke_model()
    config = model.config
    kernel = params["refinement"]["correction"]["kernel"]
    params["refinement"]["correction"]["kernel"] = jnp.ones_like(kernel)
    photo = jnp.full((1, config.image_size, config.image_size, 3), 0.2)
    seen = []

    def render(gaussians, camera, image_size, options):
        assert options.mode == config.raster_mode
        assert image_size == (config.image_size, config.image_size)
        jax.debug.callback(lambda *args: seen.append(args), gaussians, camera)
        return real(gaussians, camera, image_size=image_size, options=options)

    real = rendering.render
    monkeypatch.setattr(rendering, "render", render)
    drawn = jax.jit(lambda p: model.encode(p, photo).features)(params)
    jax.effects_barrier()
    (first, camera), (second, _) = seen
    assert first.means.shape == (1, config.gaussians.grid**2, 3)
    assert np.abs(first.colors - second.colors).max() > 1e-3  # what the first look corrected
    read = jax.jit(model.camera)(params, photo)
    np.testing.assert_allclose(camera.cam2world, read.cam2world, atol=1e-6)

    def nothing(*args, **kwargs):
        return jax.tree.map(jnp.zeros_like, real(*args, **kwargs))

    monkeypatch.setattr(rendering, "render", nothing)
    changed = jax.jit(lambda p: model.encode(p, photo).features)(params) - drawn
    assert np.abs(changed).max() > 1e-3


def test_a_step_down_the_slope_makes_the_drawing_more_like_the_photo():
    model, params = _smoke_model()
    size = model.config.image_size
    photo = (
        jnp.zeros((1, size, size, 3)).at[:, size // 4 : -size // 4, size // 4 : -size // 4].set(0.7)
    )
    keep_colors = jnp.array([50.0, 0.0, 0.0])
    params["refinement"]["blend"]["bias"] = keep_colors

    @jax.jit
    def error(params):
        resting = model.rest(params, model.encode(params, 2 * photo - 1))
        camera = model.camera(params, 2 * photo - 1)
        drawn = rendering.render(resting, camera, image_size=(size, size))
        return jax.vmap(refinement.error)(drawn, photo)[0]

    unchanged = error(params)
    bias = params["refinement"]["step"]["bias"]
    params["refinement"]["step"]["bias"] = jnp.full_like(bias, 0.02)
    assert error(params) < 0.9 * unchanged
