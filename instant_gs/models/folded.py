"""The exact fast animation: what does not change between frames is computed once.

The layer norm of the motion basis is constant for an avatar. The codes reach the Gaussians only
through AdaLN's scale and shift (``types.Motion``). Scale, AdaLN's projection and the motion
network's first layer are linear in the normalised basis and fold into one F x H matrix a frame;
the decoder's eight unused outputs are dropped. In exact arithmetic nothing changes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.models import gaussian_decoder, layer

# Columns of the decoder's output that mean something, in the order of gaussian_decoder.COMPACT.
_USED = np.concatenate([np.r_[used] for used in gaussian_decoder.RELEASED])


@types.pytree
class FoldedAvatar:
    """An avatar, ready for many frames; see ``types.Avatar``.

    Attributes:
        features: (…, N, F).
        normal_basis: (…, N, F), layer norm of the motion basis, without affine.
        anchors: (…, N, 3).
        keep: (…, N) bool.
        widths: (…, N) or None.
    """

    features: types.Array
    normal_basis: types.Array
    anchors: types.Array
    keep: types.Array
    widths: types.Array | None


def motion(motion_decoder, code_source, code_driving) -> types.Motion:
    """AdaLN's scale and shift.

    Args:
        motion_decoder: Parameters of the motion decoder.
        code_source: (…, C) motion code of the photo.
        code_driving: (…, C) motion code of the driving face.

    Returns:
        Motion of (…, F) arrays.
    """
    kernel = motion_decoder["adaln"]["mapping"]["kernel"] * layer.TRANSFORMER_GAIN
    code = jnp.concatenate(jnp.broadcast_arrays(code_source, code_driving), -1)
    return types.Motion(*jnp.split(code @ kernel, 2, -1))


def fold_avatar(avatar: types.Avatar) -> FoldedAvatar:
    """Normalises the motion basis, once for all frames."""
    normal_basis = layer.standardize(avatar.motion_basis)
    return FoldedAvatar(avatar.features, normal_basis, avatar.anchors, avatar.keep, avatar.widths)


def fold_motion(motion_decoder, motion: types.Motion):
    """One frame's first layer.

    Args:
        motion_decoder: Parameters of the motion decoder.
        motion: (…, F) each.

    Returns:
        Matrix (…, F, H) and bias (…, H): the hidden layer, before its softplus, is
        ``normalised basis @ matrix + bias``.
    """
    project, first = motion_decoder["adaln"]["proj"], motion_decoder["fc1"]
    width = first["kernel"].shape[0]
    kernel = first["kernel"] / math.sqrt(width)
    through = (project["kernel"] * layer.TRANSFORMER_GAIN) @ kernel
    constant = (project["bias"] * layer.TRANSFORMER_GAIN) @ kernel + first["bias"]
    bias = motion.shift @ through
    matrix = jnp.einsum("...f,fh->...fh", motion.scale, through)
    return matrix, bias + layer.channelwise(constant, bias)


def animate(
    params, config: config_lib.ModelConfig, avatar: FoldedAvatar, motion: types.Motion
) -> types.Gaussians:
    """Gaussians of one frame.

    Args:
        params: Model parameters.
        config: Of the model.
        avatar: From ``fold_avatar``, leading axes (…,).
        motion: The same leading axes.

    Returns:
        Gaussians (…, N, ·), equal to ``AvatarModel.animate``'s.
    """
    decoder, motion_decoder = params["decoder"], params["motion_decoder"]
    matrix, bias = fold_motion(motion_decoder, motion)
    hidden = jax.nn.softplus(avatar.normal_basis @ matrix + bias[..., None, :])
    residual = config.motion.residual_scale * _equalized(motion_decoder["fc2"], hidden)
    features, displacement = avatar.features, residual
    if config.motion.residual_space == "feature":
        features, displacement = features + residual, None
    hidden = jax.nn.softplus(_equalized(decoder["fc1"], features))
    last = {"kernel": decoder["fc2"]["kernel"][:, _USED], "bias": decoder["fc2"]["bias"][_USED]}
    return gaussian_decoder.to_gaussians(
        _equalized(last, hidden),
        avatar.anchors,
        avatar.keep,
        config.gaussians,
        displacement,
        gaussian_decoder.COMPACT,
        avatar.widths,
    )


def blend(first: types.Motion, second: types.Motion, weight) -> types.Motion:
    """``first`` at weight 0, ``second`` at 1, straight between and beyond."""
    return jax.tree.map(lambda a, b: a + weight * (b - a), first, second)


def smooth(stream: types.Motion, frames: float) -> types.Motion:
    """Gaussian filter along time.

    Args:
        stream: (T, F) each.
        frames: Standard deviation in frames; 0 changes nothing. The ends are held.

    Returns:
        Motion of the same shape.

    Raises:
        ValueError: ``frames`` is negative or not finite, or there is no time axis.
    """
    if not 0 <= frames < math.inf or np.ndim(stream.scale) != 2:
        raise ValueError(
            "stream, frames: expected shape (T, F) and a deviation >= 0, got "
            f"{np.shape(stream.scale)} and {frames}; stack the frames along the first axis"
        )
    if frames == 0:
        return stream
    reach = math.ceil(3 * frames)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    weight = jnp.asarray(weight / weight.sum(), jnp.float32)

    def along_time(values):
        padded = jnp.pad(jnp.asarray(values), ((reach, reach), (0, 0)), mode="edge")
        return jax.vmap(lambda v: jnp.convolve(v, weight, "valid"), 1, 1)(padded)

    return jax.tree.map(along_time, stream)


def _equalized(parameters, x):
    out = x @ (parameters["kernel"] / math.sqrt(x.shape[-1]))
    return out + layer.channelwise(parameters["bias"], out)
