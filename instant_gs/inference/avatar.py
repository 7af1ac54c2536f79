"""Trained weights, ready to use: every step compiled once for its shapes."""

import dataclasses
import functools
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import cli, models, rendering, types
from instant_gs import config as config_lib
from instant_gs.data import format as data_format
from instant_gs.geometry import camera as camera_lib
from instant_gs.geometry import crop as crop_lib
from instant_gs.inference import argument, culling, motion_bank
from instant_gs.models import folded
from instant_gs.training import completeness, weights

#: What ships with the package.
SHIPPED_WEIGHTS = weights.SHIPPED / "small"


class Drawn(NamedTuple):
    """A video frame, still on the device.

    Attributes:
        image: (size, size, 3) uint8.
        gaussians: What was drawn.
        overflow: () int; above 0, Gaussians are missing in the picture: ``with_capacity`` helps. A
            loop in real time keeps the largest of many and reads it once.
    """

    image: jax.Array
    gaussians: types.Gaussians
    overflow: jax.Array


def _compiled(function, **options):
    """What ``function`` of the engine returns, in ``jax.jit``: made once, compiled once a shape."""
    return functools.cached_property(lambda engine: jax.jit(function(engine), **options))


def _also_one(function):
    """A function of (params, batch) that takes one image (S, S, 3), too."""

    def call(params, image):
        if image.ndim > 3:
            return function(params, image)
        return jax.tree.map(lambda leaf: leaf[0], function(params, image[None]))

    return call


