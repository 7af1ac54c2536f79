"""The frozen motion encoder of the release: X-NeMo's, a face-alignment hourglass with attention.

A pre-activation hourglass network (FAN, Bulat and Tzimiropoulos 2017) with three spatial
transformers reads a 224 x 224 face crop; a constant box code and a token code are added
(X-NeMo, arXiv 2507.23143). It is never trained here: batch norms use their stored statistics
and no gradient passes. Its variables keep the collections of the checkpoint map: ``params``,
``batch_stats`` and ``constants``.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.models import layer

CODE_WIDTH = 512
TOKENS, TOKEN_WIDTH = 32, 16  # how the code is read: 32 tokens of 16 numbers

_ATTENTION_GRID = 28  # tokens a side
_ATTENTION_WIDTH = 1024
_ATTENTION_HEADS = 8
_HOURGLASS_DEPTH = 4
_GROUPS = 32
_BATCH_NORM_EPSILON = 1e-5
_GROUP_NORM_EPSILON = 1e-6
_BOX = (0.0, 0.0, 1.0)  # the driver's box is not used: no shift, unit size


def sincos(positions, width: int) -> np.ndarray:
    """Sine-cosine code of positions (P,): (P, width), sines first, frequencies 1 to 1/10000."""
    half = width // 2
    phase = np.asarray(positions)[:, None] * 10000.0 ** (-np.arange(half) / half)[None]
    return np.concatenate([np.sin(phase), np.cos(phase)], -1)


def token_code() -> np.ndarray:
    """The constant added to the code's tokens, (1, 32, 16) float32."""
    return sincos(np.arange(TOKENS), TOKEN_WIDTH)[None].astype(np.float32)


def position_code() -> np.ndarray:
    """The attention's position embedding, (784, 1024): [column code | row code], row-major.

    It is no part of the checkpoint (a buffer that PyTorch does not save).
    """
    row, column = np.divmod(np.arange(_ATTENTION_GRID**2), _ATTENTION_GRID)
    half = _ATTENTION_WIDTH // 2
    return np.concatenate([sincos(column, half), sincos(row, half)], -1).astype(np.float32)


