"""The photo encoder: one image to planes of features (arXiv 2512.16893, its release).

A norm-free ResNet-18 trunk with dilated last stages, an ASPP head, a low-resolution branch of
transformer blocks, a high-resolution branch fed by the stem, and a plane decoder. At the
default sizes this is the released network, parameter by parameter; any other size is the same
structure. Module names are those of the checkpoint map.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.models import layer, unwrap

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 1, 3)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 1, 3)


class BasicBlock(nn.Module):
    """relu(conv2(relu(conv1(x))) + shortcut), without norm or bias."""

    features: int
    stride: int
    dilation: int
    downsample: bool
    conv_init: str
    dtype: str

    @nn.compact
    def __call__(self, x):
        common = dict(use_bias=False, conv_init=self.conv_init, dtype=self.dtype)
        y = layer.Conv(
            self.features, stride=self.stride, dilation=self.dilation, name="conv1", **common
        )(x)
        y = layer.Conv(self.features, dilation=self.dilation, name="conv2", **common)(nn.relu(y))
        if self.downsample:
            x = layer.Conv(self.features, 1, self.stride, name="downsample", **common)(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """ResNet-18 trunk; returns the stem's output at 1/2 and the last stage at 1/8 size."""

    config: config_lib.EncoderConfig
    dtype: str

    @nn.compact
    def __call__(self, x):
        config = self.config
        stem = layer.Conv(
            config.resnet_widths[0],
            7,
            2,
            use_bias=False,
            conv_init=config.conv_init,
            kernel_init=_stem_init if config.conv_init == "torch" else None,
            dtype=self.dtype,
            name="conv1",
        )(x)
        shallow = nn.relu(stem)
        x = nn.max_pool(shallow, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
            for block in range(2):
                x = BasicBlock(
                    config.resnet_widths[stage],
                    stride if block == 0 else 1,
                    dilation,
                    stage > 1 and block == 0,
                    config.conv_init,
                    self.dtype,
                    name=f"layer{stage}_{block}",
                )(x)
        return shallow, x


def _stem_init(key, shape, dtype=jnp.float32):
    """A 3-channel initialisation, copied cyclically to 5 channels and scaled by 3/5."""
    kernel = layer.torch_uniform(key, (*shape[:2], 3, shape[3]), dtype)
    return kernel[:, :, np.arange(shape[2]) % 3] * (3.0 / shape[2])


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3 head) without norms."""

    config: config_lib.EncoderConfig
    dtype: str

    @nn.compact
    def __call__(self, x):
        width = self.config.aspp_width
        common = dict(use_bias=False, conv_init=self.config.conv_init, dtype=self.dtype)
        branches = [nn.relu(layer.Conv(width, 1, name="branch0", **common)(x))]
        for index, rate in enumerate(self.config.aspp_rates, start=1):
            conv = layer.Conv(width, dilation=rate, name=f"branch{index}", **common)
            branches.append(nn.relu(conv(x)))
        pooled = nn.relu(layer.Conv(width, 1, name="pool", **common)(x.mean((1, 2), keepdims=True)))
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = jnp.concatenate(branches, -1)
        x = nn.relu(layer.Conv(width, 1, name="project", **common)(x))
        return nn.relu(layer.Conv(width, name="out", **common)(x))


class PatchEmbed(nn.Module):
    """3x3 stride-2 convolution to tokens, kept as an image (B, H/2, W/2, width), and a norm."""

    width: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        init = layer.fan_out_normal()
        x = layer.Conv(self.width, stride=2, kernel_init=init, dtype=self.dtype, name="proj")(x)
        return layer.LayerNorm(dtype=self.dtype, name="norm")(x)


class Attention(nn.Module):
    """Self-attention over the token image; ``reduction`` 2 shrinks the keys' image first."""

    heads: int
    reduction: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        query = layer.Dense(channels, dtype=self.dtype, name="q")(x)
        if self.reduction > 1:
            x = layer.Conv(
                channels,
                self.reduction,
                self.reduction,
                gain=layer.TRANSFORMER_GAIN,
                kernel_init=layer.fan_out_normal(gain=layer.TRANSFORMER_GAIN),
                dtype=self.dtype,
                name="sr",
            )(x)
            x = layer.LayerNorm(layer.TRANSFORMER_GAIN, self.dtype, name="norm")(x)
        key, value = jnp.split(layer.Dense(2 * channels, dtype=self.dtype, name="kv")(x), 2, -1)
        query, key, value = (
            a.reshape(batch, -1, self.heads, channels // self.heads) for a in (query, key, value)
        )
        out = jax.nn.dot_product_attention(query, key, value)
        out = out.reshape(batch, height, width, channels)
        return layer.Dense(channels, dtype=self.dtype, name="proj")(out)


class Mlp(nn.Module):
    """Linear, depthwise 3x3, exact GELU, linear."""

    ratio: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        x_hidden = layer.Dense(width * self.ratio, dtype=self.dtype, name="fc1")(x)
        x_hidden = layer.DepthwiseConv3(dtype=self.dtype, name="dwconv")(x_hidden)
        x_hidden = jax.nn.gelu(x_hidden, approximate=False)
        return layer.Dense(width, dtype=self.dtype, name="fc2")(x_hidden)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), every own parameter with gain 0.5."""

    heads: int
    reduction: int
    mlp_ratio: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        norm1 = layer.LayerNorm(layer.TRANSFORMER_GAIN, self.dtype, name="norm1")
        norm2 = layer.LayerNorm(layer.TRANSFORMER_GAIN, self.dtype, name="norm2")
        x = x + Attention(self.heads, self.reduction, self.dtype, name="attn")(norm1(x))
        return x + Mlp(self.mlp_ratio, self.dtype, name="mlp")(norm2(x))


class LowBranch(nn.Module):
    """Global reasoning at 1/16 size; output at 1/4 size."""

    config: config_lib.EncoderConfig
    dtype: str

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = PatchEmbed(config.token_width, self.dtype, name="patch_embed")(x)
        for index in range(config.low_blocks):
            x = TransformerBlock(
                config.low_heads, 1, config.mlp_ratio, self.dtype, name=f"block{index}"
            )(x)
        x = layer.upsample2(layer.pixel_shuffle2(x))
        common = dict(conv_init=config.conv_init, dtype=self.dtype)
        x = layer.leaky_relu(layer.Conv(config.branch_width, name="conv", **common)(x))
        return layer.Conv(config.branch_width, name="project", **common)(x)


class HighBranch(nn.Module):
    """Detail: convolutions on the stem's output; output at 1/4 size."""

    config: config_lib.EncoderConfig
    dtype: str

    @nn.compact
    def __call__(self, x):
        common = dict(conv_init=self.config.conv_init, dtype=self.dtype)
        width = self.config.branch_width
        x = layer.leaky_relu(layer.Conv(width, stride=2, name="in_layer", **common)(x))
        for index in range(1, 5):
            x = layer.leaky_relu(layer.Conv(width, name=f"layer{index}", **common)(x))
        return layer.Conv(width, name="out_layer", **common)(x)


