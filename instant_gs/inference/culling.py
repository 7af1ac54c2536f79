"""Culling that keeps teeth: a Gaussian goes only if no driver ever makes it visible.

The release drops what is invisible under the photo's own expression ("source"), and with it the
inside of a closed mouth. Here the same test runs over a motion envelope: the photo as it is, and
its avatar under every driver of a bank ("envelope", the default).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from instant_gs import config as config_lib
from instant_gs import types
from instant_gs.models import avatar_model, gaussian_decoder

#: The release's threshold on density, as an opacity.
VISIBLE_OPACITY = 1.0 - math.exp(-gaussian_decoder.VISIBLE_SIGMA)

#: Ways to say which Gaussians an avatar keeps: those visible under any driver of a bank, those
#: visible under the photo's own expression (the release's way), or all.
WAYS = ("envelope", "source", "none")


def checked(way: str) -> str:
    """``way``, if it is one of ``WAYS``; raises ValueError otherwise."""
    if way not in WAYS:
        raise ValueError(f"culling: expected one of {', '.join(WAYS)}, got {way!r}; choose one")
    return way


def default(config: config_lib.Config, params: dict) -> str:
    """The way of weights unless told otherwise.

    Returns:
        "envelope"; for weights that cannot read an expression, having no motion encoder, what
        their configuration says (``model.gaussians.cull``; the release's is "source").
    """
    return "envelope" if "motion_encoder" in params else config.model.gaussians.cull


def envelope(
    model: avatar_model.AvatarModel, params: dict, avatar: types.Avatar, code_source, bank
) -> types.Avatar:
    """Keeps what becomes visible under any driver; for ``jax.jit``.

    Args:
        model: The model.
        params: Its parameters.
        avatar: Leading axes (…,); what its ``keep`` drops stays dropped.
        code_source: (…, C) motion code of the photo.
        bank: (K, C) motion codes of the drivers.

    Returns:
        The avatar with its ``keep`` narrowed. Of what it drops nobody of the bank shows anything.
    """
    folded = model.fold(avatar)
    seen = model.rest(params, avatar).opacities >= VISIBLE_OPACITY

    def look(seen, code):
        motion = model.motion(params, code_source, jnp.broadcast_to(code, code_source.shape))
        moved = model.animate_folded(params, folded, motion)
        return seen | (moved.opacities >= VISIBLE_OPACITY), None

    seen, _ = jax.lax.scan(look, seen, bank)  # one driver at a time: memory of one frame
    return dataclasses.replace(avatar, keep=seen)
