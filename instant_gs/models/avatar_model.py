"""The whole model as pure functions over a nested dict of parameters."""

import dataclasses

import jax
import jax.numpy as jnp

from instant_gs import config as config_lib
from instant_gs import rendering, types
from instant_gs.geometry import camera as camera_lib
from instant_gs.geometry import crop as crop_lib
from instant_gs.models import (
    encoder,
    fan,
    folded,
    gaussian_decoder,
    head_surface,
    instantiation,
    motion,
    refinement,
    reprojection,
    unwrap,
)

RAY_SEED = 0  # of the ray mode's jitter when no keys are given: two evaluations agree


@dataclasses.dataclass(frozen=True, eq=False)
class AvatarModel:
    """Photo -> avatar -> animated Gaussians.

    Parameters are ``{"backbone", "decoder", "motion_decoder", "motion_encoder"}``, and
    "pose_encoder", "reprojection" and "refinement" if photos are unwrapped, each a nested dict of
    float32 arrays;
    with the "fan" motion encoder, "motion_encoder" holds that network's ``params``,
    ``batch_stats`` and ``constants``, none of which is trained. All methods are pure and jit-able;
    ``self`` is static.

    Attributes:
        config: Sizes; must not change afterwards.
    """

    config: config_lib.ModelConfig

    @property
    def _backbone(self):
        width = self.config.gaussians.feature_width
        return encoder.Backbone(self.config.encoder, width, self.config.dtype)

    @property
    def _decoder(self):
        return gaussian_decoder.GaussianDecoder(self.config.gaussians)

    @property
    def _motion_decoder(self):
        return motion.MotionDecoder(self.config.motion, self.config.gaussians)

    @property
    def _motion_encoder(self):
        if self._is_fan:
            return fan.FanMotionEncoder(self.config.dtype)
        return motion.MotionEncoder(self.config.motion)

    @property
    def crop_share(self) -> float:
        """Side of the driving crop as a share of the aligned picture's, in the model's view."""
        return crop_lib.share_in_view(self.config.motion.crop, self.config.fov_degrees)

    def raster_options(self, size: int, drawn: int = 0):
        """How pictures of a side in pixels are drawn, ``rendering.options_at`` of this model's.

        Args:
            size: Side of the picture in pixels.
            drawn: Gaussians in it, where they may be more than one avatar's.
        """
        count = max(drawn, self.config.gaussians.count)
        return rendering.options_at(size, self.config.image_size, count, self.config.raster_mode)

    @property
    def _is_fan(self):
        return self.config.motion.encoder == "fan"

    def init(self, key) -> dict:
        """Fresh parameters."""
        # Hundreds of draws: JAX's default generator takes minutes to compile them on a CPU.
        seed = jax.random.bits(key, dtype=jnp.uint32)
        return jax.jit(self._init)(jax.random.key(seed, impl="rbg"))

    def _init(self, key):
        keys = jax.random.split(key, 4)
        size, crop = self.config.image_size, self.config.motion.image_size
        features = jnp.zeros((1, 1, self.config.gaussians.feature_width))
        code = jnp.zeros((1, self.config.motion.code_width))
        front = jax.tree.map(lambda a: jnp.asarray(a)[None], camera_lib.orbit_camera(0.0, 0.0))
        variables = {
            "backbone": self._backbone.init(keys[0], jnp.zeros((1, size, size, 3)), front),
            "decoder": self._decoder.init(keys[1], features),
            "motion_decoder": self._motion_decoder.init(keys[2], features, code, code),
            "motion_encoder": self._motion_encoder.init(keys[3], jnp.zeros((1, crop, crop, 3))),
        }
        if self.config.encoder.unwrap:
            whole = jnp.zeros((1, unwrap.POSE_IMAGE_SIZE, unwrap.POSE_IMAGE_SIZE, 3))
            pose_key = jax.random.fold_in(keys[3], 1)
            variables["pose_encoder"] = unwrap.PoseEncoder().init(pose_key, whole)
            places, photo = jnp.zeros((1, 1, 3)), jnp.zeros((1, size, size, 3))
            map_ = photo[..., 0]
            drawn = rendering.Rendered(photo, map_, map_, jnp.zeros(1, int))
            variables["reprojection"] = reprojection.Reprojection().init(
                keys[1], features, places, photo, front
            )
            variables["refinement"] = refinement.Refinement().init(
                keys[2], features, features, places, drawn, photo, front
            )
        return {
            name: value if name == "motion_encoder" and self._is_fan else value["params"]
            for name, value in variables.items()
        }

    def planes(self, params, image, photo_camera=None):
        """Photo (B, S, S, 3) in [-1, 1] to planes (B, P, S/2, S/2, 2F).

        Where photos are unwrapped, S/2 is half the side of that map; ``photo_camera`` as in
        ``encode``.
        """
        if self.config.encoder.unwrap and photo_camera is None:
            photo_camera = self.camera(params, image)
        return self._backbone.apply({"params": params["backbone"]}, image, photo_camera)

    def camera(self, params, image) -> types.Camera:
        """The cameras (B,) that took photos (B, S, S, 3) in [-1, 1], as the pose encoder reads."""
        intrinsics = camera_lib.intrinsics(self.config.fov_degrees)
        camera = types.Camera(
            camera_lib.pose_from_angles(self.pose(params, image)),
            jnp.broadcast_to(intrinsics, (len(image), 3, 3)),
        )
        return jax.lax.stop_gradient(camera)  # the images say too little about it

    def pose(self, params, image):
        """Photo (B, S, S, 3) in [-1, 1] to its camera's (B, 3) yaw, pitch and roll in radians."""
        whole = crop_lib.motion_crop(image, unwrap.POSE_IMAGE_SIZE, 1.0)
        return unwrap.PoseEncoder().apply({"params": params["pose_encoder"]}, whole)

    def encode(self, params, image, *, photo_camera=None, camera=None, keys=None) -> types.Avatar:
        """Lifts photos to avatars.

        On a GPU, where gradients are added in any order, two readings of a photo that is unwrapped
        can differ in the last bits: they take the gradient of a drawing (``models.refinement``).

        Args:
            params: Model parameters.
            image: (B, S, S, 3) in [-1, 1].
            photo_camera: Where photos are unwrapped: Camera (B,) that took them; None is what the
                pose encoder reads.
            camera: Ray mode only: Camera (B,) whose rays are sampled; None is the frontal
                reference camera.
            keys: Ray mode only: (B,) random keys of the samples along rays; None is a fixed seed.

        Returns:
            Avatar with leading axis B.
        """
        gaussians = self.config.gaussians
        if self.config.encoder.unwrap and photo_camera is None:
            photo_camera = self.camera(params, image)
        planes = self.planes(params, image, photo_camera)
        if gaussians.instantiation == "plane":
            both = instantiation.plane_features(planes, gaussians.grid)
            anchors = jnp.asarray(head_surface.points(gaussians.grid))
            anchors = jnp.broadcast_to(anchors, (both.shape[0], *anchors.shape))
        else:
            both, anchors = self._ray_features(params, planes, camera, keys)
        features, basis = jnp.split(both, 2, -1)
        if self.config.encoder.unwrap:
            features = self._compare(params, features, anchors, image, photo_camera)
        keep = jnp.ones(features.shape[:-1], bool)
        if gaussians.cull == "source":
            sigma = gaussian_decoder.density(self._decode(params, features))
            keep = sigma >= gaussian_decoder.VISIBLE_SIGMA
        return types.Avatar(features, basis, anchors, keep)

    def _compare(self, params, features, anchors, image, camera):
        """Features that have seen the photo where they are, then what they draw beside it."""
        photo = (image + 1) / 2
        options = self.raster_options(image.shape[1])
        keep = jnp.ones(features.shape[:-1], bool)

        def resting(params, features):
            raw = self._decode(params, features)
            return gaussian_decoder.to_gaussians(raw, anchors, keep, self.config.gaussians)

        features = reprojection.Reprojection().apply(
            {"params": params["reprojection"]},
            features,
            resting(params, features).means,
            photo,
            camera,
        )

        def misfit(features, params, photo, camera):
            gaussians = resting(params, features)
            drawn = rendering.render(
                gaussians, camera, image_size=image.shape[1:3], options=options
            )
            # A Gaussian's share of a mean over pixels falls with the number of Gaussians.
            errors = features.shape[1] * jax.vmap(refinement.error)(drawn, photo)
            return errors.sum(), (gaussians.means, drawn)

        for _ in range(self.config.encoder.looks):
            inputs = jax.lax.stop_gradient((features, params, photo, camera))
            slope, seen = jax.grad(misfit, has_aux=True)(*inputs)
            features = refinement.Refinement().apply(
                {"params": params["refinement"]}, features, slope, *seen, photo, camera
            )
        return features

    def _ray_features(self, params, planes, camera, keys):
        gaussians, width = self.config.gaussians, self.config.gaussians.feature_width
        batch = planes.shape[0]
        if camera is None:
            front = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=self.config.fov_degrees)
            camera = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *a.shape)), front)
        if keys is None:
            # One for all: an avatar does not depend on its place in a batch.
            keys = jnp.broadcast_to(jax.random.key(RAY_SEED), (batch,))

        def one(planes, camera, key):
            def density(features):
                return gaussian_decoder.density(self._decode(params, features[:, :width]))

            points = instantiation.ray_points(
                planes,
                camera,
                density,
                key,
                rays=gaussians.rays,
                samples=gaussians.samples_per_ray,
            )
            return instantiation.sample_planes(planes, points), points

        return jax.vmap(one)(planes, camera, keys)

    def _decode(self, params, features):
        return self._decoder.apply({"params": params["decoder"]}, features)

    def motion_code(self, params, crop):
        """Driving crops (B, M, M, 3) in [-1, 1] to codes (B, code_width).

        Raises:
            ValueError: The parameters were converted from a file without a motion encoder.
        """
        _check_motion_encoder(params)
        if self._is_fan:
            return self._motion_encoder.apply(params["motion_encoder"], crop)
        return self.motion_code_and_coefficients(params, crop)[0]

    def motion_code_and_coefficients(self, params, crop):
        """As ``motion_code``, with the 52 expression coefficients read from the code.

        Raises:
            ValueError: The encoder is the release's, which knows no coefficients.
        """
        self._check_learned("set motion_pretrain.steps to 0")
        return self._motion_encoder.apply({"params": params["motion_encoder"]}, crop)

    def _check_learned(self, fix: str) -> None:
        if self._is_fan:
            raise ValueError(
                'config.motion.encoder: expected "learned", got "fan", which knows no '
                f"coefficients; {fix}"
            )

    def motion(self, params, code_source, code_driving) -> types.Motion:
        """The driver of one frame as 2F numbers; codes (…, code_width) each."""
        return folded.motion(params["motion_decoder"], code_source, code_driving)

    def fold(self, avatar: types.Avatar) -> folded.FoldedAvatar:
        """What ``animate_folded`` wants: the basis normalised once for all frames."""
        return folded.fold_avatar(avatar)

    def animate_folded(self, params, avatar: folded.FoldedAvatar, motion: types.Motion):
        """``animate`` for many frames of one avatar, exactly but cheaper.

        Args:
            params: Model parameters.
            avatar: From ``fold``.
            motion: From ``motion``, as it is or edited; the avatar's leading axes. A recording is
                the driver's part alone: ``inference.InstantAvatar.replay``.

        Returns:
            Gaussians (…, N, ·).
        """
        return folded.animate(params, self.config, avatar, motion)

    def code_from_coefficients(self, params, coefficients):
        """The code (B, code_width) that a learned encoder gives to coefficients (B, 52).

        Raises:
            ValueError: The parameters hold no motion encoder; or it is the release's, which knows
                no coefficients.
        """
        _check_motion_encoder(params)
        self._check_learned("pass motion_code of a picture")
        linear = params["motion_encoder"]["code"]
        return coefficients @ linear["kernel"] + linear["bias"][None]

    def rest(self, params, avatar: types.Avatar) -> types.Gaussians:
        """The avatar without any residual: the source expression as the encoder saw it."""
        raw = self._decode(params, avatar.features)
        return gaussian_decoder.to_gaussians(
            raw, avatar.anchors, avatar.keep, self.config.gaussians, widths=avatar.widths
        )

    def animate(self, params, avatar: types.Avatar, code_source, code_driving):
        """Moves avatars.

        Args:
            params: Model parameters.
            avatar: Leading axes (…,).
            code_source: (…, code_width) of the source photo.
            code_driving: (…, code_width) of the driving face.

        Returns:
            Gaussians (…, N, ·) and the residual (…, N, F) that was added to the features (or
            (…, N, 10) in the spatial ablation).
        """
        residual = self._motion_decoder.apply(
            {"params": params["motion_decoder"]}, avatar.motion_basis, code_source, code_driving
        )
        features, displacement = avatar.features, residual
        if self.config.motion.residual_space == "feature":
            features, displacement = features + residual, None
        raw = self._decode(params, features)
        gaussians = gaussian_decoder.to_gaussians(
            *(raw, avatar.anchors, avatar.keep, self.config.gaussians, displacement),
            widths=avatar.widths,
        )
        return gaussians, residual


def _check_motion_encoder(params) -> None:
    if "motion_encoder" not in params:
        raise ValueError(
            'params: expected a group "motion_encoder", got '
            f"{sorted(params)}; convert again with --motion_encoder=FILE"
        )


def build(config: config_lib.ModelConfig) -> AvatarModel:
    """The model of a configuration."""
    return AvatarModel(config)