class PlaneDecoder(nn.Module):
    """Both branches to planes at 1/2 size, (B, H/2, W/2, num_planes * 2 * feature_width)."""

    config: config_lib.EncoderConfig
    features: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        config = self.config
        common = dict(conv_init=config.conv_init, dtype=self.dtype)
        x = layer.Conv(2 * config.branch_width, name="in_conv", **common)(x)
        x = PatchEmbed(config.token_width, self.dtype, name="patch_embed")(x)
        x = TransformerBlock(config.plane_heads, 2, config.mlp_ratio, self.dtype, name="block")(x)
        x = layer.pixel_shuffle2(x)
        for index, width in enumerate((*config.tail_widths, self.features), start=1):
            x = layer.leaky_relu(layer.Conv(width, name=f"layer_{index}", **common)(x))
            if index == 1:
                x = layer.upsample2(x)
        init = _quiet if config.shortcut else None  # what the shortcut says comes first
        return layer.Conv(self.features, name="out_layer", kernel_init=init, **common)(x)


def _quiet(key, shape, dtype=jnp.float32):
    return 0.02 * layer.he_normal(key, shape, dtype)


class Shortcut(nn.Module):
    """What training from scratch finds first: the mean head, and the photo's own colours.

    A learned map, the same for every photo, plus one convolution of the photo (B, H, W, C) to
    the planes' size. The first three features start as the photo's first three channels, which a
    fresh decoder takes for the colour (``gaussian_decoder``). Not in the release.
    """

    features: int
    dtype: str

    @nn.compact
    def __call__(self, photo):
        read = layer.Conv(
            self.features, stride=2, kernel_init=_read_colors, dtype=self.dtype, name="read"
        )
        x = read(photo)
        mean = MEAN_GAIN * self.param("mean", _smooth_noise, (*x.shape[1:3], self.features))
        return x + mean[None].astype(x.dtype)


