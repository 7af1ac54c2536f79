"""Any prefix of an ordered avatar is the avatar, only coarser."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from instant_gs import cli, types
from instant_gs.geometry import camera
from instant_gs.inference import animate, avatar, camera_path, level_of_detail
from instant_gs.training import weights
from tests import own_process
from tests.inference import tiny

COUNTS = (16, 64, 5000)  # the avatar has 256


@pytest.fixture(scope="module")
def engine():
    """With a bank of two drivers."""
    engine = tiny.build(residual_scale=0.03)  # of order one, an untrained decoder paints black
    return dataclasses.replace(engine, stored_bank=engine.motion_code(tiny.photos()))


@pytest.fixture(scope="module")
def scene(engine):
    """An avatar of which half is not kept, and its photo's code."""
    code = engine.bank[0]
    avatar = engine.encode(tiny.photos()[0], code)
    keep = np.random.default_rng(0).random(256) < 0.5
    return dataclasses.replace(avatar, keep=keep), code


@pytest.fixture(scope="module")
def ordered(engine, scene):
    return level_of_detail.order(engine, *scene)


def test_order_changes_no_picture_and_puts_what_is_dropped_last(engine, scene, ordered):
    avatar, code = scene
    kept = int(np.sum(avatar.keep))
    assert ordered.avatar.keep[:kept].all() and not ordered.avatar.keep[kept:].any()
    assert (ordered.importance >= 0).all() and (ordered.importance[kept:] == 0).all()
    np.testing.assert_allclose(ordered.means, engine.rest(ordered.avatar).means, atol=1e-6)
    motion = engine.motion(code, engine.bank[1])
    views = [engine.render(engine.animate(head, motion)).image for head in (avatar, ordered.avatar)]
    assert 0.02 < np.mean(views[0]) < 0.98
    np.testing.assert_allclose(views[0], views[1], atol=1e-4)


def test_importance_is_what_a_colour_adds_to_the_picture(engine, scene):
    avatar, code = scene
    motion, view = engine.motion(code, engine.bank[1]), camera.orbit_camera(0.2, 0.0)
    measure = level_of_detail._weights(engine.model, tiny.SIZE)
    got = np.asarray(measure(engine.params, engine.fold(avatar), motion, view))
    assert (got[~np.asarray(avatar.keep)] == 0).all() and (got >= 0).all()
    index = int(np.argmax(got))
    gaussians = engine.animate(avatar, motion)
    painted = dataclasses.replace(gaussians, colors=gaussians.colors.at[index].add(1.0))
    images = [engine.render(shown, view).image[..., 0] for shown in (gaussians, painted)]
    assert got[index] == pytest.approx(float((images[1] - images[0]).sum()), rel=1e-3)
    assert got[index] > 1


def test_longer_prefixes_err_less_and_all_is_exact(engine, scene, ordered):
    levels = level_of_detail.report(engine, ordered, scene[1], counts=COUNTS)
    assert [level.count for level in levels] == [16, 64, 256]
    errors = [level.mean_error for level in levels]
    assert errors == sorted(errors, reverse=True) and errors[0] > 1
    assert all(level.worst_error >= level.mean_error for level in levels)
    assert levels[-1].mean_error == 0 and levels[-1].psnr == np.inf
    kept = int(np.sum(ordered.avatar.keep))
    backwards = level_of_detail.Ordered(*jax.tree.map(lambda a: a[:kept][::-1], parts(ordered)))
    (least, *_) = level_of_detail.report(engine, backwards, scene[1], counts=(64,))
    assert least.mean_error > 1.5 * errors[1], "the order says nothing"


