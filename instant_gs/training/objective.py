"""The two objectives: expression coefficients for the head start, images for the avatar."""

import jax
import jax.numpy as jnp

from instant_gs import rendering, types
from instant_gs.config import Config
from instant_gs.data import format as data_format
from instant_gs.geometry import crop
from instant_gs.losses import photometric, region, residual
from instant_gs.models import AvatarModel

# Augmentation of driving crops: real boxes are never exact, real light never the teacher's.
CROP_SCALE, CROP_SHIFT = 0.1, 0.03  # of the square's side and of the image's side, either way
COEFFICIENT_NOISE = 0.05  # of teacher-forced codes: an encoder is not exact either
COLOR_GAIN, COLOR_GAMMA = 0.25, 0.3  # factors exp(±x) on channels and on the exponent


def unit(image):
    """uint8 to float32 in [0, 1]."""
    return image.astype(jnp.float32) / 255.0


def driving_crops(model: AvatarModel, image, key=None):
    """What the motion encoder sees of aligned images.

    Args:
        model: For the crop's size.
        image: (B, S, S, 3) in [0, 1].
        key: Random key of the augmentation; None crops exactly.

    Returns:
        (B, M, M, 3) in [-1, 1].
    """
    size, scale, shift = model.config.motion.image_size, None, None
    if key is not None:
        keys = jax.random.split(key, 4)
        batch = image.shape[0]
        scale = 1 + jax.random.uniform(keys[0], (batch,), minval=-1) * CROP_SCALE
        shift = jax.random.uniform(keys[1], (batch, 2), minval=-1) * CROP_SHIFT
        gain = jnp.exp(jax.random.uniform(keys[2], (batch, 1, 1, 3), minval=-1) * COLOR_GAIN)
        gamma = jnp.exp(jax.random.uniform(keys[3], (batch, 1, 1, 1), minval=-1) * COLOR_GAMMA)
        image = jnp.clip(gain * jnp.maximum(image, 1e-4) ** gamma, 0, 1)
    crops = crop.motion_crop(image, size, data_format.MOTION_CROP, scale=scale, shift=shift)
    return 2 * crops - 1


def motion_objective(model: AvatarModel, config: Config, params, batch: types.Batch, key):
    """Mean squared error of the coefficients plus the invariance of the code.

    Args:
        model: The model.
        config: Weights.
        params: Parameters.
        batch: All of its views are used, in pairs of one expression seen twice.
        key: Random key of the augmentation.

    Returns:
        () loss and a dict of () metrics.
    """

    first = [batch.source, batch.driven]
    second = [batch.reconstruction, batch.driver]

    def images(views):
        return jnp.concatenate([unit(v.image).reshape(-1, *v.image.shape[-3:]) for v in views])

    def targets(views):
        return jnp.concatenate([v.coefficients.reshape(-1, 52) for v in views])

    crops = driving_crops(model, jnp.concatenate([images(first), images(second)]), key)
    _, predicted = model.motion_code_and_coefficients(params, crops)
    target = jnp.concatenate([targets(first), targets(second)])
    error = jnp.mean((predicted - target) ** 2)
    pair = predicted.reshape(2, -1, predicted.shape[-1])
    invariance = jnp.mean((pair[0] - pair[1]) ** 2)
    baseline = jnp.mean((target - target.mean(0, keepdims=True)) ** 2)
    loss = error + config.motion_pretrain.invariance * invariance
    return loss, {
        "loss": loss,
        "coefficient_mse": error,
        "coefficient_r2": 1 - error / jnp.maximum(baseline, 1e-12),
        "pair_distance": invariance,
    }


def avatar_objective(model: AvatarModel, config: Config, perceptual, params, batch, key):
    """The paper's image objective over both branches (arXiv 2512.16893, section 3.4).

    The reconstruction branch renders the un-animated avatar, the driven branch the animated
    one; both from viewpoints other than the source's.

    Args:
        model: The model.
        config: Loss weights.
        perceptual: ``losses.lpips.Lpips``, or None when its weight is 0.
        params: Parameters.
        batch: types.Batch.
        key: Random key of the driving crops' augmentation.

    Returns:
        () loss and a dict of () metrics.
    """
    gaussians, residuals = animated_and_rest(model, params, batch, key, config)
    views = jax.tree.map(
        lambda a, b: jnp.concatenate([a[:, None], b], 1), batch.reconstruction, batch.driven
    )
    rendered = rendering.render(
        gaussians,
        types.Camera(views.cam2world, views.intrinsics),
        image_size=views.image.shape[-3:-1],
    )
    target = unit(views.image)
    driven_count = batch.driven.image.shape[1]
    branch = jnp.array(
        [config.loss.reconstruction] + [config.loss.driven / driven_count] * driven_count
    )
    terms = {
        "l1": photometric.l1(rendered.image, target),
        "region": region.region_l1(rendered.image, target, views.regions, REGION_LABELS),
        "mask": photometric.l1(rendered.alpha[..., None], unit(views.alpha)[..., None]),
    }
    if perceptual is not None:
        terms["lpips"] = perceptual(rendered.image, target)
    metrics = {name: (value.mean(0) @ branch) for name, value in terms.items()}
    metrics["residual"] = residual.norm(residuals)
    loss = sum(getattr(config.loss, name) * value for name, value in metrics.items())
    error = jnp.mean((jnp.clip(rendered.image, 0, 1) - target) ** 2, (0, 2, 3, 4))
    metrics |= {
        "loss": loss,
        "psnr_reconstruction": -10 * jnp.log10(error[0]),
        "psnr_driven": -10 * jnp.log10(error[1:].mean()),
        "region_driven": terms["region"][:, 1:].mean(),
        "overflow": rendered.overflow.sum(),
    }
    return loss, metrics


REGION_LABELS = tuple(data_format.REGIONS.index(name) for name in ("eyes", "mouth"))


def animated_and_rest(model, params, batch, key, config):
    """Gaussians (B, 1 + D, N, ·): at rest first, then driven; and the residuals (B, D, N, ·)."""
    source = unit(batch.source.image)
    avatar = model.encode(params, 2 * source - 1)
    count, driven_count = batch.driver.image.shape[:2]
    if config.motion_pretrain.teacher_forcing:
        codes = _codes_from_coefficients(model, params, batch, key)
    else:
        drivers = unit(batch.driver.image).reshape(-1, *source.shape[1:])
        crops = driving_crops(model, jnp.concatenate([source, drivers]), key)
        codes = model.motion_code(params, crops)
    if config.motion_pretrain.freeze:
        codes = jax.lax.stop_gradient(codes)
    code_source = jnp.repeat(codes[:count, None], driven_count, 1)
    code_driving = codes[count:].reshape(count, driven_count, -1)
    rest = model.rest(params, avatar)
    spread = jax.tree.map(lambda a: jnp.repeat(a[:, None], driven_count, 1), avatar)
    moved, residuals = model.animate(params, spread, code_source, code_driving)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], 1), rest, moved)
    return both, residuals


def _codes_from_coefficients(model, params, batch, key):
    """Codes (B + B * D, C) of the sources and drivers, from what the teacher knows."""
    width = batch.source.coefficients.shape[-1]
    known = jnp.concatenate(
        [batch.source.coefficients, batch.driver.coefficients.reshape(-1, width)]
    )
    if key is not None:
        known = known + COEFFICIENT_NOISE * jax.random.normal(key, known.shape)
    return model.code_from_coefficients(params, known)
