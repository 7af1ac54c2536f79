"""What the objectives compare with what, and how much each comparison counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import rendering, types
from instant_gs.config import Config, LossSteps
from instant_gs.training import curriculum, objective

BATCH, DRIVEN, SIZE = 2, 2, 8
EYES, MOUTH = 2, 3  # labels of teacher packs
GREY, COVERAGE, RESIDUAL = 0.5, 0.25, 3.0  # what every avatar here looks like


class _Model:
    """Its motion code is a picture's brightness, or the coefficients where they are known."""

    config = Config().model
    crop_share = 0.625

    def raster_options(self, size):
        return None

    def encode(self, params, photo, *, photo_camera, keys):
        return photo.mean((1, 2))

    def rest(self, params, avatar):
        return avatar

    def animate(self, params, avatar, source, driving):
        return avatar, avatar

    def motion_code(self, params, crops):
        return crops.mean((1, 2, 3))[:, None]

    def motion_code_and_coefficients(self, params, crops):
        code = self.motion_code(params, crops)
        return code, jnp.repeat(code, 52, 1)

    def code_from_coefficients(self, params, known):
        return known


@pytest.fixture
def config():
    """The two branches count differently."""
    config = Config()
    config.loss.reconstruction, config.loss.driven = 2.0, 3.0
    return config