def test_errors_of_a_level_are_those_of_its_pictures(monkeypatch):
    """Of three expressions one is off by 6 steps of 8 bits, the others by 0 and 3."""
    looked_at = []

    class Engine:
        image_size, fov_degrees, bank = 4, camera.FOV_WIDE_DEGREES, [3, 6]

        def motion(self, code_source, code):
            return code

        def fold(self, avatar):
            return avatar

        def frame(self, count, motion, view, size):
            x, _, z = view.cam2world[:3, 3]
            looked_at.append((motion, round(np.degrees(np.arctan2(x, z)))))
            image = np.full((size, size, 3), 100 if count == 9 else 100 + motion)
            return avatar.Drawn(image, None, 0)

    monkeypatch.setattr(level_of_detail, "prefix", lambda ordered, count: count)
    whole = level_of_detail.Ordered(None, np.ones(9, np.float32), np.zeros((9, 3)))
    level, _ = level_of_detail.report(Engine(), whole, 0, counts=(5,))
    assert (level.mean_error, level.worst_error) == pytest.approx((3, 6))
    assert level.psnr == pytest.approx(10 * np.log10(255**2 / np.mean([0, 9, 36])))
    everything = [(motion, yaw) for motion in (0, 3, 6) for yaw in (-30, 0, 30)]
    assert looked_at == 3 * everything, "the truth, the level and all Gaussians"


def parts(ordered):
    return ordered.avatar, ordered.importance, ordered.means


def test_a_prefix_hands_areas_to_neighbours_and_draws_with_them(engine, ordered):
    """Eight in a far corner stand in for 24 of the same size on their spots: twice as wide."""
    spots = np.repeat(np.random.default_rng(0).normal(9, 1, (8, 3)), 4, 0).reshape(8, 4, 3)
    means = np.concatenate([spots[:, 0], spots[:, 1:].reshape(24, 3)])
    avatar = jax.tree.map(lambda leaf: leaf[:32], ordered.avatar)
    whole = level_of_detail.Ordered(avatar, np.full(32, 3.0, np.float32), means)
    assert level_of_detail.prefix(whole, 32) is avatar
    part = level_of_detail.prefix(whole, 8)
    np.testing.assert_allclose(part.widths, 2, rtol=1e-6)
    plain = dataclasses.replace(part, widths=None)
    zero = types.Motion(np.zeros(32, np.float32), np.zeros(32, np.float32))
    code = np.zeros(512, np.float32)
    for draw in (
        engine.rest,
        lambda head: engine.animate(head, zero),
        lambda head: engine.animate(head, code, code),
    ):
        wide, narrow = draw(part), draw(plain)
        np.testing.assert_allclose(wide.scales, 2 * narrow.scales, rtol=1e-5)
        np.testing.assert_allclose(wide.means, narrow.means, rtol=1e-5)


def test_prefixes_are_stratified_by_importance():
    """Few large Gaussians in one place are as important as many small ones in another."""
    random = np.random.default_rng(0)
    means = random.random((1100, 3)) + np.repeat([[0, 0, 0], [5, 0, 0]], [100, 1000], axis=0)
    importance = np.repeat([1.0, 0.1], [100, 1000])
    ranks = level_of_detail._ranks(importance, means)
    assert np.array_equal(np.sort(ranks), np.arange(1100))
    for count in (10, 60, 100):
        assert np.sum(ranks[:count] < 100) == pytest.approx(count / 2, abs=0.1 * count)
    hidden = np.where(np.arange(1100) % 2, importance, -1)
    ranks = level_of_detail._ranks(hidden, means)
    assert (hidden[ranks[:550]] > 0).all() and (hidden[ranks[550:]] < 0).all()
    assert np.array_equal(level_of_detail._ranks(np.zeros(9), means[:9]), np.arange(9))


def test_a_prefix_is_spread_over_a_surface():
    """Of 32 x 32 as important ones each square has its share, in any order that they come in."""
    cells = np.random.default_rng(0).permutation(1024)
    rows, columns = np.divmod(cells, 32)
    means = np.stack([columns, rows, np.zeros(1024)], -1)
    ranks = level_of_detail._ranks(np.ones(1024), means)
    squares = rows // 4 * 8 + columns // 4
    for count, share in ((64, 1), (512, 8)):
        found = np.bincount(squares[ranks[:count]], minlength=64)
        assert np.abs(found - share).max() <= share / 4


