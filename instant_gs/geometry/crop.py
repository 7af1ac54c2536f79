"""The driving crop: what the motion encoder sees of an aligned image."""

import jax
import jax.numpy as jnp

from instant_gs.geometry import camera as camera_lib


def share_in_view(share: float, fov_degrees: float) -> float:
    """The driving crop's side as a share of an aligned picture's side.

    Args:
        share: Of the wide picture's side, ``config.model.motion.crop``.
        fov_degrees: What the picture shows; the crop holds the same part of the head in each view.

    Returns:
        ``share`` in the wide view; above 1 where the view is too narrow to show the whole crop.
    """
    return share * camera_lib.focal_length(fov_degrees) / camera_lib.focal_length()


def motion_crop(image, size: int, fraction: float, *, scale=None, shift=None):
    """Cuts the centred square and resizes it bilinearly.

    Args:
        image: (B, S, S, 3), any float range.
        size: Side of the result in pixels.
        fraction: Side of the square as a part of S.
        scale: Optional (B,) factors on the square's side (augmentation).
        shift: Optional (B, 2) moves of the square's centre, (row, column), in parts of S.

    Returns:
        (B, size, size, 3).
    """
    batch, side = image.shape[0], image.shape[1]
    scale = jnp.ones(batch) if scale is None else scale
    shift = jnp.zeros((batch, 2)) if shift is None else shift
    extent = fraction * side * scale  # of the square, in input pixels
    zoom = size / extent
    corner = (0.5 + shift) * side - 0.5 * extent[:, None]

    def one(image, zoom, corner):
        return jax.image.scale_and_translate(
            image,
            (size, size, image.shape[-1]),
            (0, 1),
            jnp.stack([zoom, zoom]),
            -corner * zoom,
            "linear",
            antialias=True,
        )

    return jax.vmap(one)(image, zoom, corner)
