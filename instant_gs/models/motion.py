"""Motion: driving crop to code, and basis + codes to a residual (arXiv 2512.16893, section 3).

The motion decoder is local: one Gaussian's residual depends on its own basis vector and on the
two codes, through an AdaLN modulation and a small network; no attention, no neighbours.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import config as config_lib
from instant_gs.models import layer

COEFFICIENTS = 52  # targets of the head start; named in data.format.COEFFICIENT_NAMES
CODE_GAIN = 4.0  # a few coefficients of about 0.5 make a code of deviation about 0.5
_STILL = 0.05  # deviation of weights whose released start is 1
_MAPPING = 0.06  # 1024 code numbers of deviation 0.5 make a scale of deviation 1
SPATIAL_OUTPUTS = 10  # centre 3, rotation 4, log scale 3


class MotionEncoder(nn.Module):
    """A small convolutional network from a face crop to a code.

    Two things keep identity out of the code: the network sees local contrast instead of colours,
    and all that it says passes 52 numbers, which the head start makes the expression
    coefficients. Input (B, S, S, 3) in [-1, 1]; returns the code (B, code_width), linear in the
    52, and the 52 (B, 52), about [0, 1].
    """

    config: config_lib.MotionConfig

    @nn.compact
    def __call__(self, image):
        x = convolutions(local_contrast(image), self.config.widths, self.config.hidden_width)
        small = nn.initializers.normal(0.01)  # the coefficients' own spread is about 0.15
        coefficients = nn.Dense(COEFFICIENTS, kernel_init=small, name="coefficients")(x)
        spread = nn.initializers.normal(CODE_GAIN / math.sqrt(COEFFICIENTS))
        code = nn.Dense(self.config.code_width, kernel_init=spread, name="code")(coefficients)
        return code, coefficients


def convolutions(x, widths, hidden: int):
    """Image (B, S, S, C) to (B, hidden); the calling module owns the layers."""
    for index, width in enumerate(widths):
        x = layer.Conv(width, stride=2, conv_init="he", name=f"conv{index}_a")(x)
        x = jax.nn.silu(nn.GroupNorm(num_groups=8, name=f"norm{index}_a")(x))
        y = layer.Conv(width, conv_init="he", name=f"conv{index}_b")(x)
        x = x + jax.nn.silu(nn.GroupNorm(num_groups=8, name=f"norm{index}_b")(y))
    return jax.nn.silu(nn.Dense(hidden, name="hidden")(x.reshape(len(x), -1)))


def local_contrast(image):
    """Grey values relative to their surroundings, in units of the local deviation.

    Skin colour, exposure and smooth shading cancel. The surroundings are a Gaussian window whose
    deviation is a sixteenth of the image's side.

    Args:
        image: (B, S, S, 3) in [-1, 1].

    Returns:
        (B, S, S, 1), deviation about 1 where there is any texture.
    """
    window = jnp.asarray(_window(image.shape[1]))

    def blur(x):
        return jnp.einsum("ij,bjk,lk->bil", window, x, window)

    grey = image @ jnp.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
    centred = grey - blur(grey)
    return (centred / jnp.sqrt(blur(centred**2) + _CONTRAST_FLOOR**2))[..., None]


_CONTRAST_FLOOR = 0.04  # of grey values in [-1, 1]: flat skin and noise stay flat


def _window(side: int) -> np.ndarray:
    """Gaussian weights (side, side), each row one output position, rows sum to 1."""
    position = np.arange(side)
    weight = np.exp(-0.5 * ((position[:, None] - position) / (side / 16)) ** 2)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


class AdaLN(nn.Module):
    """LN(basis) * scale + shift, both linear in [source code, driving code]; no "1 +".

    ``wide`` starts with outputs of order one for codes as the learned encoder makes them.
    """

    width: int
    wide: bool = False

    @nn.compact
    def __call__(self, basis, code):
        mapping_init = nn.initializers.normal(_MAPPING / layer.TRANSFORMER_GAIN)
        proj_init = nn.initializers.normal(1 / (math.sqrt(self.width) * layer.TRANSFORMER_GAIN))
        modulation = layer.Dense(
            2 * self.width,
            use_bias=False,
            kernel_init=mapping_init if self.wide else None,
            name="mapping",
        )(code)
        scale, shift = jnp.split(modulation[..., None, :], 2, -1)
        modulated = layer.standardize(basis) * scale + shift
        return layer.Dense(self.width, kernel_init=proj_init if self.wide else None, name="proj")(
            modulated
        )


class MotionDecoder(nn.Module):
    """Basis (…, N, F) and codes (…, C) each to a residual (…, N, F), or (…, N, 10) if spatial.

    Anchored Gaussians learn from scratch: there the start is a still face, noise would first have
    to be unlearned, with random functions of basis and code ready behind the last layer.
    """

    config: config_lib.MotionConfig
    gaussians: config_lib.GaussianConfig

    @nn.compact
    def __call__(self, basis, code_source, code_driving):
        width = self.gaussians.feature_width
        spatial = self.config.residual_space == "spatial"
        from_scratch = self.gaussians.position == "anchored"
        code = jnp.concatenate([code_source, code_driving], -1)
        hidden = AdaLN(width, from_scratch, name="adaln")(basis, code)
        hidden = layer.EqualizedDense(self.gaussians.hidden_width, name="fc1")(hidden)
        out = layer.EqualizedDense(
            SPATIAL_OUTPUTS if spatial else width,
            kernel_init=nn.initializers.normal(_STILL) if from_scratch else None,
            name="fc2",
        )(jax.nn.softplus(hidden))
        return self.config.residual_scale * out
