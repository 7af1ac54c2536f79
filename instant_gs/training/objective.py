"""The two objectives: expression coefficients for the head start, images for the avatar."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from instant_gs import rendering, types
from instant_gs.config import Config
from instant_gs.data import format as data_format
from instant_gs.geometry import camera as camera_lib
from instant_gs.geometry import crop
from instant_gs.losses import identity, lpips, photometric, region, residual
from instant_gs.models import AvatarModel, discriminator, unwrap
from instant_gs.training import adversary, curriculum

# Augmentation of driving crops: real boxes are never exact, real light never the teacher's.
CROP_SCALE, CROP_SHIFT = 0.1, 0.03  # of the square's side and of the image's side, either way
PHOTO_SCALE, PHOTO_SHIFT = 0.03, 0.01  # the same of photos, whose pose is read
POSE_WEIGHT = 0.1  # makes a distance of a few pixels about as large as the coefficients' errors
_POSE_FLOOR = 1e-3  # half image sides; distances below it are as good as none
COEFFICIENT_NOISE = 0.05  # of teacher-forced codes: an encoder is not exact either
CAMERA_NOISE = 0.008  # radians about each axis, of teacher-forced cameras, for the same reason
COLOR_GAIN, COLOR_GAMMA = 0.25, 0.3  # factors exp(±x) on channels and on the exponent
RAY_STREAM = 2**16  # folded into a sample's key; larger than the number of any view's key


def unit(image):
    """uint8 to float32 in [0, 1]."""
    return image.astype(jnp.float32) / 255.0


def driving_crops(model: AvatarModel, image, keys=None):
    """What the motion encoder sees of aligned images.

    Args:
        model: For the crop's size and extent.
        image: (B, S, S, 3) in [0, 1].
        keys: (B,) random keys of the augmentation; None crops exactly.

    Returns:
        (B, M, M, 3) in [-1, 1].
    """
    size = model.config.motion.image_size
    return augmented_crops(image, size, model.crop_share, CROP_SCALE, CROP_SHIFT, keys)


def augmented_crops(image, size, fraction, scale, shift, keys=None):
    """Centred squares of images (B, S, S, 3) in [0, 1]; ``keys`` (B,) move and recolour them."""
    scales = shifts = None
    if keys is not None:
        draws = jax.vmap(lambda key: jax.random.uniform(key, (7,), minval=-1))(keys)
        scales = 1 + draws[:, 0] * scale
        shifts = draws[:, 1:3] * shift
        gain = jnp.exp(draws[:, None, None, 3:6] * COLOR_GAIN)
        gamma = jnp.exp(draws[:, None, None, 6:7] * COLOR_GAMMA)
        image = jnp.clip(gain * jnp.maximum(image, 1e-4) ** gamma, 0, 1)
    return 2 * crop.motion_crop(image, size, fraction, scale=scales, shift=shifts) - 1


def motion_objective(model: AvatarModel, config: Config, params, batch: types.Batch, keys):
    """Mean squared error of the coefficients plus the invariance of the code; distance of the pose.

    Args:
        model: The model.
        config: Weights.
        params: Parameters.
        batch: All of its views are used, in pairs of one expression seen twice.
        keys: (B,) random keys of the augmentation.

    Returns:
        () loss and a dict of metrics, () but for the moments that ``of_whole_batch`` takes.
    """
    views = _join(_join(batch.source, batch.driven), _join(batch.reconstruction, batch.driver))
    count = views.image.shape[1]
    keys = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    crops = driving_crops(model, _flat(unit(views.image)), _flat(keys))
    _, predicted = model.motion_code_and_coefficients(params, crops)
    target = _flat(views.coefficients)
    error = jnp.mean((predicted - target) ** 2)
    pair = predicted.reshape(-1, 2, count // 2, predicted.shape[-1])
    invariance = jnp.mean((pair[:, 0] - pair[:, 1]) ** 2)
    loss = error + config.motion_pretrain.invariance * invariance
    metrics = {
        "coefficient_mse": error,
        "coefficient_moments": jnp.stack([target, target**2]).mean(1),
        "pair_distance": invariance,
    }
    if config.model.encoder.unwrap:
        size = unwrap.POSE_IMAGE_SIZE
        photos = augmented_crops(
            _flat(unit(views.image)), size, 1.0, PHOTO_SCALE, PHOTO_SHIFT, _flat(keys)
        )
        cameras = types.Camera(_flat(views.cam2world), _flat(views.intrinsics))
        squared = unwrap.pose_error(model.pose(params, photos), cameras)
        # The distance: near the truth the gradient of its square fades.
        loss = loss + POSE_WEIGHT * jnp.mean(jnp.sqrt(squared + _POSE_FLOOR**2))
        metrics["pose_distance"] = jnp.sqrt(squared.mean())
    return loss, metrics | {"loss": loss}


def of_whole_batch(metrics: dict) -> dict:
    """() metrics from the means of an objective's over the parts of a batch."""
    metrics = dict(metrics)
    if "coefficient_moments" in metrics:  # a part alone may show a single expression
        mean, square = metrics.pop("coefficient_moments")
        baseline = jnp.maximum(jnp.mean(square - mean**2), 1e-12)
        metrics["coefficient_r2"] = 1 - metrics["coefficient_mse"] / baseline
    return metrics


