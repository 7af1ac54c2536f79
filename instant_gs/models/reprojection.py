"""The photo read again where the Gaussians are.

The rough head is nobody's head: a photo laid out on it (``unwrap``) is a pixel or two off wherever
the face differs. Once the planes have said where each Gaussian rests, its colour is read again at
that place, so that the photo's own view hardly depends on the depth, and other views teach
the depth. The photo also says whether there is anything at that place: its background is black, so
that what sticks out beyond the head's outline can be told to vanish. Not in the release
(docs/decisions/0010).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder, head_surface, instantiation, unwrap

# The start of the blend: what faces the camera counts, and the planes' own colour a little.
_FACING_SLOPE, _OWN = 6.0, -1.0
_HIDDEN = 32
MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)  # heads are symmetric about x = 0
_NEAR = 5  # pixels, the side of the square that counts as around


class Reprojection(nn.Module):
    """Features (B, N, F) that have seen the photo at the Gaussians.

    The first three, the colour, are blended of three: the photo at the Gaussian, the photo at the
    mirrored place, and what the planes say. The weights are read from the features, both colours,
    and how both places face the camera. The other features are corrected by a small network that
    reads these and whether the photo shows anything there and around.
    """

    @nn.compact
    def __call__(self, features, means, photo, camera: types.Camera):
        """Reads the photo.

        Args:
            features: (B, N, F).
            means: (B, N, 3) resting centres, world units; N is a square number.
            photo: (B, S, S, 3) in [0, 1].
            camera: Camera (B,) that took it.

        Returns:
            (B, N, F).
        """
        colors, facing, present = jax.vmap(_look)(means, photo, camera)
        seen = jnp.concatenate([features, *colors, *facing], -1)
        logits = nn.Dense(3, kernel_init=nn.initializers.zeros, name="blend")(seen)
        start = [_FACING_SLOPE * facing[0], _FACING_SLOPE * facing[1]]
        start.append(jnp.full_like(facing[0], _OWN))
        weights = jax.nn.softmax(logits + jnp.concatenate(start, -1))
        candidates = [gaussian_decoder.color_features(color) for color in colors]
        candidates.append(features[..., :3])
        blended = sum(weights[..., i : i + 1] * candidate for i, candidate in enumerate(candidates))
        hidden = nn.silu(nn.Dense(_HIDDEN, name="hidden")(jnp.concatenate([seen, present], -1)))
        rest = features.shape[-1] - 3
        correction = nn.Dense(rest, kernel_init=nn.initializers.zeros, name="correction")(hidden)
        return jnp.concatenate([blended, features[..., 3:] + correction], -1)


def _look(means, photo, camera: types.Camera):
    """What the photo shows at the places (N, 3).

    Returns:
        Colours (N, 3) there and at the mirrored places, how both face the camera, (N, 1) each, and
        the share of the photo that is not background, there and around, and whether it reaches
        there at all, (N, 3).
    """
    colors = [
        instantiation.bilinear(photo, *unwrap.project(places, camera))
        for places in (means, means * MIRROR[None])
    ]
    here = unwrap.presence(photo)
    maps = jnp.concatenate([here, around(here), jnp.ones_like(here)], -1)
    present = instantiation.bilinear(maps, *unwrap.project(means, camera))
    return colors, facing(math.isqrt(len(means)), camera), present


def facing(grid: int, camera: types.Camera):
    """How the cells of the rough head, and the mirrored ones, face one camera.

    Returns:
        Two (grid * grid, 1), from -1 to 1.
    """
    normals = jnp.asarray(head_surface.outward(grid))
    backward = camera.cam2world[:3, 3]
    backward = (backward / jnp.linalg.norm(backward))[:, None]
    return [
        camera_lib.product(normals, backward),
        camera_lib.product(normals * MIRROR[None], backward),
    ]


def around(maps):
    """Means of maps (H, W, C) over the square around each pixel, as far as it is inside."""
    # Counted here: XLA would count pixels while it compiles, for seconds, and complain about that.
    inside = [np.convolve(np.ones(side), np.ones(_NEAR), "same") for side in maps.shape[:2]]
    count = np.outer(*inside).astype(np.float32)[..., None]
    window = (_NEAR, _NEAR, 1)
    return jax.lax.reduce_window(maps, 0.0, jax.lax.add, window, (1, 1, 1), "SAME") / count
