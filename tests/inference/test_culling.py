"""Culling over a motion envelope keeps what any driver shows and drops what none does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import convert, models
from instant_gs.data import format as format_lib
from instant_gs.inference import avatar as avatar_lib
from instant_gs.inference import culling, motion_bank
from instant_gs.inference.asset import make
from instant_gs.training import weights
from tests.inference import tiny


def build(cull: str = ""):
    """An engine half of whose Gaussians are invisible at rest, and whose drivers raise some."""
    engine = tiny.build()
    # Into a copy: the released test's threshold is on the density, the first output.
    params = jax.tree.map(lambda leaf: leaf, engine.params)
    bias = params["decoder"]["fc2"]["bias"]
    params["decoder"]["fc2"] |= {"bias": bias.at[0].set(-4.5)}
    return avatar_lib.InstantAvatar(engine.config, params, cull)


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
    kept = np.asarray(build().encode(photo, code, bank).keep)
    rest = np.asarray(plain.rest(everything).opacities)
    shown = np.vstack([rest, opacities(plain, everything, code, bank)])
    seen = (shown >= culling.VISIBLE_OPACITY).any(0)
    assert np.array_equal(kept, seen)
    source = rest >= culling.VISIBLE_OPACITY
    assert 5 < (kept & ~source).sum(), "the photo's own expression would lose teeth"
    assert 5 < (~kept).sum(), "nothing is dropped: the test is void"


def test_the_code_may_be_read_from_the_image_and_the_bank_is_the_weights_own(photo):
    engine = build()
    own = engine.encode(photo).keep
    given = engine.encode(photo, engine.motion_code(photo), engine.bank).keep
    assert engine.bank.shape == (len(motion_bank.EXPRESSIONS), 512)
    assert np.array_equal(own, given)
    both = engine.encode(np.stack([photo, photo]), np.tile(engine.motion_code(photo), (2, 1)))
    assert np.array_equal(both.keep[1], own)
    with pytest.raises(ValueError, match=r"code: expected shape \(512,\), got \(1, 512\)"):
        engine.encode(photo, engine.motion_code(photo)[None])


def test_teeth_behind_closed_lips_survive(plain, photo):
    """Hidden under the photo's expression, visible under an open mouth; seen in the picture."""
    engine = with_teeth(plain)
    code = jnp.zeros(512)  # of a closed mouth
    rest = np.asarray(engine.rest(engine.encode(photo, code)).opacities)
    row = list(motion_bank.EXPRESSIONS).index("jaw open")
    motion = engine.motion(code, engine.bank[row])
    opened = np.asarray(engine.animate(engine.encode(photo, code), motion).opacities)
    teeth = (rest < culling.VISIBLE_OPACITY) & (opened > 0.1)
    assert teeth.sum() > 20 and (rest > 0.1).sum() > 20
    kept, pictures = {}, {}
    for way in culling.WAYS:
        chosen = engine if way == engine.culling else engine.with_culling(way)
        avatar = chosen.encode(photo, code)
        kept[way] = np.asarray(avatar.keep)
        pictures[way] = np.asarray(engine.render(engine.animate(avatar, motion)).image)
    assert kept["envelope"][teeth].all() and not kept["source"][teeth].any()
    assert np.array_equal(pictures["envelope"], pictures["none"])
    assert np.abs(pictures["source"] - pictures["none"]).mean() > 0.01
    assert 20 < (~kept["envelope"]).sum(), "nothing is dropped: the test is void"


def with_teeth(engine):
    """Feature 1 says what is visible at rest; jawOpen raises what has a high first basis number."""
    params = jax.tree.map(np.zeros_like, engine.params) | {"backbone": engine.params["backbone"]}
    width, hidden = params["decoder"]["fc1"]["kernel"].shape
    jaw = format_lib.COEFFICIENT_NAMES.index("jawOpen")
    params["motion_encoder"]["code"]["kernel"][jaw, 0] = 1
    decoder = params["motion_decoder"]
    decoder["adaln"]["mapping"]["kernel"][512, 0] = 2  # scale 0 is jawOpen
    decoder["adaln"]["proj"]["kernel"][0, 0] = 2
    decoder["fc1"]["kernel"][0, 0] = 10 * width**0.5
    decoder["fc2"]["kernel"][0, 0] = 1000 * hidden**0.5
    decoder["fc2"]["bias"][0] = -1000 * np.log(2)  # a still face moves nothing
    features = np.asarray(engine.encode(tiny.photos()[0]).features)
    edge = np.quantile(features[:, 1], 0.7)
    gain = 4 / features[:, 1].std()
    decoder = params["decoder"]
    decoder["fc1"]["kernel"][:2, :2] = np.diag([0.01, gain]) * width**0.5
    decoder["fc1"]["bias"][1] = -gain * edge
    decoder["fc2"]["kernel"][:2, 0] = 2 * hidden**0.5
    decoder["fc2"]["bias"][:4] = -9, 2, 2, 2  # hidden but for these two, and light
    return avatar_lib.InstantAvatar(engine.config, params, engine.culling)


