"""What the filter drops contributes exactly nothing, in every frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import rendering
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import gaussian_decoder
from tests.models import small


def filtered_model():
    """A model whose filter drops about half of the Gaussians."""
    model = small.build(grid=16)
    params = small.params(model)
    raw = params["decoder"]["fc2"]
    threshold = float(np.log(np.expm1(gaussian_decoder.VISIBLE_SIGMA))) + 1
    avatar = jax.jit(model.encode)(params, small.image())
    before = model._decode(params, avatar.features)[..., 0]
    raw["bias"] = raw["bias"].at[0].add(threshold - jnp.median(before))
    return model, params


def test_the_threshold_is_on_the_density_of_the_source():
    model, params = filtered_model()
    avatar = jax.jit(model.encode)(params, small.image())
    sigma = gaussian_decoder.density(model._decode(params, avatar.features))
    assert jnp.array_equal(avatar.keep, sigma >= 1 / 255)
    assert 0.4 < avatar.keep.mean() < 0.6
    everything = dataclasses.replace(
        model.config, gaussians=dataclasses.replace(model.config.gaussians, cull="none")
    )
    assert type(model)(everything).encode(params, small.image()).keep.all()


def test_dropped_gaussians_contribute_nothing_though_motion_raises_them():
    model, params = filtered_model()
    params["motion_decoder"]["fc2"]["kernel"] *= 300
    avatar = jax.jit(model.encode)(params, small.image())
    gaussians, _ = model.animate(params, avatar, *small.codes(1))
    everywhere = dataclasses.replace(avatar, keep=jnp.ones_like(avatar.keep))
    raised, _ = model.animate(params, everywhere, *small.codes(1))
    assert (raised.opacities[~avatar.keep] > 0.05).any(), "motion raised none of them"
    assert not gaussians.opacities[~avatar.keep].any()

    def image(gaussians):
        camera = camera_lib.orbit_camera(0.0, 0.0)
        camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], camera)
        return rendering.render(gaussians, camera, image_size=(32, 32)).image

    removed = jax.tree.map(lambda leaf: leaf[:, avatar.keep[0]], gaussians)
    got, want = image(gaussians), image(removed)
    assert 0.01 < want.mean()
    assert jnp.abs(image(raised) - want).max() > 1e-3, "the test would not see them"
    assert jnp.array_equal(got, want)
