"""The fast animation is the slow one; the driver as numbers that can be edited."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import config, types
from instant_gs.models import folded
from tests.models import small

TOLERANCE = 1e-5  # relative L2, float32
COUNT = 700


@pytest.fixture
def avatar():
    keys = jax.random.split(jax.random.key(0), 4)
    return types.Avatar(
        jax.random.normal(keys[0], (2, COUNT, 48)),
        5 + 3 * jax.random.normal(keys[1], (2, COUNT, 48)),
        0.2 * jax.random.normal(keys[2], (2, COUNT, 3)),
        jax.random.bernoulli(keys[3], 0.7, (2, COUNT)),
    )


@pytest.mark.parametrize("space", ["feature", "spatial"])
@pytest.mark.parametrize("position", ["absolute", "anchored"])
def test_equal_to_the_unfolded_path(avatar, position, space):
    # A residual of 0.01 of the features would hide an error in its computation: 100 times that.
    motion_config = config.MotionConfig(residual_space=space, residual_scale=1.0)
    model = small.build(position=position, motion=motion_config)
    params = small.params(model)
    noise = jax.random.normal(jax.random.key(2), (48,))
    params["motion_decoder"]["adaln"]["proj"]["bias"] += noise
    params["motion_decoder"]["fc1"]["bias"] += jnp.tile(noise, 2)
    source, driving = small.codes(3, 2)
    want, residual = model.animate(params, avatar, source, driving)
    got = model.animate_folded(params, model.fold(avatar), model.motion(params, source, driving))
    assert jnp.abs(residual).mean() > 0.3
    for name in ("means", "quats", "scales", "opacities", "colors"):
        error = small.relative(getattr(got, name), getattr(want, name))
        assert error < TOLERANCE, f"{name}: {error:.1e}"
    still = model.rest(params, avatar)
    assert small.relative(still.means, want.means) > 0.01, "nothing moved"


def test_motion_is_linear_in_the_codes_and_knows_no_avatar():
    model = small.build()
    params = small.params(model)
    (a, b), (c, d) = small.codes(1), small.codes(2)
    first, second = model.motion(params, a, b), model.motion(params, c, d)
    both = model.motion(params, a + c, b + d)
    assert first.scale.shape == first.shift.shape == (1, 48)
    assert jnp.allclose(both.scale, first.scale + second.scale, atol=1e-5)
    assert jnp.allclose(both.shift, first.shift + second.shift, atol=1e-5)
    one = model.motion(params, a[0], jnp.stack([b[0], d[0]]))  # one source, two frames
    assert one.scale.shape == (2, 48) and jnp.allclose(one.scale[0], first.scale[0], atol=1e-5)


def _gaussian(deviation):
    weights = np.exp(-0.5 * (np.arange(-6, 7) / deviation) ** 2)
    return weights / weights.sum()


def test_blend_and_smooth():
    ramp = jnp.arange(40.0)[:, None] * jnp.ones((1, 48))
    stream = types.Motion(ramp, -ramp)
    half = folded.blend(stream, types.Motion(ramp + 2, -ramp), 0.5)
    assert jnp.allclose(half.scale, ramp + 1) and jnp.allclose(half.shift, -ramp)
    smooth = folded.smooth(stream, 2.0)
    assert smooth.scale.shape == ramp.shape
    assert jnp.allclose(smooth.scale[8:-8], ramp[8:-8], atol=1e-4), "a ramp stays a ramp"
    assert jnp.allclose(folded.blend(stream, types.Motion(ramp + 2, -ramp), 0.0).scale, ramp)
    assert jnp.allclose(folded.blend(stream, types.Motion(ramp + 2, -ramp), 2.0).scale, ramp + 4)
    step = jnp.where(ramp < 20, 0.0, 1.0)
    risen = folded.smooth(types.Motion(step, step), 2.0).scale[:, 0]
    expected = [0.5 * (1 + math.erf((t - 19.5) / (2 * math.sqrt(2)))) for t in range(40)]
    assert jnp.allclose(risen, jnp.array(expected), atol=0.01), "a Gaussian's, tails and all"
    held = folded.smooth(types.Motion(ramp[:9], ramp[:9]), 2.0).scale[:, 0]
    want = np.convolve(np.pad(np.arange(9.0), 6, "edge"), _gaussian(2.0), "valid")
    assert jnp.allclose(held, want, atol=1e-4), "the ends are held"
    noise = types.Motion(*jax.random.normal(jax.random.key(0), (2, 200, 48)))
    ratio = folded.smooth(noise, 2.0).scale.std() / noise.scale.std()
    assert 0.3 < ratio < 0.45, "white noise shrinks by sqrt(1 / (2 sqrt(pi) * 2)) = 0.38"
    assert folded.smooth(stream, 0) is stream
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="a deviation >= 0, got"):
            folded.smooth(stream, bad)
    with pytest.raises(ValueError, match=r"\(T, F\)"):
        folded.smooth(types.Motion(np.zeros(48), np.zeros(48)), 1.0)


def test_only_what_is_used_is_computed(avatar):
    """The widest matrix of a frame is 48 x 96, and the last one has 14 columns and not 22."""
    model = small.build()
    params = small.params(model)
    motion = model.motion(params, *small.codes(1, 2))
    text = str(
        jax.make_jaxpr(lambda a, m: model.animate_folded(params, a, m))(model.fold(avatar), motion)
    )
    assert f"f32[2,{COUNT},14]" in text and f"f32[2,{COUNT},22]" not in text


@pytest.mark.parametrize("kept", [True, False])
def test_filtered_gaussians_stay_invisible(avatar, kept):
    """Whatever the driver does: even where it raises a density that was below the threshold."""
    model = small.build()
    params = small.params(model)
    params["motion_decoder"]["fc2"]["kernel"] *= 1e4  # wild motion
    avatar = dataclasses.replace(avatar, keep=jnp.full_like(avatar.keep, kept))
    codes = small.codes(1, 2)
    motion = model.motion(params, *codes)
    slow, _ = model.animate(params, avatar, *codes)
    fast = model.animate_folded(params, model.fold(avatar), motion)
    for gaussians in (slow, fast):
        if kept:
            assert gaussians.opacities.max() > 0.9
        else:
            assert not gaussians.opacities.any()
