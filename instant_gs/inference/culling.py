"""Culling that keeps teeth: a Gaussian goes only if no driver ever makes it visible.

The release drops what is invisible under the photo's own expression ("source"), and with it the
inside of a closed mouth. Here the same test runs over a motion envelope: the photo as it is, and
its avatar under every driver of a bank.
"""

import math

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.models import avatar_model, gaussian_decoder

#: The release's threshold on density, as an opacity.
VISIBLE_OPACITY = 1.0 - math.exp(-gaussian_decoder.VISIBLE_SIGMA)


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
    return types.Avatar(avatar.features, avatar.motion_basis, avatar.anchors, seen)
