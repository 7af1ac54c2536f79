"""A photo laid out on the rough head, as seen by the camera that took it.

A cell of the map then holds the same place of every face, from whatever side it was photographed,
and the encoder need not learn to turn heads. Not in the release (docs/decisions/0010).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import head_surface, instantiation, motion

POSE_IMAGE_SIZE = 64  # side of the whole photo as the pose encoder sees it
_WIDTHS, _HIDDEN = (16, 32, 64, 96), 128
_MIRRORED = np.array([-1.0, 1.0, -1.0], np.float32)  # yaw, pitch and roll of a mirrored photo
_PRESENT = 8 / 255  # a brighter pixel is no background
_SHELLS = (1.0, 1.25)  # the head itself, and around it: hair reaches beyond a skull
CHANNELS = 3 * (2 * len(_SHELLS) + 1) + 2


class PoseEncoder(nn.Module):
    """Whole photo (B, 64, 64, 3) in [-1, 1] to the camera's (B, 3) yaw, pitch, roll in radians.

    Sees local contrast and the outline, of the photo and of its mirror image, and says the mean of
    both. Trained on the teacher's known cameras, like the motion encoder on known expressions.
    """

    @nn.compact
    def __call__(self, photo):
        both = jnp.concatenate([photo, photo[:, :, ::-1]])
        seen = jnp.concatenate([motion.local_contrast(both), presence((both + 1) / 2)], -1)
        x = motion.convolutions(seen, _WIDTHS, _HIDDEN)
        angles = nn.Dense(3, kernel_init=nn.initializers.normal(0.01), name="angles")(x)
        straight, mirrored = jnp.split(angles, 2)
        return (straight + _MIRRORED[None] * mirrored) / 2


def presence(photo):
    """How far each pixel of a photo (…, 3) in [0, 1] is no background: (…, 1), from 0 to 1."""
    return jnp.clip(photo.max(-1, keepdims=True) / _PRESENT, 0.0, 1.0)


def unwrap(photo, camera: types.Camera, side: int):
    """Reads the photo where the camera sees the cells of the rough head.

    Args:
        photo: (B, S, S, 3), any float range; 0 is read outside of it.
        camera: Camera (B,) that took it.
        side: Cells a side of the map.

    Returns:
        (B, side, side, CHANNELS): of each shell the photo's colours and those of the mirrored
        place, how much cell and mirrored place face the camera (-1 to 1), the photo itself.
    """
    anchors = jnp.asarray(head_surface.points(side))
    normals = jnp.asarray(head_surface.outward(side))

    def one(photo, camera):
        shells = [
            instantiation.bilinear(photo, *project(scale * anchors, camera)) for scale in _SHELLS
        ]
        backward = camera.cam2world[:3, 3]
        facing = camera_lib.product(normals, backward / jnp.linalg.norm(backward))
        return jnp.concatenate([*shells, facing[:, None]], -1).reshape(side, side, -1)

    seen = jax.vmap(one)(photo, camera)
    itself = jax.image.resize(photo, (len(photo), side, side, 3), "linear")
    return jnp.concatenate([seen, seen[:, :, ::-1], itself], -1)


def project(points, camera: types.Camera):
    """World points (M, 3) to x and y (M,) in the image of one camera, edges at ±1."""
    rotation, position = camera.cam2world[:3, :3], camera.cam2world[:3, 3]
    x, y, z = jnp.moveaxis(camera_lib.product(points - position[None], rotation), -1, 0)
    k = camera.intrinsics
    across = k[0, 0] * x / z + k[0, 1] * y / z + k[0, 2]
    return 2 * across - 1, 2 * (k[1, 1] * y / z + k[1, 2]) - 1


def pose_error(angles, camera: types.Camera):
    """How far apart two cameras see the places of a head.

    Args:
        angles: (B, 3) yaw, pitch and roll.
        camera: The true Camera (B,).

    Returns:
        (B,) mean squared distance, in half image sides.
    """
    points = jnp.asarray(head_surface.points(8))
    seen = types.Camera(camera_lib.pose_from_angles(angles), camera.intrinsics)

    def one(first, second):
        pairs = zip(project(points, first), project(points, second), strict=True)
        return sum(jnp.mean((a - b) ** 2) for a, b in pairs)

    return jax.vmap(one)(seen, camera)