def test_another_way_of_culling_changes_nothing_else(plain):
    """That the ways do what they say is tested above: ``build`` chooses by this method."""
    engine = plain.with_culling("source")
    assert engine.params is plain.params and engine.config is plain.config
    assert (engine.culling, plain.culling) == ("source", "none")
    with pytest.raises(ValueError, match=r"culling: expected one of envelope, source, none"):
        plain.with_culling("all")


def test_teeth_are_kept_unless_told_otherwise():
    engine = tiny.build()
    assert engine.culling == "envelope"
    unread = {name: part for name, part in engine.params.items() if name != "motion_encoder"}
    assert (
        avatar_lib.InstantAvatar(engine.config, unread).culling
        == engine.config.model.gaussians.cull
    )
    released = convert.released_config()
    assert avatar_lib.InstantAvatar(released, {}).culling == "source"
    assert avatar_lib.InstantAvatar(released, {"motion_encoder": {}}).culling == "envelope"


@pytest.mark.parametrize("legacy", [False, True])
def test_the_releases_bank_is_read_from_drawn_pictures_cut_out_as_drivers_are(monkeypatch, legacy):
    """Those pictures are of the wide view, whatever the model's."""

    def read(model, params, crop):
        assert crop.shape == (1, 224, 224, 3)
        return crop[:, 8::16, 8::16].reshape(1, -1)

    monkeypatch.setattr(models.AvatarModel, "motion_code", read)
    config = convert.released_config(legacy=legacy)
    bank = avatar_lib.InstantAvatar(config, {"motion_encoder": {}}).bank
    assert len(bank) == len(motion_bank.EXPRESSIONS)
    assert config.model.motion.crop == 0.52
    first = round((1 - 0.52) / 2 * 432)
    square = motion_bank.pictures()[:, first:-first, first:-first][:, 8::16, 8::16]
    assert square.shape[1:3] == (14, 14)
    difference = np.asarray(bank).reshape(square.shape) - (square / 127.5 - 1)
    assert np.abs(difference).mean() < 0.02


def test_a_stored_bank_is_taken_unless_it_is_of_other_pictures(tmp_path, monkeypatch, bank):
    engine, folder = tiny.build(), tmp_path / "weights"
    facts = {"step": 7, "commit": "abc"}
    weights.save(folder, engine.config, engine.params, facts)
    fresh = avatar_lib.load(folder)
    assert fresh.stored_bank is None
    assert fresh.with_culling("none").provenance == facts, "what eval.py reports"
    crop = engine.config.model.motion.crop
    motion_bank.save(folder, bank, crop)
    loaded = avatar_lib.load(folder)
    assert np.array_equal(loaded.bank, bank)
    assert np.array_equal(loaded.with_culling("source").bank, bank)
    stored = (folder / motion_bank.FILE_NAME).read_bytes()
    (folder / motion_bank.FILE_NAME).write_bytes(stored[: len(stored) // 2])
    assert motion_bank.load(folder, crop) is None
    motion_bank.save(folder, bank, crop)
    assert motion_bank.load(folder, crop) is not None
    assert motion_bank.load(folder, 0.9 * crop) is None, "of the same pictures, cut out otherwise"
    monkeypatch.setattr(motion_bank, "PICTURES", folder / "config.json")
    assert motion_bank.load(folder, crop) is None


def test_drawn_pictures_show_what_their_names_say():
    rows = list(motion_bank.EXPRESSIONS)
    some = [rows.index(name) for name in ("jaw open", "closed eyes")]
    drawn = make.draw(motion_bank.coefficients()[some]).astype(int)
    shipped = motion_bank.pictures()[some]
    assert np.abs(drawn - shipped).mean() < 2, "run instant_gs.inference.asset.make"
    assert np.abs(drawn[0] - drawn[1]).mean() > 2, "the bound tells them apart"


def test_bank_names_coefficients():
    table = motion_bank.coefficients()
    assert table.shape == (len(motion_bank.EXPRESSIONS), 52) and table.dtype == np.float32
    assert not table[0].any() and (table[1:].max(1) >= 0.5).all() and table.max() == 1
    row = table[list(motion_bank.EXPRESSIONS).index("tongue")]
    named = {format_lib.COEFFICIENT_NAMES[i]: row[i] for i in np.flatnonzero(row)}
    assert named == {"jawOpen": np.float32(0.7), "tongueOut": 1}


@pytest.mark.parametrize(("side", "other"), [("Left", "Right"), ("Right", "Left")])
def test_eyes_of_the_bank_look_to_the_side_that_is_named(side, other):
    """To the person's: that side's eye looks outwards, the other one towards the nose."""
    row = list(motion_bank.EXPRESSIONS).index(f"look to the {side.lower()}")
    moved = np.flatnonzero(motion_bank.coefficients()[row])
    names = {format_lib.COEFFICIENT_NAMES[index] for index in moved}
    assert names == {f"eyeLookOut{side}", f"eyeLookIn{other}"}
