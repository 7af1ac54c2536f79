"""Culling over a motion envelope keeps what any driver shows and drops what none does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs.data import format as format_lib
from instant_gs.inference import avatar as avatar_lib
from instant_gs.inference import culling, motion_bank
from tests.inference import tiny


def build(cull):
    """An engine half of whose Gaussians are invisible at rest, and whose drivers raise some."""
    engine = tiny.build().with_culling(cull)
    # Into a copy: the released test's threshold is on the density, the first output.
    params = jax.tree.map(lambda leaf: leaf, engine.params)
    bias = params["decoder"]["fc2"]["bias"]
    params["decoder"]["fc2"] |= {"bias": bias.at[0].set(-4.5)}
    return avatar_lib.InstantAvatar(engine.config, params)


@pytest.fixture(scope="module")
def photo():
    return tiny.photos()[0]


@pytest.fixture(scope="module")
def plain():
    return build("none")


@pytest.fixture(scope="module")
def bank():
    return np.random.default_rng(3).normal(0, 4, (3, 512)).astype(np.float32)


def opacities(engine, avatar, code, bank):
    motion = engine.motion(jnp.asarray(code)[None], jnp.asarray(bank))
    several = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(bank), *leaf.shape)), avatar)
    return np.asarray(engine.animate(several, motion).opacities)


def test_what_no_driver_shows_goes_and_nothing_else(plain, photo, bank):
    code = plain.motion_code(photo)
    everything = plain.encode(photo, code)
    assert everything.keep.all()
    kept = np.asarray(build("envelope").encode(photo, code, bank).keep)
    rest = np.asarray(plain.rest(everything).opacities)
    shown = np.vstack([rest, opacities(plain, everything, code, bank)])
    seen = (shown >= culling.VISIBLE_OPACITY).any(0)
    assert np.array_equal(kept, seen)
    source = rest >= culling.VISIBLE_OPACITY
    assert 5 < (kept & ~source).sum(), "the photo's own expression would lose teeth"
    assert 5 < (~kept).sum(), "nothing is dropped: the test is void"


def test_the_code_may_be_read_from_the_image_and_the_bank_is_the_weights_own(photo):
    engine = build("envelope")
    own = engine.encode(photo).keep
    given = engine.encode(photo, engine.motion_code(photo), engine.bank).keep
    assert engine.bank.shape == (len(motion_bank.EXPRESSIONS), 512)
    assert np.array_equal(own, given)
    both = engine.encode(np.stack([photo, photo]), np.tile(engine.motion_code(photo), (2, 1)))
    assert np.array_equal(both.keep[1], own)
    with pytest.raises(ValueError, match=r"code: expected shape \(512,\), got \(1, 512\)"):
        engine.encode(photo, engine.motion_code(photo)[None])


def test_another_way_of_culling_changes_nothing_else(plain):
    """That the ways do what they say is tested above: ``build`` chooses by this method."""
    engine = plain.with_culling("source")
    assert engine.params is plain.params and engine.model.config.gaussians.cull == "source"
    assert engine.with_culling("none").config == plain.config
    with pytest.raises(ValueError, match=r"model\.gaussians\.cull"):
        plain.with_culling("all")


def test_the_release_has_no_bank_of_its_own(plain):
    motion = dataclasses.replace(plain.config.model.motion, encoder="fan")
    model = dataclasses.replace(plain.config.model, motion=motion)
    engine = avatar_lib.InstantAvatar(dataclasses.replace(plain.config, model=model), {})
    with pytest.raises(ValueError, match=r"pass bank=model\.motion_code"):
        _ = engine.bank


def test_bank_names_coefficients():
    table = motion_bank.coefficients()
    assert table.shape == (len(motion_bank.EXPRESSIONS), 52) and table.dtype == np.float32
    assert not table[0].any() and (table[1:].max(1) >= 0.5).all() and table.max() == 1
    row = table[list(motion_bank.EXPRESSIONS).index("tongue")]
    named = {format_lib.COEFFICIENT_NAMES[i]: row[i] for i in np.flatnonzero(row)}
    assert named == {"jawOpen": np.float32(0.7), "tongueOut": 1}
