"""Colours read from the photo where the Gaussians are.

The rough head is nobody's head: a photo laid out on it (``unwrap``) is a pixel or two off wherever
the face differs. Once the planes have said where each Gaussian rests, its colour is read again at
that place, so that the photo's own view hardly depends on the depth, and other views teach
the depth. Not in the release (docs/decisions/0010).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.models import gaussian_decoder, head_surface, instantiation, unwrap

# The start of the blend: what faces the camera counts, and the planes' own colour a little.
_FACING_SLOPE, _OWN = 6.0, -1.0


class Reprojection(nn.Module):
    """Features (B, N, F) with the first three, the colour, blended with the photo's.

    The blend is of three: the photo at the Gaussian, the photo at the mirrored place, and what
    the planes say. Its weights are read from the features, both colours, and how both places face
    the camera.
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
        colors, facing = jax.vmap(_look)(means, photo, camera)
        seen = jnp.concatenate([features, *colors, *facing], -1)
        logits = nn.Dense(3, kernel_init=nn.initializers.zeros, name="blend")(seen)
        start = [_FACING_SLOPE * facing[0], _FACING_SLOPE * facing[1]]
        start.append(jnp.full_like(facing[0], _OWN))
        weights = jax.nn.softmax(logits + jnp.concatenate(start, -1))
        candidates = [gaussian_decoder.color_features(color) for color in colors]
        candidates.append(features[..., :3])
        blended = sum(weights[..., i : i + 1] * candidate for i, candidate in enumerate(candidates))
        return jnp.concatenate([blended, features[..., 3:]], -1)


def _look(means, photo, camera: types.Camera):
    """Colours (N, 3) at the places and at the mirrored ones, and how both face it, (N, 1) each."""
    normals = jnp.asarray(head_surface.outward(math.isqrt(len(means))))
    backward = camera.cam2world[:3, 3]
    backward = (backward / jnp.linalg.norm(backward))[:, None]
    mirror = jnp.array([-1.0, 1.0, 1.0])[None]
    colors = [
        instantiation.bilinear(photo, *unwrap.project(places, camera))
        for places in (means, means * mirror)
    ]
    return colors, [normals @ backward, (normals * mirror) @ backward]
