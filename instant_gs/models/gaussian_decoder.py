"""Features to Gaussians: a two-layer network per Gaussian (arXiv 2512.16893, section 3)."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.models import layer

# Slots of the 22 outputs. 4..10 and 21 are unused leftovers of the released network, kept so
# that its parameters fit.
OUTPUTS = 22


class Slots(NamedTuple):
    """Where the five attributes are among the outputs."""

    sigma: slice
    color: slice
    position: slice
    scale: slice
    rotation: slice


RELEASED = Slots(slice(0, 1), slice(1, 4), slice(11, 14), slice(14, 17), slice(17, 21))
COMPACT = Slots(slice(0, 1), slice(1, 4), slice(4, 7), slice(7, 10), slice(10, 14))  # 14 in all
VISIBLE_SIGMA = 1.0 / 255.0  # below this density the release drops a Gaussian for good

# A start for anchored Gaussians that already covers the head: small outputs around opacity 0.7,
# a deviation of 0.008 (about half the spacing of an even 64 x 64 map), no rotation. The colour
# starts as sigmoid(4 c - 2), about c, of the first three features c.
_ANCHORED_INIT_SCALE = 0.1
_ANCHORED_BIAS = {0: 1.9, 1: -2.0, 2: -2.0, 3: -2.0, 14: -1.66, 15: -1.66, 16: -1.66, 17: 1.0}
_COLOR_SLOPE = 4.0
_COLOR_FLOOR = 0.01


class GaussianDecoder(nn.Module):
    """Features (…, N, F) to raw outputs (…, N, 22)."""

    config: config_lib.GaussianConfig

    @nn.compact
    def __call__(self, features):
        anchored = self.config.position == "anchored"
        hidden = layer.EqualizedDense(
            self.config.hidden_width, kernel_init=_read_colors if anchored else None, name="fc1"
        )(features)
        return layer.EqualizedDense(
            OUTPUTS,
            kernel_init=_write_colors if anchored else None,
            bias_init=tuple(_ANCHORED_BIAS.get(i, 0.0) for i in range(OUTPUTS))
            if anchored
            else None,
            name="fc2",
        )(jax.nn.softplus(hidden))


# softplus(x) - softplus(-x) = x: two hidden units carry a colour through unchanged.
_THROUGH = np.concatenate([np.eye(3), -np.eye(3)], 1).astype(np.float32)  # (colours, units)


def _read_colors(key, shape, dtype=jnp.float32):
    kernel = jax.random.normal(key, shape, dtype)
    through = jnp.zeros((shape[0], 6), dtype).at[:3].set(_THROUGH * math.sqrt(shape[0]))
    return kernel.at[:, :6].set(through)


def _write_colors(key, shape, dtype=jnp.float32):
    kernel = _ANCHORED_INIT_SCALE * jax.random.normal(key, shape, dtype)
    through = _COLOR_SLOPE * math.sqrt(shape[0]) * _THROUGH.T
    return kernel.at[:6].set(0.0).at[:, RELEASED.color].set(0.0).at[:6, RELEASED.color].set(through)


def color_features(color):
    """The first three features that a fresh decoder turns into a colour (…, 3) in [0, 1]."""
    color = jnp.clip(color, _COLOR_FLOOR, 1 - _COLOR_FLOOR)
    return (jnp.log(color / (1 - color)) + 2.0) / _COLOR_SLOPE


def density(raw):
    """Density sigma (…, N) >= 0 of raw outputs (…, N, 22)."""
    return jax.nn.softplus(raw[..., 0] - 1.0)


def to_gaussians(
    raw,
    anchors,
    keep,
    config: config_lib.GaussianConfig,
    displacement=None,
    slots: Slots = RELEASED,
    widths=None,
) -> types.Gaussians:
    """Activates raw outputs.

    Args:
        raw: (…, N, 22) from ``GaussianDecoder``.
        anchors: (…, N, 3) resting centres, used when ``config.position`` is "anchored".
        keep: (…, N) bool; False makes the opacity exactly 0.
        config: Bounds and the kind of position.
        displacement: Optional (…, N, 10) of the spatial-deformation ablation, added to centre,
            rotation and log scale (3, 4, 3).
        slots: Where the attributes are in ``raw``.
        widths: Optional (…, N) factors on the scales.

    Returns:
        Gaussians with opacity in [0, 1), scales in (0, max_scale) before ``widths``.
    """
    position = jnp.tanh(raw[..., slots.position])
    if config.position == "anchored":
        position = anchors + config.max_offset * position
    scales = config.max_scale * jax.nn.sigmoid(raw[..., slots.scale])
    rotation = raw[..., slots.rotation]
    if displacement is not None:
        position = position + displacement[..., :3]
        rotation = rotation + displacement[..., 3:7]
        scales = scales * jnp.exp(displacement[..., 7:])
    if widths is not None:
        scales = scales * widths[..., None]
    length = jnp.sqrt(jnp.maximum((rotation**2).sum(-1, keepdims=True), 1e-24))
    opacity = 1.0 - jnp.exp(-density(raw))
    return types.Gaussians(
        means=position,
        quats=rotation / length,
        scales=scales,
        opacities=jnp.where(keep, opacity, 0.0),
        colors=jax.nn.sigmoid(raw[..., slots.color]) * 1.002 - 0.001,
    )
