"""The avatar drawn as the photo shows it, compared with the photo, and corrected.

A single reading of the photo cannot tell whether the Gaussians that it makes add up to the photo:
whether an outline is a pixel too wide, and what of the head the camera did not see. Drawing them
and looking at the difference can; a second look sees what the first left. Not in the release
(docs/decisions/0010); learned corrections of a drawn scene along its gradient are known from G3R
(arXiv 2409.19405).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from instant_gs import rendering, types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder, instantiation, reprojection, unwrap

_HIDDEN = 64
_START = (0.0, -3.0, -3.0)  # the blend begins with the colours as they came
_DAMPING = 1e-3  # of the alignment's equations, squared intensity per squared pixel
_FAR = 3.0  # pixels, the largest misalignment
_CLEAR = 0.05  # world units behind what is seen: certainly hidden
_CONTRAST = 4.0  # differences of colour are small next to the other inputs
_COVERAGE = 0.3  # what an error of coverage counts next to one of colour
_STEEP = 300.0  # makes a usual slope of the error about 1


class Refinement(nn.Module):
    """Features (B, N, F) after a look at what they draw.

    A small network reads the features, the photo and what was drawn at the Gaussian, how far the
    drawing must move there to fit, whether something else hides the place and its mirror image,
    and the slope of the drawing's error. It corrects all features, also down that slope by steps
    of its own choice, and blends the colour with the photo's at both places.
    """

    @nn.compact
    def __call__(
        self, features, slope, means, drawn: rendering.Rendered, photo, camera: types.Camera
    ):
        """Corrects the features.

        Args:
            features: (B, N, F), the first three the colour.
            slope: (B, N, F), the gradient of N times ``error`` along the features.
            means: (B, N, 3) resting centres, world units; N is a square number.
            drawn: The Gaussians as the camera sees them, (B, S, S).
            photo: (B, S, S, 3) in [0, 1].
            camera: Camera (B,) that took it.

        Returns:
            (B, N, F).
        """
        slope, *inputs = jax.lax.stop_gradient((slope, means, drawn, photo, camera))
        slope = jnp.arcsinh(_STEEP * slope)
        colors, seen = jax.vmap(_compare)(*inputs)
        colors = [gaussian_decoder.color_features(color) for color in colors]
        hidden = jnp.concatenate([features, *colors, seen, slope], -1)
        hidden = nn.silu(nn.Dense(_HIDDEN, name="hidden")(hidden))
        zeros = nn.initializers.zeros
        logits = (
            nn.Dense(3, kernel_init=zeros, name="blend")(hidden) + jnp.array(_START)[None, None]
        )
        weights = jax.nn.softmax(logits)
        candidates = [features[..., :3], *colors]
        blended = sum(weights[..., i : i + 1] * candidate for i, candidate in enumerate(candidates))
        width = features.shape[-1]
        correction = nn.Dense(width, kernel_init=zeros, name="correction")(hidden)
        correction -= nn.Dense(width, kernel_init=zeros, name="step")(hidden) * slope
        return jnp.concatenate([blended, features[..., 3:]], -1) + correction


def error(drawn: rendering.Rendered, photo):
    """What a drawing (S, S) has wrong of a photo (S, S, 3): () mean squared error."""
    cover = drawn.alpha[..., None] - unwrap.presence(photo)
    return jnp.mean((drawn.image - photo) ** 2) + _COVERAGE * jnp.mean(cover**2)


def _compare(means, drawn: rendering.Rendered, photo, camera: types.Camera):
    """What the Gaussians (N, 3) can know of the drawing.

    Returns:
        The photo's colours at the places and at the mirrored places, (N, 3) each, and the other
        inputs, (N, K), about [-1, 1].
    """
    presence = unwrap.presence(photo)
    alpha = drawn.alpha[..., None]
    whole, target = (
        jnp.concatenate([color, cover], -1)
        for color, cover in ((drawn.image, alpha), (photo, presence))
    )
    difference = target - whole
    move = misalignment(whole, target)
    surface = drawn.depth[..., None] / jnp.maximum(alpha, 0.1)
    maps = [photo, surface, alpha, jnp.ones_like(alpha)]
    maps += [_CONTRAST * difference, _CONTRAST * reprojection.around(difference), presence, move]
    maps = jnp.concatenate(maps, -1)

    mirrored = means * reprojection.MIRROR[None]
    place, mirror = (
        instantiation.bilinear(maps, *unwrap.project(places, camera))
        for places in (means, mirrored)
    )
    place, move = place[:, :-2], place[:, -2:]
    in_world = camera_lib.product(jnp.pad(move, ((0, 0), (0, 1))), camera.cam2world[:3, :3].T)
    behind = [
        jnp.clip((_depth(places, camera) - look[:, 3:4]) / _CLEAR, -1.0, 1.0)
        for places, look in ((means, place), (mirrored, mirror))
    ]
    facing = reprojection.facing(math.isqrt(len(means)), camera)
    seen = [place[:, 4:], mirror[:, 4:6], in_world, *behind, *facing]
    return [place[:, :3], mirror[:, :3]], jnp.concatenate(seen, -1)


def misalignment(drawn, photo):
    """How far the drawing must move at each pixel to look like the photo (Lucas and Kanade, 1981).

    Args:
        drawn: (S, S, K) in [0, 1].
        photo: (S, S, K) in [0, 1].

    Returns:
        (S, S, 2) pixels to the right and down, at most 3; 0 where nothing can be told.
    """
    middle = (drawn + photo) / 2
    right, down = jnp.gradient(middle, axis=1), jnp.gradient(middle, axis=0)
    products = [right * right, right * down, down * down]
    products += [right * (drawn - photo), down * (drawn - photo)]
    sums = reprojection.around(jnp.stack([product.sum(-1) for product in products], -1))
    xx, xy, yy, bx, by = jnp.moveaxis(sums, -1, 0)
    xx, yy = xx + _DAMPING, yy + _DAMPING
    determinant = xx * yy - xy * xy
    move = jnp.stack([yy * bx - xy * by, xx * by - xy * bx], -1) / determinant[..., None]
    return jnp.clip(move, -_FAR, _FAR)


def _depth(points, camera: types.Camera):
    """Distances (N, 1) from the camera's plane."""
    return camera_lib.product(points - camera.cam2world[None, :3, 3], camera.cam2world[:3, 2:3])
