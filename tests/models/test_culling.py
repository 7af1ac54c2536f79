"""What the filter drops contributes exactly nothing, in every frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import rendering, types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder
from tests.models import small

COUNT = 300


def half_filtered(model, params):
    """An avatar of which the filter drops half; moves the density's bias to get there."""
    keys = jax.random.split(jax.random.key(0), 2)
    features, basis = (4 * jax.random.normal(key, (1, COUNT, 48)) for key in keys)
    last = params["decoder"]["fc2"]
    last["kernel"] = last["kernel"].at[:, gaussian_decoder.RELEASED.position].multiply(0.1)
    raw = model._decode(params, features)[..., 0]
    threshold = float(np.log(np.expm1(gaussian_decoder.VISIBLE_SIGMA))) + 1
    last["bias"] = last["bias"].at[0].add(threshold - jnp.median(raw))
    keep = gaussian_decoder.density(model._decode(params, features)) >= 1 / 255
    assert 0.4 < keep.mean() < 0.6
    return types.Avatar(features, basis, jnp.zeros((1, COUNT, 3)), keep)


def test_the_threshold_is_on_the_density_of_the_source():
    model = small.build()
    params = small.params(model)
    params["decoder"]["fc2"]["bias"] = params["decoder"]["fc2"]["bias"].at[0].add(-3.0)
    avatar = jax.jit(model.encode)(params, small.image())
    sigma = gaussian_decoder.density(model._decode(params, avatar.features))
    assert jnp.array_equal(avatar.keep, sigma >= 1 / 255)
    gaussians = dataclasses.replace(model.config.gaussians, cull="none")
    everything = type(model)(dataclasses.replace(model.config, gaussians=gaussians))
    assert jax.jit(everything.encode)(params, small.image()).keep.all()


def test_dropped_gaussians_contribute_nothing_though_motion_raises_them():
    model = small.build()
    params = small.params(model)
    avatar = half_filtered(model, params)
    params["motion_decoder"]["fc2"]["kernel"] *= 3000
    codes = small.codes(1)
    gaussians, _ = model.animate(params, avatar, *codes)
    everywhere = dataclasses.replace(avatar, keep=jnp.ones_like(avatar.keep))
    raised, _ = model.animate(params, everywhere, *codes)
    dropped = ~avatar.keep
    assert (raised.opacities[dropped] > 0.05).any(), "motion raised none of them"
    assert not gaussians.opacities[dropped].any()

    @jax.jit
    def image(gaussians):
        camera = camera_lib.orbit_camera(0.0, 0.0)
        camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], camera)
        return rendering.render(gaussians, camera, image_size=(32, 32)).image

    elsewhere = jnp.where(dropped[..., None], -gaussians.means, gaussians.means)
    painted = jnp.where(dropped[..., None], 1.0, gaussians.colors)
    changed = dataclasses.replace(gaussians, means=elsewhere, colors=painted)
    shown = image(gaussians)
    assert 0.005 < shown.mean() < 0.9
    assert jnp.abs(image(raised) - shown).max() > 1e-3, "the test would not see them"
    assert jnp.array_equal(image(changed), shown)
