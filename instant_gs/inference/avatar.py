"""Trained weights, ready to use: every step compiled once for its shapes."""

import dataclasses
import functools
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import cli, models, rendering, types
from instant_gs import config as config_lib
from instant_gs.data import format as format_lib
from instant_gs.geometry import camera as camera_lib
from instant_gs.geometry import crop as crop_lib
from instant_gs.training import checkpoint

#: What ships with the package.
SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "demo"


@dataclasses.dataclass(frozen=True, eq=False)
class InstantAvatar:
    """A model with its weights; all methods are pure and compiled once per shape.

    Images are aligned "wide" crops over black (``instant_gs.inference.alignment`` makes them).
    Each method takes one item, or a batch if its arrays have one more leading axis.

    Attributes:
        config: The configuration that the weights were trained with.
        params: Nested dict of float32 arrays.
    """

    config: config_lib.Config
    params: dict

    @property
    def image_size(self) -> int:
        """Side of the photo that the encoder reads, in pixels."""
        return self.config.model.image_size

    def encode(self, image) -> types.Avatar:
        """Lifts an aligned photo.

        Args:
            image: (S, S, 3) or (B, S, S, 3), S = ``image_size``; uint8, or float in [0, 1].

        Returns:
            Avatar.

        Raises:
            ValueError: Another shape.
        """
        return self._encode(self.params, self._checked("image", image, self.image_size))

    def planes(self, images):
        """The photo encoder's feature planes.

        Args:
            images: (B, S, S, 3), S = ``image_size``, float in [-1, 1].

        Returns:
            (B, P, S/2, S/2, 2F); as released (B, 3, 256, 256, 96).

        Raises:
            ValueError: Another shape.
        """
        self._check_shape("images", np.shape(images), self.image_size)
        return self._planes(self.params, images)

    def motion_code(self, image):
        """Reads the expression from an aligned image of any face, or from a crop of it.

        Args:
            image: (S, S, 3) or (B, S, S, 3), S = ``image_size``; uint8, or float in [0, 1]. The
                motion encoder sees its centred ``data.format.MOTION_CROP``, cut out as in
                training. Or what the motion encoder reads, (M, M, 3) or (B, M, M, 3), M =
                ``config.model.motion.image_size``; uint8, or float in [-1, 1].

        Returns:
            (512,) or (B, 512) float32.

        Raises:
            ValueError: Another shape.
        """
        size = self.config.model.motion.image_size
        if np.shape(image)[-3:] == (size, size, 3) and size != self.image_size:
            image = np.asarray(image)
            crop = _to_model(image) if image.dtype == np.uint8 else image
            return self._crop_code(self.params, np.asarray(crop, np.float32))
        return self._motion_code(self.params, self._checked("image", image, self.image_size))

    def motion(self, code_source, code_driving) -> types.Motion:
        """A driver's frame as numbers that can be kept, edited and replayed on any avatar.

        Args:
            code_source: (…, 512) motion code of the photo.
            code_driving: (…, 512) motion code of the driving face.

        Returns:
            Motion, 96 numbers as released (``inference.motion_file`` keeps streams of them).
        """
        return self._motion(self.params, code_source, code_driving)

    def animate(
        self, avatar: types.Avatar, code_source: types.Motion | types.Array, code_driving=None
    ) -> types.Gaussians:
        """Gives an avatar the driving face's expression.

        Args:
            avatar: From ``encode``.
            code_source: Motion code of the photo that the avatar was made from; or a Motion,
                from ``motion``, instead of both codes.
            code_driving: Motion code of the driving face.

        Returns:
            Gaussians in world space.
        """
        if isinstance(code_source, types.Motion):
            return self._animate_motion(self.params, avatar, code_source)
        return self._animate(self.params, avatar, code_source, code_driving)

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
            Rendered, over black.
        """
        camera = camera_lib.orbit_camera(0.0, 0.0) if camera is None else camera
        return _render(gaussians, camera, size or self.image_size)

    def frame(self, avatar: types.Avatar, code_source, driver, camera: types.Camera, size: int):
        """One video frame in one compiled call: driving face in, picture and Gaussians out.

        Args:
            avatar: From ``encode``, one item.
            code_source: (512,).
            driver: (S, S, 3) uint8, aligned, S = ``image_size``.
            camera: Camera without a batch axis.
            size: Side of the picture in pixels, static.

        Returns:
            (size, size, 3) uint8 and the Gaussians.
        """
        return self._frame(self.params, avatar, code_source, driver, camera, size)

    @functools.cached_property
    def _model(self):
        return models.build(self.config.model)

    @functools.cached_property
    def _encode(self):
        return jax.jit(lambda p, x: _batched(lambda y: self._model.encode(p, y), x))

    @functools.cached_property
    def _planes(self):
        return jax.jit(self._model.planes)

    @functools.cached_property
    def _crop_code(self):
        return jax.jit(lambda p, x: _batched(lambda y: self._model.motion_code(p, y), x))

    @functools.cached_property
    def _motion(self):
        return jax.jit(self._model.motion)

    @functools.cached_property
    def _animate_motion(self):
        def animate(params, avatar, motion):
            return self._model.animate_folded(params, self._model.fold(avatar), motion)

        return jax.jit(animate)

    @functools.cached_property
    def _motion_code(self):
        return jax.jit(lambda p, x: _batched(lambda y: self._code(p, y), x))

    @functools.cached_property
    def _animate(self):
        return jax.jit(lambda *arrays: self._model.animate(*arrays)[0])

    @functools.cached_property
    def _rest(self):
        return jax.jit(self._model.rest)

    @functools.cached_property
    def _frame(self):
        def frame(params, avatar, code_source, driver, camera, size):
            code = self._code(params, _to_model(driver)[None])[0]
            gaussians, _ = self._model.animate(params, avatar, code_source, code)
            image = _render(gaussians, camera, size).image
            return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8), gaussians

        return jax.jit(frame, static_argnums=5)

    def _code(self, params, image):
        size = self.config.model.motion.image_size
        crop = crop_lib.motion_crop(image, size, format_lib.MOTION_CROP)
        return self._model.motion_code(params, crop)

    def _checked(self, name: str, image, size: int):
        image = np.asarray(image)
        self._check_shape(name, image.shape, size)
        # Before jit: one compilation serves uint8 and float.
        return np.asarray(_to_model(image), np.float32)

    def _check_shape(self, name: str, shape: tuple[int, ...], size: int):
        if len(shape) not in (3, 4) or shape[-3:] != (size, size, 3):
            raise ValueError(
                f"{name}: expected shape ({size}, {size}, 3) with or without a batch axis, got "
                f"{shape}; align and resize it (instant_gs.inference.alignment)"
            )


def load(directory: str | os.PathLike = SHIPPED_WEIGHTS) -> InstantAvatar:
    """Loads exported weights.

    Args:
        directory: Written by training; the default ships with the package.

    Returns:
        InstantAvatar. The licence of converted weights is shown on stderr.

    Raises:
        FileNotFoundError: There are no weights in the folder.
        cli.UserError: They are the motion encoder's alone.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory}: no such folder of weights; --weights takes a folder that training "
            "exported, or leave it out for the weights that ship with the package"
        )
    config, params, provenance = checkpoint.load_weights(directory)
    if "backbone" not in params:
        raise cli.UserError(
            f"{directory}: holds {', '.join(sorted(params))} only; convert it together with the "
            "authors' checkpoint"
        )
    if "licence" in provenance:
        print(f"{directory}: {provenance['licence']}", file=sys.stderr)
    return InstantAvatar(config, params)


def _to_model(image):
    """uint8, or float in [0, 1], NumPy's or JAX's, to the model's [-1, 1]."""
    return image.astype(np.float32) * (2 / 255 if image.dtype == np.uint8 else 2) - 1


def _batched(function, image):
    """Calls a function of batches with one image (S, S, 3) or with a batch."""
    if image.ndim > 3:
        return function(image)
    return jax.tree.map(lambda leaf: leaf[0], function(image[None]))


@functools.partial(jax.jit, static_argnums=2)
def _render(gaussians, camera, size: int) -> rendering.Rendered:
    batch = jnp.shape(gaussians.means)[:-2]
    camera = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *jnp.shape(leaf))), camera)
    return rendering.render(gaussians, camera, image_size=(size, size))