def _join(first: types.View, second: types.View) -> types.View:
    """Views (B, …) or (B, D, …) of both behind one another, (B, K, …)."""

    def listed(view):
        alone = view.coefficients.ndim == 2
        return jax.tree.map(lambda a: a[:, None], view) if alone else view

    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), listed(first), listed(second))


def _flat(array):
    """(B, K, …) to (B * K, …)."""
    return array.reshape(-1, *array.shape[2:])


def make_judges(config: Config, phase: curriculum.Phase) -> dict:
    """The networks of a phase that look at pictures, by the loss they compute."""
    builders = {
        "lpips": lambda: lpips.Lpips(config.loss.lpips_network),
        "identity": identity.IdentityLoss,
        "adversarial": lambda: make_discriminator(config),
    }
    return {name: builders[name]() for name in phase.judges}


def make_discriminator(config: Config) -> discriminator.DiscriminatorModel:
    """The discriminator of a configuration."""
    return discriminator.DiscriminatorModel(
        config.adversarial, config.model.image_size, config.model.motion.code_width
    )


def avatar_objective(model: AvatarModel, config: Config, judges, size, networks, batch, keys, step):
    """The paper's objective over both branches (arXiv 2512.16893, section 3.4).

    The reconstruction branch renders the un-animated avatar, the driven branch the animated
    one; both from viewpoints other than the source's. If there is a discriminator, its own loss
    is added: no gradient crosses between it and the avatar but the adversarial loss's.

    Args:
        model: The model.
        config: Loss weights and their schedule.
        judges: From ``make_judges``.
        size: Side in pixels of what is rendered and compared.
        networks: Parameters: "model", and "discriminator" if that is a judge.
        batch: types.Batch.
        keys: (B,) random keys of the driving crops' augmentation and of the samples along rays.
        step: () int32, steps of the avatar phase before this one.

    Returns:
        () loss and a dict of () metrics, of which "loss" is the avatar's alone.
    """
    with jax.named_scope("avatar"):
        posed = animated_and_rest(model, networks["model"], batch, keys, config)
    views = _join(batch.reconstruction, batch.driven)
    camera = types.Camera(views.cam2world, views.intrinsics)
    with jax.named_scope("render"):
        options = model.raster_options(size)
        rendered = rendering.render(
            posed.gaussians, camera, image_size=(size, size), options=options
        )
    target, alpha, regions = _targets(views, size)
    driven_count = batch.driven.image.shape[1]
    branch = jnp.array(
        [config.loss.reconstruction] + [config.loss.driven / driven_count] * driven_count
    )
    terms = {
        "l1": photometric.l1(rendered.image, target),
        "region": region.region_l1(rendered.image, target, regions, REGION_LABELS),
        "mask": photometric.l1(rendered.alpha[..., None], alpha[..., None]),
    }
    for name in ("lpips", "identity"):
        if name in judges:
            with jax.named_scope(name):
                terms[name] = judges[name](rendered.image, target)
    contest, facts = 0.0, {}
    if "adversarial" in judges:
        pair = adversary.Pair(target, rendered.image, camera, posed.codes)
        judge, critic = judges["adversarial"], networks["discriminator"]
        with jax.named_scope("adversarial"):
            terms["adversarial"] = adversary.generator_loss(judge, critic, pair)
            contest, facts = adversary.discriminator_loss(
                judge, critic, pair, config.adversarial, step
            )
    metrics = {name: (value.mean(0) @ branch) for name, value in terms.items()}
    metrics["residual"] = residual.norm(posed.residuals)
    loss = sum(curriculum.weight(name, step, config) * value for name, value in metrics.items())
    error = jnp.mean((jnp.clip(rendered.image, 0, 1) - target) ** 2, (2, 3, 4))
    psnr = -10 * jnp.log10(jnp.maximum(error, 1e-10)).mean(0)
    metrics |= facts | {
        "loss": loss,
        "psnr_reconstruction": psnr[0],
        "psnr_driven": psnr[1:].mean(),
        "region_driven": terms["region"][:, 1:].mean(),
        "overflow": rendered.overflow.mean(),  # of an image: parts and devices are averaged, too
    }
    return loss + contest, metrics