@dataclasses.dataclass(frozen=True, eq=False)
class InstantAvatar:
    """A model with its weights; all methods are pure and compiled once per shape.

    Images are aligned "wide" crops over black (``instant_gs.portrait.alignment`` makes them).
    Every image that goes in is uint8, 0 to 255, or float in [-1, 1], never in [0, 1]. Each method
    takes one item, or a batch if its arrays have one more leading axis; those of a video frame
    (``fold``, ``read_motion``, ``frame``) take one item.

    Attributes:
        config: The configuration that the weights were trained with.
        params: Nested dict of float32 arrays.
        culling: Which Gaussians ``encode`` keeps, one of ``culling.WAYS``; "" is what
            ``culling.default`` says: those that any driver may show.
        stored_bank: What ``bank`` is where that is known already; None computes it.
        provenance: What the folder of weights says of where they come from.
        capacity: How often Gaussians may touch a tile in one picture, which takes memory; 0 is
            what ``rendering.options_at`` says.
    """

    config: config_lib.Config
    params: dict = dataclasses.field(repr=False)
    culling: str = ""
    stored_bank: types.Array | None = dataclasses.field(default=None, repr=False)
    provenance: dict = dataclasses.field(default_factory=dict)
    capacity: int = 0

    @property
    def image_size(self) -> int:
        """Side of the photo that the encoder reads, in pixels."""
        return self.config.model.image_size

    @property
    def fov_degrees(self) -> float:
        """What an aligned photo shows, and the view of the frontal camera."""
        return self.config.model.fov_degrees

    @property
    def filter_width(self) -> float:
        """``rendering.filter_width`` of the weights, which an exported frame needs."""
        model = self.config.model
        return rendering.filter_width(model.image_size, model.fov_degrees, model.raster_mode)

    @property
    def _code_width(self) -> int:
        return self.config.model.motion.code_width

    def __post_init__(self):
        way = self.culling or culling.default(self.config, self.params)
        object.__setattr__(self, "culling", culling.checked(way))

    @functools.cached_property
    def model(self) -> models.AvatarModel:
        """The pure functions behind the methods, for use inside one's own ``jax.jit``."""
        kept = "source" if self.culling == "source" else "none"
        gaussians = dataclasses.replace(self.config.model.gaussians, cull=kept)
        return models.build(dataclasses.replace(self.config.model, gaussians=gaussians))

    @functools.cached_property
    def bank(self):
        """(K, 512) motion codes of ``motion_bank.EXPRESSIONS``.

        Raises:
            ValueError: The weights hold no motion encoder.
        """
        return motion_bank.codes(self) if self.stored_bank is None else self.stored_bank

    def with_culling(self, way: str) -> "InstantAvatar":
        """The same weights; which Gaussians ``encode`` keeps is decided in another way.

        Args:
            way: Of ``culling.WAYS``.

        Returns:
            InstantAvatar with the same parameters.

        Raises:
            ValueError: Another word.
        """
        return dataclasses.replace(self, culling=culling.checked(way))

    def with_capacity(self, capacity: int) -> "InstantAvatar":
        """The same weights; pictures have room for another number of Gaussians.

        Args:
            capacity: As the attribute; 0 returns to the default.

        Returns:
            InstantAvatar with the same parameters.

        Raises:
            ValueError: It is negative.
        """
        if capacity < 0:
            raise ValueError(f"capacity: expected 0 or more, got {capacity}")
        return dataclasses.replace(self, capacity=capacity)

    def raster_options(self, size: int, drawn: int = 0):
        """How pictures of a side in pixels are drawn; ``drawn`` as ``AvatarModel`` has it."""
        options = self.model.raster_options(size, drawn)
        return dataclasses.replace(options, capacity=self.capacity or options.capacity)

    def encode(self, image, code=None, bank=None) -> types.Avatar:
        """Lifts an aligned photo.

        Args:
            image: (S, S, 3) or (B, S, S, 3), S = ``image_size``; uint8, or float in [-1, 1].
            code: (512,) or (B, 512), the photo's ``motion_code``. Culling over the motion envelope
                starts from it; None reads it from the image there. Other ways need none.
            bank: (K, 512) motion codes of the drivers that span the envelope; None is ``bank``.

        Returns:
            Avatar.

        Raises:
            ValueError: Another shape or range.
        """
        pixels = argument.pixels("image", image, self.image_size)
        if code is not None:
            batch = pixels.shape[:-3]
            argument.check_code("code", code, batch, self._code_width, of="the same image")
        if bank is not None:
            argument.check_bank(bank, self._code_width)
        avatar = self._encode(self.params, pixels)
        if self.culling != "envelope":
            return avatar
        code = self.motion_code(pixels) if code is None else jnp.asarray(code)
        bank = self.bank if bank is None else jnp.asarray(bank)
        return self._cull(self.params, avatar, code, bank)

    def planes(self, images):
        """The photo encoder's feature planes.

        Args:
            images: (S, S, 3) or (B, S, S, 3), S = ``image_size``; uint8, or float in [-1, 1].

        Returns:
            (P, H, H, 2F) or (B, P, H, H, 2F), H half the side of what the encoder sees: of the
            photo, or of the map it is unwrapped to (``config.model.encoder.unwrap``). As released
            (B, 3, 256, 256, 96).

        Raises:
            ValueError: Another shape or range.
        """
        return self._planes(self.params, argument.pixels("images", images, self.image_size))

    def motion_code(self, image):
        """Reads the expression from an aligned image of any face, or from a crop of it.

        Args:
            image: (S, S, 3) or (B, S, S, 3), S = ``image_size``: the motion encoder sees its
                centred ``config.model.motion.crop``, cut out as in training. Or what the motion
                encoder reads, (M, M, 3) or (B, M, M, 3), M = ``config.model.motion.image_size``
                (224 as released). uint8, or float in [-1, 1].

        Returns:
            (512,) or (B, 512) float32.

        Raises:
            ValueError: Another shape or range.
        """
        size = self.config.model.motion.image_size
        if np.shape(image)[-3:] == (size, size, 3) and size != self.image_size:
            return self._crop_code(self.params, argument.pixels("image", image, size))
        return self._motion_code(self.params, argument.pixels("image", image, self.image_size))

    def code_from_coefficients(self, coefficients):
        """The motion code of an expression that is known, where the encoder was trained here.

        Args:
            coefficients: (…, 52), order ``data.format.COEFFICIENT_NAMES``, about [0, 1]: as the
                landmark network reads them (``metrics.face.FaceLandmarker``, ``source.align``), or
                ARKit's blend shapes.

        Returns:
            (…, 512) float32.

        Raises:
            ValueError: Another shape, not finite; or the encoder is the release's, which knows no
                coefficients.
        """
        rows = argument.coefficients(coefficients, len(data_format.COEFFICIENT_NAMES))
        codes = self._code_from(self.params, rows.reshape(-1, rows.shape[-1]))
        return codes.reshape(*rows.shape[:-1], -1)

    def motion(self, code_source, code_driving) -> types.Motion:
        """What moves this photo to a driving face's expression, as numbers that can be edited.

        Args:
            code_source: (…, 512) motion code of the photo; zeros leave the driver's part alone,
                which ``inference.motion_file`` keeps and ``replay`` shows on any photo.
            code_driving: (…, 512) motion code of the driving face.

        Returns:
            Motion, 96 numbers as released.

        Raises:
            ValueError: They are no codes, or their leading axes do not go together.
        """
        codes = {"code_source": code_source, "code_driving": code_driving}
        argument.check_rows((), self._code_width, "motion_code", **codes)
        return self._motion(self.params, code_source, code_driving)

    def replay(self, code_source, driver: types.Motion) -> types.Motion:
        """A recorded driver on this photo.

        Args:
            code_source: (512,) motion code of the photo.
            driver: (…, F) each, the driver's part, as ``motion_file.load`` reads it: of any photo.

        Returns:
            Motion (…, F) as ``motion`` of this photo and the driving face gives it.

        Raises:
            ValueError: It is no code, or the motion is of another width.
        """
        argument.check_code("code_source", code_source, (), self._code_width, of="the photo")
        photo = self.motion(code_source, np.zeros_like(code_source))
        width = np.shape(photo.scale)[-1]
        argument.check_rows((), width, "motion", scale=driver.scale, shift=driver.shift)
        return jax.tree.map(lambda a, b: jnp.broadcast_to(a, jnp.shape(b)) + b, photo, driver)

    def animate(
        self, avatar: types.Avatar, motion: types.Motion | types.Array, code_driving=None
    ) -> types.Gaussians:
        """Gives an avatar the driving face's expression.

        Args:
            avatar: From ``encode``.
            motion: From ``motion`` or ``replay`` with this photo's code, as it is or edited. Or
                the motion code of the photo; then without folding, as in training.
            code_driving: With it the motion code of the driving face.

        Returns:
            Gaussians in world space.

        Raises:
            ValueError: Motion or codes are of another width, or neither one nor as many as the
                avatars.
        """
        avatars = np.shape(avatar.features)[:-2]
        if not isinstance(motion, types.Motion):
            if code_driving is None:
                raise ValueError(
                    "code_driving: expected the driving face's motion code beside the photo's, got "
                    "None; or pass one Motion, of motion(code_source, code_driving)"
                )
            codes = {"code_source": motion, "code_driving": code_driving}
            argument.check_rows(avatars, self._code_width, "motion_code", **codes)
            return self._animate(self.params, avatar, motion, code_driving)
        width = np.shape(avatar.motion_basis)[-1]
        rows = {"scale": motion.scale, "shift": motion.shift}
        argument.check_rows(avatars, width, "motion", **rows)
        return self._animate_motion(self.params, avatar, motion)

    def rest(self, avatar: types.Avatar) -> types.Gaussians:
        """The avatar as the photo shows it, without any motion residual."""
        return self._rest(self.params, avatar)

    def render(
        self, gaussians: types.Gaussians, camera: types.Camera | None = None, size: int = 0
    ) -> rendering.Rendered:
        """Renders Gaussians.

        Args:
            gaussians: From ``animate`` or ``rest``.
            camera: One Camera (without a batch axis: it serves the whole batch); None is the
                frontal reference camera.
            size: Side of the square image in pixels; 0 is ``image_size``.

        Returns:
            Rendered, over black. Where its ``overflow`` is above 0, which a camera close by can
            cause, Gaussians are missing: ``with_capacity`` helps.

        Raises:
            ValueError: The camera has another shape.
        """
        if camera is None:
            camera = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=self.fov_degrees)
        argument.check_camera(camera)
        size = size or self.image_size
        drawn = np.shape(gaussians.means)[-2]
        return _render(gaussians, camera, size, self.raster_options(size, drawn))

    def read_motion(self, code_source, driver) -> types.Motion:
        """``motion`` of a driving face, in one compiled call: the first half of a video frame.

        Args:
            code_source: (512,) motion code of the photo.
            driver: (S, S, 3), aligned, S = ``image_size``; uint8, or float in [-1, 1].

        Returns:
            Motion.

        Raises:
            ValueError: It is no code, or the driver has another shape or range.
        """
        argument.check_code("code_source", code_source, (), self._code_width, of="the photo")
        pixels = argument.pixels("driver", driver, self.image_size, batch=False)
        return self._read_motion(self.params, code_source, pixels)

    def fold(self, avatar: types.Avatar) -> folded.FoldedAvatar:
        """What ``frame`` wants: one avatar with everything computed that no frame changes."""
        return self._fold(avatar)

    def frame(
        self, avatar: folded.FoldedAvatar, motion: types.Motion, camera: types.Camera, size: int
    ) -> Drawn:
        """The second half of a video frame in one compiled call: motion in, picture out.

        Args:
            avatar: From ``fold``, one item.
            motion: From ``read_motion``, ``motion`` or ``replay``.
            camera: Camera without a batch axis.
            size: Side of the picture in pixels, static.

        Returns:
            Drawn.

        Raises:
            TypeError: The avatar is not folded, or a code came in place of a motion.
            ValueError: The motion is of another width, or the camera has another shape.
        """
        argument.check_type("avatar", avatar, folded.FoldedAvatar, "fold")
        argument.check_type("motion", motion, types.Motion, "read_motion, motion or replay")
        width = np.shape(avatar.normal_basis)[-1]
        argument.check_rows((), width, "motion", scale=motion.scale, shift=motion.shift)
        argument.check_camera(camera)
        return self._frame(self.params, avatar, motion, camera, size)

    _encode = _compiled(lambda self: _also_one(self.model.encode))
    _planes = _compiled(lambda self: _also_one(self.model.planes))
    _crop_code = _compiled(lambda self: _also_one(self.model.motion_code))
    _motion_code = _compiled(lambda self: _also_one(self._code))
    _code_from = _compiled(lambda self: self.model.code_from_coefficients)
    _cull = _compiled(lambda self: functools.partial(culling.envelope, self.model))
    _motion = _compiled(lambda self: self.model.motion)
    _animate = _compiled(lambda self: lambda *arrays: self.model.animate(*arrays)[0])
    _animate_motion = _compiled(lambda self: self._moved)
    _rest = _compiled(lambda self: self.model.rest)
    _fold = _compiled(lambda self: self.model.fold)
    _read_motion = _compiled(lambda self: self._read)
    _frame = _compiled(lambda self: self._drawn, static_argnums=4)

    def _moved(self, params, avatar, motion):
        return self.model.animate_folded(params, self.model.fold(avatar), motion)

    def _read(self, params, code_source, pixels):
        code = self._code(params, pixels[None])[0]
        return self.model.motion(params, code_source, code)

    def _drawn(self, params, avatar, motion, camera, size):
        gaussians = self.model.animate_folded(params, avatar, motion)
        seen = _render(gaussians, camera, size, self.raster_options(size))
        picture = jnp.round(jnp.clip(seen.image, 0, 1) * 255).astype(jnp.uint8)
        return Drawn(picture, gaussians, seen.overflow)

    def _code(self, params, image):
        size = self.config.model.motion.image_size
        crop = crop_lib.motion_crop(image, size, self.model.crop_share)
        return self.model.motion_code(params, crop)


