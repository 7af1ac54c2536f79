"""The engine on a tiny untrained model: shapes, batches, and that nothing compiles twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import instant_gs
from configs import demo
from instant_gs import models
from instant_gs.geometry import camera
from instant_gs.inference import avatar
from instant_gs.training import checkpoint

SIZE = 32


@pytest.fixture(scope="module")
def engine():
    config = demo.get_config("smoke")
    # An untrained motion decoder whose effect is seen.
    config.model.motion.residual_scale = 1.0
    return avatar.InstantAvatar(config, random_parameters(config))


def random_parameters(config):
    """Parameters of the right shapes; the model's own initialisation compiles for a minute."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(models.build(config.model).init, jax.random.key(0))

    def fill(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] != "kernel":
            return jnp.full(leaf.shape, float(names[-1] == "scale"), leaf.dtype)
        equalised = names[0] in ("decoder", "motion_decoder")  # scaled at run time
        deviation = 1.0 if equalised else (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(random.normal(0, deviation, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def test_photo_to_picture(engine, photos):
    head = engine.encode(photos[0])
    codes = engine.motion_code(photos)
    assert codes.shape == (2, 512) and head.features.shape == (256, 32)
    gaussians = engine.animate(head, codes[0], codes[1])
    assert gaussians.means.shape == (256, 3)
    rendered = engine.render(gaussians, camera.orbit_camera(0.3, 0.1))
    assert rendered.image.shape == (SIZE, SIZE, 3) and rendered.alpha.shape == (SIZE, SIZE)
    assert 0.05 < float(rendered.alpha.mean()) < 0.95, "something is seen, not everything"


def test_frame_is_the_same_as_its_steps(engine, photos):
    head, codes = engine.encode(photos[0]), engine.motion_code(photos)
    view = camera.orbit_camera(0.2, 0.0)
    picture, gaussians = engine.frame(head, codes[0], photos[1], view, SIZE)
    steps = engine.animate(head, codes[0], codes[1])
    np.testing.assert_allclose(gaussians.means, steps.means, atol=1e-5)
    image = np.clip(engine.render(steps, view).image, 0, 1) * 255
    assert picture.dtype == np.uint8
    assert np.abs(image - np.asarray(picture, np.float32)).max() < 1.5
    still = engine.render(engine.rest(head), view).image
    assert np.abs(np.asarray(still) * 255 - image).max() > 2, "the driving face moves it"


def test_float_and_uint8_and_batches_agree(engine, photos):
    one = engine.encode(photos[1])
    real = engine.encode(photos[1].astype(np.float32) / 255)
    both = engine.encode(photos)
    np.testing.assert_allclose(one.features, real.features, atol=1e-5)
    np.testing.assert_allclose(one.features, both.features[1], atol=1e-4)
    rendered = engine.render(engine.rest(both))
    assert rendered.image.shape == (2, SIZE, SIZE, 3)


def test_frames_compile_once(engine, photos):
    head, code = engine.encode(photos[0]), engine.motion_code(photos)[0]
    engine.frame(head, code, photos[1], camera.orbit_camera(0.0, 0.0), SIZE)
    before = engine._frame._cache_size()
    for yaw in (0.1, 0.2):
        engine.frame(head, code, photos[0], camera.orbit_camera(yaw, 0.0), SIZE)
    assert engine._frame._cache_size() == before


def test_wrong_shape_says_what_to_do(engine):
    with pytest.raises(ValueError, match=r"image: expected shape \(32, 32, 3\).*align"):
        engine.encode(np.zeros((64, 64, 3), np.uint8))


def test_load_reads_what_training_exported(engine, photos, tmp_path):
    checkpoint.save_weights(tmp_path / "weights", engine.config, engine.params, {"commit": "x"})
    loaded = instant_gs.load(tmp_path / "weights")
    assert loaded.config == engine.config
    # Stored in bfloat16.
    np.testing.assert_allclose(
        loaded.motion_code(photos), engine.motion_code(photos), rtol=0.05, atol=0.05
    )
    with pytest.raises(FileNotFoundError, match="no such folder of weights"):
        instant_gs.load(tmp_path / "nowhere")


def test_the_driver_as_numbers(engine, photos):
    """Motion replays what the codes do; crops may be given instead of aligned images."""
    head, codes = engine.encode(photos[0]), engine.motion_code(photos)
    motion = engine.motion(codes[0], codes[1])
    assert (
        motion.scale.shape == motion.shift.shape == (engine.config.model.gaussians.feature_width,)
    )
    slow, fast = engine.animate(head, codes[0], codes[1]), engine.animate(head, motion)
    np.testing.assert_allclose(fast.means, slow.means, atol=1e-5)
    planes = engine.planes(photos.astype(np.float32) / 127.5 - 1)
    assert planes.shape[0] == 2 and planes.shape[2:4] == (SIZE // 2, SIZE // 2)
    with pytest.raises(ValueError, match=r"images: expected shape"):
        engine.planes(photos[:, 1:])