MEAN_GAIN = 10.0  # a map's cell is one number: Adam's steps, meant for sums of many, are small
_MEAN_DEVIATION = 0.5
_COLORS = np.eye(3, dtype=np.float32)


def _read_colors(key, shape, dtype=jnp.float32):
    """He's initialisation, but output 0 to 2 is the mean of input 0 to 2 over a cell's 2 x 2."""
    kernel = layer.he_normal(key, shape, dtype).at[..., :3].set(0.0)
    return kernel.at[1:, 1:, :3, :3].set(jnp.broadcast_to(_COLORS / 4, (2, 2, 3, 3)))


def _smooth_noise(key, shape, dtype=jnp.float32):
    """Noise of three wavelengths: neighbours are alike, places far apart are not."""
    total = 0.0
    for octave, octave_key in enumerate(jax.random.split(key, 3)):
        coarse = jax.random.normal(octave_key, (4 << octave, 4 << octave, shape[-1]), dtype)
        total = total + 0.7**octave * jax.image.resize(coarse, shape, "cubic")
    total = total * _MEAN_DEVIATION
    return total.at[..., :3].set(0.0) / MEAN_GAIN


class Backbone(nn.Module):
    """Image in [-1, 1] (B, H, W, 3) to planes (B, num_planes, H/2, W/2, 2 * feature_width).

    The first ``feature_width`` channels of a plane are appearance and geometry, the others the
    motion basis. With ``config.unwrap`` the photo is first laid out on the head that ``camera``,
    Camera (B,), saw, and H and W are the side of that map.
    """

    config: config_lib.EncoderConfig
    feature_width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, camera: types.Camera | None = None):
        config, dtype = self.config, self.dtype
        remat = nn.remat if config.remat else (lambda module: module)
        x = jax.lax.stop_gradient(image)
        if config.unwrap:
            x = unwrap.unwrap((x + 1) / 2, camera, config.unwrap)
        else:
            x = (x / 2 + 0.5 - IMAGENET_MEAN) / IMAGENET_STD
        photo = x = with_coordinates(x)
        shallow, x = remat(ResNet)(config, dtype, name="resnet")(x)
        x = remat(Aspp)(config, dtype, name="aspp")(x)
        low = remat(LowBranch)(config, dtype, name="low")(x)
        high = remat(HighBranch)(config, dtype, name="high")(shallow)
        channels = 2 * self.feature_width
        planes = remat(PlaneDecoder)(config, config.num_planes * channels, dtype, name="planes")(
            jnp.concatenate([low, high], -1)
        )
        if config.shortcut:
            planes = planes + Shortcut(config.num_planes * channels, dtype, name="shortcut")(photo)
        planes = planes.reshape(*planes.shape[:3], config.num_planes, channels)
        return jnp.moveaxis(planes, 3, 1).astype(jnp.float32)


def with_coordinates(image):
    """Appends pixel-centre coordinates x and y in (-1, 1) as two channels."""
    height, width = image.shape[1:3]
    x = (2 * jnp.arange(width) + 1) / width - 1
    y = (2 * jnp.arange(height) + 1) / height - 1
    grid = jnp.stack(jnp.meshgrid(x, y), -1).astype(image.dtype)
    return jnp.concatenate([image, jnp.broadcast_to(grid, (*image.shape[:3], 2))], -1)