def test_importance_is_the_largest_over_all_pictures(monkeypatch):
    """Not the sum: the first one is seen a little in each; what is not kept comes last."""
    seen = np.zeros((3, 4), np.float32)
    seen[:, 0], seen[1, 1], seen[2, 2], seen[0, 3] = 2, 3, 1, 9
    monkeypatch.setattr(
        level_of_detail, "_weights", lambda *_: lambda _, head, row, view: seen[row]
    )
    means = np.arange(12, dtype=np.float32).reshape(4, 3)
    engine = SimpleNamespace(
        model=None, params=None, image_size=4, fov_degrees=camera.FOV_WIDE_DEGREES, bank=[1, 2]
    )
    engine.fold, engine.motion = lambda head: head, lambda _, code: code
    engine.rest = lambda head: SimpleNamespace(means=means)
    head = types.Avatar(means, means, means, np.arange(4) < 3)
    ordered = level_of_detail.order(engine, head, 0)
    np.testing.assert_array_equal(ordered.importance[np.argsort(ordered.means[:, 0])], [2, 3, 1, 9])
    np.testing.assert_array_equal(ordered.avatar.features, ordered.means)
    assert not ordered.avatar.keep[3] and ordered.avatar.keep[:3].all()


def test_areas_are_added_up_over_eight_neighbours():
    """On a line: what is missing at its start widens the first eight and the next ones less."""
    line = np.arange(24, dtype=np.float32)[:, None] * np.array([[1.0, 0, 0]], np.float32)
    line = line**1.01  # so that no two neighbours are as far
    means = np.concatenate([line, line[:1]])
    importance = np.ones(25, np.float32)
    importance[24] = 24  # left out
    importance[16:24] = 0  # nothing is seen of the line's end
    head = types.Avatar(means, means, means, np.ones(25, bool))
    widths = level_of_detail.prefix(level_of_detail.Ordered(head, importance, means), 24).widths
    np.testing.assert_allclose(widths[:4], np.sqrt((8 + 24) / 8), rtol=1e-6)
    np.testing.assert_allclose(widths[5:], 1, rtol=1e-6)


def test_animate_draws_so_many_gaussians(engine):
    photos = tiny.photos()
    shown = []

    def show(pictures):
        shown.extend(pictures)
        return pictures

    options = {"size": tiny.SIZE, "fps": 25, "gaussians": 40, "progress": show}
    made = animate.frames(engine, photos[0], photos[1:], camera_path.orbit(1), **options)
    (frame,) = made
    assert frame.gaussians.means.shape == (40, 3) and frame.image.mean() > 2
    assert len(shown) == 3 * (1 + len(engine.bank)), "the wait for the sorting is shown"


def test_prefix_refuses_what_is_not_there(ordered):
    assert level_of_detail.prefix(ordered, 7).features.shape[0] == 7
    for count in (0, 257):
        with pytest.raises(ValueError, match="count: expected 1 to 256"):
            level_of_detail.prefix(ordered, count)


@pytest.mark.parametrize("text", ["many", "0", "-5", "1.5"])
def test_levels_are_numbers_of_gaussians(text):
    with pytest.raises(
        cli.UserError, match=f"--levels: expected numbers of Gaussians, got '{text}'"
    ):
        level_of_detail._count(text)


@pytest.mark.slow
def test_command_prints_a_table_and_writes_it(engine, tmp_path):
    weights.save(tmp_path / "weights", engine.config, engine.params, {"commit": "x"})
    Image.fromarray(tiny.photos()[0]).save(tmp_path / "photo.png")
    given = [f"--weights={tmp_path}/weights", f"--source={tmp_path}/photo.png", "--source_aligned"]
    given += ["--levels=64,16", f"--out={tmp_path}/levels.json"]
    done = own_process.run("-m", "instant_gs.inference.level_of_detail", *given)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "levels.json").read_text())["levels"]
    assert [row["count"] for row in rows] == [16, 64, 256]
    assert rows[0]["psnr"] < rows[1]["psnr"] and rows[2]["psnr"] is None
    assert len(done.stdout.splitlines()) == 4