def load(directory: str | os.PathLike | None = None) -> InstantAvatar:
    """Loads exported weights.

    Args:
        directory: Written by training or by ``instant_gs.convert``, or the name of weights that
            ship with the package, "small" or "demo"; None is ``SHIPPED_WEIGHTS``.

    Returns:
        InstantAvatar. The licence that the weights state is shown on stderr.

    Raises:
        FileNotFoundError: There are no weights in the folder.
        cli.UserError: They are the motion encoder's alone, or lack what the model needs.
    """
    directory = SHIPPED_WEIGHTS if directory is None else directory
    folder = weights.find(directory)
    if not folder.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder of weights; give {weights.KINDS}")
    config, params, provenance = weights.load(folder)
    if "backbone" not in params:
        raise cli.UserError(
            f"{directory}: holds {', '.join(sorted(params))} only; convert it together with the "
            "authors' checkpoint"
        )
    completeness.check_weights(config.model, params, str(directory))
    bank = motion_bank.load(folder, config.model.motion.crop)
    return InstantAvatar(config, params, stored_bank=bank, provenance=provenance)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _render(gaussians, camera, size: int, options) -> rendering.Rendered:
    batch = jnp.shape(gaussians.means)[:-2]
    camera = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *jnp.shape(leaf))), camera)
    return rendering.render(gaussians, camera, image_size=(size, size), options=options)