def _targets(views: types.View, size: int):
    """Images, coverage in [0, 1] and region labels, (B, K, size, size, ·), of stored views."""
    image, alpha, regions = unit(views.image), unit(views.alpha), views.regions
    factor = image.shape[2] // size
    if factor == 1:
        return image, alpha, regions
    lead = image.shape[:2]
    blocks = (*lead, size, factor, size, factor)
    middle = factor // 2  # a label is one pixel's: labels have no mean
    return (
        image.reshape(*blocks, 3).mean((3, 5)),
        alpha.reshape(blocks).mean((3, 5)),
        regions[:, :, middle::factor, middle::factor],
    )


REGION_LABELS = tuple(data_format.REGIONS.index(name) for name in ("eyes", "mouth"))


class Posed(NamedTuple):
    """Avatars of a batch: at rest first, then driven.

    Attributes:
        gaussians: (B, 1 + D, N, ·).
        residuals: (B, D, N, ·).
        codes: (B, 1 + D, C), the source's first.
    """

    gaussians: types.Gaussians
    residuals: jax.Array
    codes: jax.Array


def animated_and_rest(model, params, batch, keys, config) -> Posed:
    """Encodes the sources and moves them by their drivers; ``keys`` None draws nothing."""
    along_rays = None
    if keys is not None:
        along_rays = jax.vmap(lambda key: jax.random.fold_in(key, RAY_STREAM))(keys)
    forced = config.motion_pretrain.teacher_forcing
    photo_camera = None
    if forced and model.config.encoder.unwrap:
        photo_camera = _turned(batch.source, keys)
    photo = 2 * unit(batch.source.image) - 1
    avatar = model.encode(params, photo, photo_camera=photo_camera, keys=along_rays)
    seen = _join(batch.source, batch.driver)
    if forced:
        codes = _codes_from_coefficients(model, params, seen.coefficients, keys)
    else:
        codes = _codes_from_images(model, params, unit(seen.image), keys)
    if config.motion_pretrain.freeze:
        codes = jax.lax.stop_gradient(codes)
    driven_count = codes.shape[1] - 1
    code_source = jnp.repeat(codes[:, :1], driven_count, 1)
    rest = model.rest(params, avatar)
    spread = jax.tree.map(lambda a: jnp.repeat(a[:, None], driven_count, 1), avatar)
    moved, residuals = model.animate(params, spread, code_source, codes[:, 1:])
    both = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], 1), rest, moved)
    return Posed(both, residuals, codes)


def _turned(view: types.View, keys) -> types.Camera:
    """The known cameras (B,) of views, turned a little around the head if there are keys."""
    pose = jnp.asarray(view.cam2world)
    if keys is not None:
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (3,)))(keys)
        turned, front = (camera_lib.pose_from_angles(a) for a in (CAMERA_NOISE * noise, 0 * noise))
        turn = camera_lib.product(turned[:, :3, :3], jnp.swapaxes(front[:, :3, :3], 1, 2))
        pose = pose.at[:, :3].set(camera_lib.product(turn, pose[:, :3]))
    return types.Camera(pose, view.intrinsics)


def _codes_from_images(model, params, image, keys):
    """Codes (B, K, C) of aligned images (B, K, S, S, 3), augmented if there are keys."""
    batch, count = image.shape[:2]
    if keys is not None:
        keys = _flat(jax.vmap(lambda key: jax.random.split(key, count))(keys))
    return model.motion_code(params, driving_crops(model, _flat(image), keys)).reshape(
        batch, count, -1
    )


def _codes_from_coefficients(model, params, known, keys):
    """Codes (B, K, C) from what the teacher knows (B, K, 52), with noise if there are keys."""
    if keys is not None:
        noise = jax.vmap(lambda key: jax.random.normal(key, known.shape[1:]))(keys)
        known = known + COEFFICIENT_NOISE * noise
    return model.code_from_coefficients(params, _flat(known)).reshape(*known.shape[:2], -1)
