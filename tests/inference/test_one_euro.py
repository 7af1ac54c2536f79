"""The filter calms noise and follows what moves; numbers at 25 frames a second."""

import numpy as np
import pytest

from instant_gs.inference import one_euro

FPS = 25.0


def run(values, noise=1.0, fps=FPS):
    calm = one_euro.OneEuro(fps, noise)
    return np.array([calm(value) for value in values])


def change(rows):
    return np.abs(np.diff(rows[5:], axis=0)).mean()


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shared", [False, True], ids=["each its own", "all together"])
def test_noise_is_more_than_halved_in_any_unit(unit, shared):
    noise = unit * np.random.default_rng(0).normal(size=(300, 1 if shared else 96))
    noise = np.broadcast_to(noise, (300, 96))
    got = run(noise, unit)
    assert change(got) < 0.3 * change(noise)
    assert got[30:].std() < 0.5 * noise.std()


@pytest.mark.parametrize(("size", "frames"), [(5, 5), (10, 3), (20, 2), (50, 2)])
def test_a_step_is_followed_to_nine_tenths_within_so_many_frames(size, frames):
    step = np.repeat([0.0, size], [20, 40])[:, None] * np.ones((1, 96))
    got = run(step)
    assert (got[:20] == 0).all()
    assert (got[20 + frames - 1 :] > 0.9 * size).all()
    assert (np.diff(got[:, 0]) >= 0).all() and got.max() <= size, "no overshoot"


def test_a_nod_lags_one_frame_and_keeps_its_height():
    nod = 20 * np.sin(2 * np.pi * 1.5 * np.arange(200) / FPS)[:, None]
    got = run(nod)
    errors = [np.abs(got[50 + lag : 150 + lag] - nod[50:150]).mean() for lag in range(6)]
    assert np.argmin(errors) <= 1
    assert got[100:].std() == pytest.approx(nod[100:].std(), rel=0.05)


def test_a_motion_keeps_its_direction():
    direction = np.array([3.0, -1.0, 0.5])
    got = run(np.repeat([0.0, 1.0], [5, 5])[:, None] * direction, noise=0.1)
    np.testing.assert_allclose(np.cross(got, np.tile(direction, (10, 1))), 0, atol=1e-12)


def test_first_value_passes_and_without_noise_all_do():
    values = np.random.default_rng(1).normal(size=(9, 2, 3)).astype(np.float32)
    assert np.array_equal(run(values, noise=0.0), values)
    got = run(values)
    assert np.array_equal(got[0], values[0]) and got.dtype == np.float32


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_left_out(noise, bad):
    values = np.random.default_rng(2).normal(size=(40, 3))
    broken = values.copy()
    broken[20:22, 1] = bad
    want, got = run(values, noise), run(broken, noise)
    assert np.array_equal(got[20], want[19]) and np.array_equal(got[21], want[19])
    assert np.isfinite(got).all()
    assert np.abs(got[30:] - want[30:]).max() < 0.3, "and forgotten"
    calm = one_euro.OneEuro(FPS, noise)
    assert np.isnan(calm([np.nan])).all() and calm([2.0]) == [2.0], "none was finite yet"


def test_uneven_frames_are_filtered_by_their_time():
    even, odd = one_euro.OneEuro(FPS, 1.0), one_euro.OneEuro(1.0, 1.0)
    for value in np.random.default_rng(3).normal(size=20):
        assert odd([value], 1 / FPS) == pytest.approx(even([value]))
    skipped, waited = (one_euro.OneEuro(FPS, 1.0) for _ in range(2))
    assert skipped([0.0]) == waited([0.0])
    skipped([np.nan])
    assert skipped([3.0]) == pytest.approx(waited([3.0], 2 / FPS)), "a value late by two frames"
    late, early = (one_euro.OneEuro(FPS, 1.0) for _ in range(2))
    late([0.0]), early([0.0])
    assert late([1.0], 0.5) > early([1.0], 0.01), "the later, the more it counts"
    for seconds in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="seconds: expected more than 0, got"):
            late([1.0], seconds)


@pytest.mark.parametrize(("fps", "noise"), [(0, 1), (25, -1), (25, np.nan)])
def test_bad_settings(fps, noise):
    with pytest.raises(ValueError, match="fps, noise: expected"):
        one_euro.OneEuro(fps, noise)