class BatchNorm(nn.Module):
    """Affine map by stored statistics; they never change here."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        variance = self.variable("batch_stats", "var", jnp.ones, shape).value
        scale = scale * jax.lax.rsqrt(variance + _BATCH_NORM_EPSILON)
        out = x * layer.channelwise(scale, x) + layer.channelwise(bias - mean * scale, x)
        return out.astype(self.dtype)


class ConvBlock(nn.Module):
    """Three 3x3 convolutions of widths 1/2, 1/4, 1/4, concatenated, plus a shortcut."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        outputs, current = [], x
        for index, divisor in enumerate((2, 4, 4), start=1):
            current = nn.relu(BatchNorm(self.dtype, name=f"bn{index}")(current))
            current = _conv(self.features // divisor, self.dtype, f"conv{index}")(current)
            outputs.append(current)
        if x.shape[-1] != self.features:
            x = nn.relu(BatchNorm(self.dtype, name="downsample_bn")(x))
            x = _conv(self.features, self.dtype, "downsample_conv", size=1)(x)
        return jnp.concatenate(outputs, -1) + x


def _conv(features, dtype, name, *, size=3, stride=1, use_bias=False):
    return layer.Conv(features, size, stride, use_bias=use_bias, dtype=dtype, name=name)


class Hourglass(nn.Module):
    """Pools four times, works at every scale and adds the skips back, (B, 56, 56, C)."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        return self._level(_HOURGLASS_DEPTH, x)

    def _level(self, level, x):
        skip = self._block(f"b1_{level}", x)
        low = self._block(f"b2_{level}", nn.max_pool(x, (2, 2), (2, 2)))
        low = self._level(level - 1, low) if level > 1 else self._block("b2_plus_1", low)
        low = self._block(f"b3_{level}", low)
        return skip + jax.image.resize(low, skip.shape, "bilinear")

    def _block(self, name, x):
        return ConvBlock(self.features, self.dtype, name=name)(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens (B, L, C)."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        heads = (*x.shape[:2], _ATTENTION_HEADS, x.shape[2] // _ATTENTION_HEADS)
        query, key, value = (
            _dense(x.shape[2], self.dtype, name, use_bias=False)(x).reshape(heads)
            for name in ("to_q", "to_k", "to_v")
        )
        out = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return _dense(x.shape[2], self.dtype, "to_out")(out)


class FeedForward(nn.Module):
    """Gated GELU network, 4 times as wide inside."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        value, gate = jnp.split(_dense(8 * width, self.dtype, "proj_in")(x), 2, -1)
        return _dense(width, self.dtype, "proj_out")(value * jax.nn.gelu(gate, approximate=False))


def _dense(features, dtype, name, use_bias=True):
    return layer.Dense(features, use_bias=use_bias, gain=1.0, dtype=dtype, name=name)


class SpatialTransformer(nn.Module):
    """One transformer block on patches of the image; its output is added to the image."""

    patch: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image):
        batch, size, _, channels = image.shape
        patch, grid = self.patch, size // self.patch
        x = nn.GroupNorm(_GROUPS, epsilon=_GROUP_NORM_EPSILON, use_fast_variance=False, name="norm")
        x = x(image.astype(jnp.float32))
        # Even kernels are not padded: the patches do not overlap.
        x = _conv(
            _ATTENTION_WIDTH, self.dtype, "patch_proj", size=patch, stride=patch, use_bias=True
        )(x)
        x = x.reshape(batch, grid * grid, _ATTENTION_WIDTH)
        x = x + jnp.asarray(position_code()[None], x.dtype)
        normal = layer.LayerNorm(dtype=self.dtype, name="attn_norm")(x)
        x = x + SelfAttention(self.dtype, name="attn")(normal)
        normal = layer.LayerNorm(dtype=self.dtype, name="ff_norm")(x)
        x = x + FeedForward(self.dtype, name="ff")(normal)
        x = _dense(channels, self.dtype, "proj_out")(
            x.reshape(batch, grid, grid, patch, patch, _ATTENTION_WIDTH // patch**2)
        )
        return image + x.transpose(0, 1, 3, 2, 4, 5).reshape(image.shape)


class Fan(nn.Module):
    """Crop (B, 224, 224, 3) to an expression vector (B, 512).

    The fully connected layer behind the hourglass fixes the size of the crop.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        dtype = self.dtype
        x = _conv(64, dtype, "conv1", size=7, stride=2, use_bias=True)(x)
        x = nn.relu(BatchNorm(dtype, name="bn1")(x))
        x = ConvBlock(128, dtype, name="conv2")(x)
        x = SpatialTransformer(4, dtype, name="att_1")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = ConvBlock(128, dtype, name="conv3")(x)
        x = ConvBlock(256, dtype, name="conv4")(x)
        x = SpatialTransformer(2, dtype, name="att_2")(x)
        x = Hourglass(256, dtype, name="m0")(x)
        x = ConvBlock(256, dtype, name="top_m_0")(x)
        x = _conv(256, dtype, "conv_last0", size=1, use_bias=True)(x)
        x = BatchNorm(dtype, name="bn_end0")(x)
        x = nn.relu(SpatialTransformer(2, dtype, name="att_3")(x))
        x = _conv(68, dtype, "l0", size=1, use_bias=True)(x)
        x = nn.relu(BatchNorm(dtype, name="bn5")(x))
        x = _conv(1, dtype, "conv6", stride=2, use_bias=True)(x)
        return _dense(CODE_WIDTH, dtype, "fc")(nn.relu(x.reshape(x.shape[0], -1)))


class BoxProjection(nn.Module):
    """Two layers on the box parameters, (3,) to (1, 64)."""

    @nn.compact
    def __call__(self, box):
        hidden = nn.relu(_dense(64, "float32", "fc1")(box[None]))
        return _dense(64, "float32", "fc2")(hidden)


class FanMotionEncoder(nn.Module):
    """Face crop (B, 224, 224, 3) in [-1, 1] to the motion code (B, 512), float32, not normalised.

    No gradient reaches the crop or the parameters.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, crop):
        face = Fan(self.dtype, name="fan")(jnp.asarray(crop, self.dtype)).astype(jnp.float32)
        box = BoxProjection(name="bbox_proj")(jnp.array(_BOX))
        box = jnp.broadcast_to(box, (face.shape[0], box.shape[1]))
        code = _dense(CODE_WIDTH, "float32", "final_proj")(jnp.concatenate([face, box], -1))
        constant = self.variable("constants", "pe", lambda: jnp.asarray(token_code())).value
        return jax.lax.stop_gradient(code + constant.reshape(1, -1))