@pytest.fixture
def batch():
    """Pictures of blocks of 2 x 2, so that they are the same at half their size."""
    rng = np.random.default_rng(0)

    def view(*lead):
        def blocks(stop, *channels):
            drawn = rng.integers(0, stop, (*lead, SIZE // 2, SIZE // 2, *channels), np.uint8)
            return drawn.repeat(2, len(lead)).repeat(2, len(lead) + 1)

        pose, intrinsics = np.zeros((*lead, 4, 4)), np.zeros((*lead, 3, 3))
        known = rng.random((*lead, 52), np.float32)
        return types.View(blocks(256, 3), blocks(256), blocks(5), pose, intrinsics, known)

    pair = (BATCH, DRIVEN)
    return types.Batch(view(BATCH), view(BATCH), view(*pair), view(*pair))


@pytest.fixture
def measure(config, batch, monkeypatch):
    """(size, step, judges) to the loss and the metrics of avatars that are evenly grey."""

    def render(gaussians, camera, *, image_size, options):
        shape = (*camera.intrinsics.shape[:2], *image_size)
        image, alpha = jnp.full((*shape, 3), GREY), jnp.full(shape, COVERAGE)
        return rendering.Rendered(image, alpha, alpha, jnp.zeros(shape[:2]))

    residuals = jnp.zeros((BATCH, DRIVEN, 5, 4)).at[..., 0].set(RESIDUAL)
    posed = objective.Posed(None, residuals, None)
    monkeypatch.setattr(objective, "animated_and_rest", lambda *_: posed)
    monkeypatch.setattr(rendering, "render", render)
    networks = {"model": {}, "discriminator": {}}

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def measured(size, step, judges):
        return objective.avatar_objective(
            _Model(), config, dict(judges), size, networks, batch, None, step
        )

    return lambda size=SIZE, step=0, judges=(): measured(size, jnp.int32(step), judges)


@pytest.fixture
def uncropped(monkeypatch):
    """The motion encoder sees the pictures themselves."""
    monkeypatch.setattr(objective, "driving_crops", lambda model, image, keys: image)


def _over_branches(config, batch, error):
    """The mean of ``error(view)`` over pictures, as the two branches should count."""
    at_rest, driven = error(batch.reconstruction).mean(), error(batch.driven).mean()
    return config.loss.reconstruction * at_rest + config.loss.driven * driven


def _color_error(view):
    return np.abs(GREY - view.image / 255).mean(-1)


def _region_error(view):
    """Of each picture, over eyes and mouth alone."""
    counts = (view.regions == EYES) | (view.regions == MOUTH)
    assert counts.any((-2, -1)).all()
    return (_color_error(view) * counts).sum((-2, -1)) / counts.sum((-2, -1))


def _psnr(view):
    error = np.square(GREY - view.image / 255).mean((-3, -2, -1))
    return -10 * np.log10(error).mean()


@pytest.mark.parametrize("size", [SIZE, SIZE // 2])
def test_pictures_coverage_eyes_and_mouth_are_compared_at_any_size(config, batch, measure, size):
    _, metrics = measure(size)
    expected = {
        "l1": _over_branches(config, batch, _color_error),
        "region": _over_branches(config, batch, _region_error),
        "mask": _over_branches(config, batch, lambda view: np.abs(COVERAGE - view.alpha / 255)),
        "psnr_reconstruction": _psnr(batch.reconstruction),
        "psnr_driven": _psnr(batch.driven),
        "region_driven": _region_error(batch.driven).mean(),
    }
    found = {name: float(metrics[name]) for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)


def test_losses_count_by_their_weights_and_grow_along_their_ramps(config, measure):
    weights = {"l1": 0.7, "region": 0.2, "mask": 0.3, "residual": 0.05}
    for name, weight in weights.items():
        setattr(config.loss, name, weight)
    config.loss.start, config.loss.ramp = LossSteps(), LossSteps(mask=4)
    for step, mask in ((0, 0.25), (1, 0.5), (9, 1.0)):
        loss, metrics = measure(step=step)
        assert metrics["residual"] == pytest.approx(RESIDUAL)
        shares = {name: 1.0 for name in weights} | {"mask": mask}
        expected = sum(shares[name] * weights[name] * metrics[name] for name in weights)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        assert metrics["loss"] == loss


def test_networks_compare_what_is_drawn_with_the_truth(config, batch, measure):
    def apart(drawn, true):
        return (drawn - true).mean((2, 3, 4))

    class Critic:
        @staticmethod
        def logits(params, image, camera, codes):
            return image.mean((2, 3, 4))

    config.loss.start = LossSteps()
    config.adversarial.r1 = 0.0
    loss, metrics = measure(step=5000, judges=(("lpips", apart), ("adversarial", Critic)))
    assert metrics["lpips"] == pytest.approx(
        _over_branches(config, batch, lambda view: GREY - view.image / 255), rel=1e-4
    )
    in_doubt = np.log(2)  # the logit of grey is 0
    assert metrics["adversarial"] == pytest.approx((2.0 + 3.0) * in_doubt, rel=1e-5)
    views = np.concatenate([batch.reconstruction.image[:, None], batch.driven.image], 1)
    of_true = np.log1p(np.exp(1 - 2 * views.mean((2, 3, 4)) / 255)).mean()
    assert metrics["discriminator"] == pytest.approx(of_true + in_doubt, rel=1e-5)
    assert float(loss - metrics["loss"]) == pytest.approx(of_true + in_doubt, rel=1e-4)


def test_the_perceptual_network_is_the_configured_one(config, monkeypatch):
    monkeypatch.setattr(objective.lpips, "Lpips", lambda network="default": network)
    config.loss.lpips_network = "alexnet"
    phase = curriculum.Phase("avatar", SIZE, ("lpips",))
    assert objective.make_judges(config, phase) == {"lpips": "alexnet"}


def test_the_first_picture_is_the_avatar_at_rest_and_drivers_move_the_others(
    config, batch, uncropped
):
    class Model(_Model):
        def animate(self, params, avatar, source, driving):
            return avatar + source - 2 * driving, source

    posed = objective.animated_and_rest(Model(), {}, batch, None, config)
    face = 2 * batch.source.image.mean((1, 2)) / 255 - 1
    source = batch.source.image.mean((1, 2, 3)).reshape(BATCH, 1, 1) / 255
    driver = batch.driver.image.mean((2, 3, 4))[..., None] / 255
    np.testing.assert_allclose(posed.gaussians[:, 0], face, rtol=1e-5)
    moved = face[:, None] + source - 2 * driver
    np.testing.assert_allclose(posed.gaussians[:, 1:], moved, rtol=1e-5)
    np.testing.assert_allclose(posed.residuals, source.repeat(DRIVEN, 1), rtol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_pictures_teach_the_motion_encoder_unless_it_is_frozen(config, batch, uncropped, freeze):
    class Model(_Model):
        def motion_code(self, params, crops):
            return params * super().motion_code(params, crops)

    config.motion_pretrain.freeze = freeze

    def code(params):
        return objective.animated_and_rest(Model(), params, batch, None, config).codes.sum()

    assert (float(jax.grad(code)(1.0)) == 0.0) is freeze


def test_every_crop_for_training_is_disturbed_in_its_own_way(config, batch, monkeypatch):
    settings, drawn = [], []

    def crops(image, size, fraction, scale, shift, keys=None):
        settings.append((size, fraction, scale, shift))
        drawn.append(keys)
        return image

    class Model(_Model):
        def pose(self, params, photos):
            return photos

    @jax.jit
    def measured(keys):
        loss, metrics = objective.motion_objective(Model(), config, {}, batch, keys)
        for own in (keys, None):
            objective.animated_and_rest(_Model(), {}, batch, own, config)
        return loss, metrics, drawn

    monkeypatch.setattr(objective, "augmented_crops", crops)
    monkeypatch.setattr(objective.unwrap, "pose_error", lambda found, true: jnp.full(4, 9.0))
    config.model.encoder.unwrap = 8
    loss, metrics, drawn = measured(jax.random.split(jax.random.key(0), BATCH))
    photo = (objective.unwrap.POSE_IMAGE_SIZE, 1.0, objective.PHOTO_SCALE, objective.PHOTO_SHIFT)
    size, share = _Model.config.motion.image_size, _Model.crop_share
    face = (size, share, objective.CROP_SCALE, objective.CROP_SHIFT)
    assert settings == [face, photo, face, face]
    counts = [len(np.unique(jax.random.key_data(keys), axis=0)) for keys in drawn[:3]]
    views = BATCH * (1 + DRIVEN)
    assert counts == [2 * views, 2 * views, views] and drawn[3] is None
    # The pose counts by its distance, not by that squared.
    read = metrics["coefficient_mse"] + config.motion_pretrain.invariance * metrics["pair_distance"]
    assert float(loss - read) == pytest.approx(objective.POSE_WEIGHT * 3.0, rel=1e-4)
    assert metrics["pose_distance"] == 3.0


def test_who_drives_is_the_driver_and_not_the_target(config, batch, uncropped):
    codes = objective.animated_and_rest(_Model(), {}, batch, None, config).codes
    for found, view in ((codes[:, :1], batch.source), (codes[:, 1:], batch.driver)):
        expected = view.image.mean((-3, -2, -1)).reshape(BATCH, -1, 1) / 255
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_known_coefficients_are_disturbed_as_an_encoder_would(config, batch):
    config.motion_pretrain.teacher_forcing = True

    def error(keys):
        posed = jax.jit(lambda k: objective.animated_and_rest(_Model(), {}, batch, k, config))
        codes = posed(keys).codes
        known = batch.source.coefficients[:, None], batch.driver.coefficients
        return codes - np.concatenate(known, 1)

    np.testing.assert_array_equal(error(None), 0.0)
    disturbed = error(jax.random.split(jax.random.key(0), BATCH))
    assert np.std(disturbed) == pytest.approx(objective.COEFFICIENT_NOISE, rel=0.25)
    assert len(np.unique(disturbed.round(6))) > 0.9 * disturbed.size  # each of its own


def test_one_expression_seen_twice_should_be_read_alike(config, batch, uncropped):
    config.motion_pretrain.invariance = 0.5
    keys = jax.random.split(jax.random.key(0), BATCH)
    read_alike = jax.jit(lambda k: objective.motion_objective(_Model(), config, {}, batch, k))
    loss, metrics = read_alike(keys)

    def read(view):
        return view.image.mean((-3, -2, -1)).reshape(BATCH, -1) / 255

    twice = [(batch.source, batch.reconstruction), (batch.driven, batch.driver)]
    apart = np.concatenate([(read(one) - read(other)) ** 2 for one, other in twice], 1).mean()
    assert apart > 1e-4
    assert metrics["pair_distance"] == pytest.approx(apart, rel=1e-4)
    assert float(loss) == pytest.approx(float(metrics["coefficient_mse"]) + 0.5 * apart, rel=1e-5)


def test_crops_for_training_are_moved_and_scaled_as_far_as_real_boxes():
    count, side, scale, shift = 16, 64, objective.CROP_SCALE, objective.CROP_SHIFT
    square = np.zeros((side, side, 3), np.float32)
    square[side // 4 : -side // 4, side // 4 : -side // 4] = 0.5
    image = jnp.broadcast_to(square, (count, *square.shape))

    @jax.jit
    def crops(keys):
        both = (None, keys)
        return [objective.augmented_crops(image, side, 1.0, scale, shift, k) for k in both]

    plain, drawn = map(np.asarray, crops(jax.random.split(jax.random.key(0), count)))
    np.testing.assert_allclose(plain, 2 * image - 1, atol=1e-5)
    light = (drawn[:, side // 2, side // 2] + 1) / 2
    gain, gamma = np.exp(objective.COLOR_GAIN), np.exp(objective.COLOR_GAMMA)
    assert 0.5**gamma / gain < light.min() < 0.4 and 0.6 < light.max() < 0.5 ** (1 / gamma) * gain
    assert np.ptp(light, axis=1).min() > 0.01, "each channel has its own gain"
    drawn = drawn[..., 0]
    shown = drawn > (drawn.min((1, 2), keepdims=True) + drawn.max((1, 2), keepdims=True)) / 2
    sides = np.sqrt(shown.sum((1, 2))) / (side / 2)
    assert 1 / (1 + scale) - 0.03 < sides.min() < 0.97
    assert 1.03 < sides.max() < 1 / (1 - scale) + 0.03
    centres = np.stack([np.argwhere(one).mean(0) for one in shown]) / side - 0.5
    assert (centres.std(0) > shift / 4).all()
    assert np.abs(centres).max() < shift / (1 - scale) + 1 / side
