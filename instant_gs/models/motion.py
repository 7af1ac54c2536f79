"""Motion: driving crop to code, and basis + codes to a residual (arXiv 2512.16893, section 3).

The motion decoder is local: one Gaussian's residual depends on its own basis vector and on the
two codes, through an AdaLN modulation and a small network; no attention, no neighbours.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from instant_gs import config as config_lib
from instant_gs.models import layer

COEFFICIENTS = 52  # targets of the head start; named in data.format.COEFFICIENT_NAMES
CODE_GAIN = 4.0  # a few coefficients of about 0.5 make a code of deviation about 0.5
SPATIAL_OUTPUTS = 10  # centre 3, rotation 4, log scale 3


class MotionEncoder(nn.Module):
    """A small convolutional network from a face crop to a code.

    All that it says passes 52 numbers, which leaves little room for identity and viewpoint; the
    head start makes them the expression coefficients. Input (B, S, S, 3) in [-1, 1]; returns the
    code (B, code_width), linear in the 52, and the 52 (B, 52), about [0, 1].
    """

    config: config_lib.MotionConfig

    @nn.compact
    def __call__(self, image):
        x = image
        for index, width in enumerate(self.config.widths):
            x = layer.Conv(width, stride=2, conv_init="he", name=f"conv{index}_a")(x)
            x = jax.nn.silu(nn.GroupNorm(num_groups=8, name=f"norm{index}_a")(x))
            y = layer.Conv(width, conv_init="he", name=f"conv{index}_b")(x)
            x = x + jax.nn.silu(nn.GroupNorm(num_groups=8, name=f"norm{index}_b")(y))
        x = jax.nn.silu(nn.Dense(self.config.hidden_width, name="hidden")(x.reshape(len(x), -1)))
        small = nn.initializers.normal(0.01)  # the coefficients' own spread is about 0.15
        coefficients = nn.Dense(COEFFICIENTS, kernel_init=small, name="coefficients")(x)
        spread = nn.initializers.normal(CODE_GAIN / math.sqrt(COEFFICIENTS))
        code = nn.Dense(self.config.code_width, kernel_init=spread, name="code")(coefficients)
        return code, coefficients


class AdaLN(nn.Module):
    """LN(basis) * scale + shift, both linear in [source code, driving code]; no "1 +"."""

    width: int

    @nn.compact
    def __call__(self, basis, code):
        modulation = layer.Dense(2 * self.width, use_bias=False, name="mapping")(code)
        scale, shift = jnp.split(modulation[..., None, :], 2, -1)
        return layer.Dense(self.width, name="proj")(layer.standardize(basis) * scale + shift)


class MotionDecoder(nn.Module):
    """Basis (…, N, F) and codes (…, C) each to a residual (…, N, F), or (…, N, 10) if spatial."""

    config: config_lib.MotionConfig
    gaussians: config_lib.GaussianConfig

    @nn.compact
    def __call__(self, basis, code_source, code_driving):
        width = self.gaussians.feature_width
        spatial = self.config.residual_space == "spatial"
        code = jnp.concatenate([code_source, code_driving], -1)
        hidden = AdaLN(width, name="adaln")(basis, code)
        hidden = layer.EqualizedDense(self.gaussians.hidden_width, name="fc1")(hidden)
        out = layer.EqualizedDense(SPATIAL_OUTPUTS if spatial else width, name="fc2")(
            jax.nn.softplus(hidden)
        )
        return self.config.residual_scale * out
