"""The dual, conditional discriminator: is this picture of this motion, seen from here, a true one?

As in EG3D (Chan et al. 2022) it sees a picture beside its own blurred copy and is conditioned on
the camera, and, as in arXiv 2512.16893, on the motion code. The network is StyleGAN2's: residual
blocks, the deviation over the minibatch, a projection of the condition. See
docs/decisions/0012-adversarial.md.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.models import layer

BLUR = 4  # EG3D's ratio of the picture's side to that of its raw copy
LAST_SIDE = 4  # halving stops here, or at an odd side
_TINY = 1e-8


@dataclasses.dataclass(frozen=True, eq=False)
class DiscriminatorModel:
    """Pure functions over a nested dict of float32 parameters.

    Attributes:
        config: Sizes; must not change afterwards.
        image_size: Side of what the network sees; pictures of other sizes are resized, so that a
            curriculum of resolutions has one discriminator.
        code_width: Of motion codes.
    """

    config: config_lib.AdversarialConfig
    image_size: int
    code_width: int

    def init(self, key) -> dict:
        """Fresh parameters."""
        image = jnp.zeros((1, self.image_size, self.image_size, 3))
        variables = self._network.init(
            key, image, jnp.zeros((1, 25)), jnp.zeros((1, self.code_width))
        )
        return variables["params"]

    def logits(self, params, image, camera: types.Camera, code):
        """Says how true pictures look.

        Args:
            params: From ``init``.
            image: (B, K, S, S, 3), about [-1, 1]; the deviation is taken over groups along B.
            camera: Arrays (B, K, …): where the picture is seen from.
            code: (B, K, code_width): the motion it should show.

        Returns:
            (B, K) float32; positive means "true".
        """
        lead = image.shape[:2]
        numbers = jnp.concatenate(
            [camera.cam2world.reshape(*lead, 16), camera.intrinsics.reshape(*lead, 9)], -1
        )

        def flat(array):  # B innermost: groups are of several people, where B is not 1
            return jnp.swapaxes(array, 0, 1).reshape(-1, *array.shape[2:])

        image = _resize(flat(image), self.image_size)
        out = self._network.apply({"params": params}, image, flat(numbers), flat(code))
        return out.reshape(lead[::-1]).T

    @property
    def _network(self):
        return Discriminator(self.config)


class Discriminator(nn.Module):
    """Pictures (B, S, S, 3), cameras (B, 25) and codes (B, C) to logits (B,)."""

    config: config_lib.AdversarialConfig

    @nn.compact
    def __call__(self, image, camera, code):
        side = image.shape[1]
        blurred = _resize(_resize(image, max(side // BLUR, 1)), side)
        x = jnp.concatenate([image, blurred], -1)
        x = _activate(layer.Conv(self._channels(side), 1, conv_init="he", name="from_rgb")(x))
        while side > LAST_SIDE and side % 2 == 0:
            side //= 2
            x = Block(self._channels(side), name=f"block{side}")(x)
        x = jnp.concatenate([x, group_deviation(x, self.config.group_size)], -1)
        x = _activate(layer.Conv(self._channels(side), conv_init="he", name="last")(x))
        x = _activate(self._dense("hidden", self._channels(side))(x.reshape(len(x), -1)))
        x = self._dense("out", self.config.condition_width)(x)
        return (x * self._condition(camera, code)).sum(-1) / math.sqrt(x.shape[-1])

    def _condition(self, camera, code):
        width = self.config.condition_width
        parts = [self._dense("camera", width)(camera), self._dense("code", width)(code)]
        x = jnp.concatenate([_unit(part) for part in parts], -1)
        for index in range(2):
            x = _activate(self._dense(f"mapping{index}", width)(x))
        return _unit(x)

    def _dense(self, name, features):
        return nn.Dense(features, kernel_init=nn.initializers.he_normal(), name=name)

    def _channels(self, side):
        return min(self.config.channel_base // side, self.config.channel_max)


class Block(nn.Module):
    """Two convolutions and a skip, half the side: (B, H, W, C) to (B, H/2, W/2, features)."""

    features: int

    @nn.compact
    def __call__(self, x):
        plain = nn.initializers.lecun_normal()
        skip = layer.Conv(self.features, 1, use_bias=False, kernel_init=plain, name="skip")
        y = _activate(layer.Conv(x.shape[-1], conv_init="he", name="conv0")(x))
        y = _activate(layer.Conv(self.features, conv_init="he", name="conv1")(halve(y)))
        return (y + skip(halve(x))) / math.sqrt(2.0)


def halve(x):
    """Half the height and width after the filter (1, 3, 3, 1) / 8, so that nothing aliases."""
    for axis in (1, 2):
        count = x.shape[axis] // 2
        padding = [(0, 0)] * x.ndim
        padding[axis] = (1, 1)
        padded = jnp.pad(x, padding)
        parts = [
            jax.lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis)
            for start in range(4)
        ]
        x = (parts[0] + 3 * parts[1] + 3 * parts[2] + parts[3]) / 8
    return x


def group_deviation(x, group_size: int):
    """How much the pictures of a group differ, as a map: a lack of variety shows.

    Args:
        x: (B, H, W, C).
        group_size: Neighbours that form a group; the largest common divisor with B is taken.

    Returns:
        (B, H, W, 1): the deviation over the group, averaged over everything else.
    """
    size = math.gcd(group_size, len(x))
    groups = x.reshape(-1, size, *x.shape[1:])
    deviation = jnp.sqrt(groups.var(1) + _TINY).mean((1, 2, 3))
    spread = jnp.repeat(deviation, size).reshape(-1, 1, 1, 1)
    return jnp.broadcast_to(spread, (*x.shape[:3], 1))


def _resize(image, side: int):
    """(B, S, S, 3) to (B, side, side, 3), bilinear, averaging where it shrinks."""
    if image.shape[1] == side:
        return image
    return jax.image.resize(image, (len(image), side, side, 3), "linear", antialias=True)


def _activate(x):
    return jax.nn.leaky_relu(x, 0.2)


def _unit(x):
    """Mean square 1 over the last axis."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _TINY)
