"""What a time is: of which calls, in which unit, and which numbers are made of it."""

import itertools
import types

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from absl.testing import flagsaver

import kernels
from kernels import bench, timing, tune
from kernels.rasterize import cases


def _clock(monkeypatch, module) -> types.SimpleNamespace:
    """A clock of seconds that moves when told, and one of the processor at half its speed."""
    clock = types.SimpleNamespace(now=0.0)
    fake = types.SimpleNamespace(
        perf_counter=lambda: clock.now, process_time=lambda: clock.now / 2, monotonic=lambda: 0.0
    )
    monkeypatch.setattr(module, "time", fake)
    return clock


def test_the_first_call_is_told_apart_and_the_others_are_in_milliseconds(monkeypatch):
    clock, lasts = _clock(monkeypatch, timing), iter((5.0, 0.25, 0.125, 0.5))

    def function(_):
        clock.now += next(lasts)

    first, times, cpu_times = timing.time_calls(function, (None,), repeats=3, name="own")
    assert (first, times, cpu_times) == (5.0, [250, 125, 500], [125, 62.5, 250])


def test_numbers_of_a_row_are_made_of_all_timed_calls(monkeypatch):
    times = [9.0, 1.0, 2.0, 4.0, 3.0]
    monkeypatch.setattr(timing, "time_calls", lambda *_: (2.5, times, [0.5, 7.0, 0.25]))
    case = cases.Case("two", "small", 8, (16, 24), batch=2, cameras=3)
    options = kernels.RasterizeOptions(capacity=5, tile_size=(4, 8), mode="antialiased")
    scene = case.build()
    counts = jnp.array([[1, 2, 3], [4, 5, 9]])
    stats = kernels.RasterizeStats(counts, jnp.full((2, 3), 5), jnp.maximum(counts - 5, 0))
    output = kernels.RasterizeOutput(counts, counts, counts, stats)
    monkeypatch.setattr(timing, "_function", lambda *_: lambda *_: output)
    call = {"image_size": case.image_size, "backend": "xla", "repeats": 5, "name": "two"}
    row = timing.measure(scene, "forward", options, **call)
    expected = {
        "median_ms": 3.0,
        "quartiles_ms": [2.0, 4.0],
        "min_ms": 1.0,
        "median_ms_per_image": 0.5,
        "median_cpu_ms": 0.5,
        "compile_s": 2.5,
        "splats": 8,
        "height": 16,
        "width": 24,
        "channels": 3,
        "images": 6,
        "repeats": 5,
        "capacity": 5,
        "overflow": 4,
        "intersections_per_image": 4.0,
        "mode": "antialiased",
        "tile_size": (4, 8),
    }
    assert {name: row[name] for name in expected} == expected
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        timing.measure(scene, "forward", options, **{**call, "repeats": 0})
    assert timing._quartiles([3.0]) == (3.0, 3.0, 3.0)


def test_a_backward_pass_is_that_of_all_arrays():
    case = cases.CASES["tiny"]
    options = kernels.RasterizeOptions(capacity=64)
    run = timing._function("forward_backward", case.image_size, options, "xla")
    scene = case.build()
    (loss, stats), gradients = jax.eval_shape(run, *scene)
    assert loss.shape == () and stats.overflow.shape == (1, 1)
    assert [gradient.shape for gradient in gradients] == [array.shape for array in scene]
    with pytest.raises(ValueError, match="direction: expected one of"):
        timing._function("backward", case.image_size, options, "xla")


def test_flags_of_the_benchmark_become_options():
    flags.FLAGS.mark_as_parsed()
    assert bench._options() == kernels.RasterizeOptions()
    given = {"mode": "antialiased", "tile_size": ["4", "16"], "deterministic": True}
    with flagsaver.flagsaver(**given, capacity="20"):
        assert bench._options() == kernels.RasterizeOptions(
            mode="antialiased", tile_size=(4, 16), deterministic=True, capacity=20
        )


def test_a_measured_capacity_holds_every_scene(monkeypatch):
    needed, timed = iter((2048, 5120, 1024)), []
    monkeypatch.setattr(kernels, "propose_capacity", lambda *_, **__: next(needed))

    def measure(arrays, direction, options, **others):
        timed.append(options.capacity)
        return {"overflow": 0, "peak_bytes": 7}

    monkeypatch.setattr(timing, "measure", measure)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(capacity="measured", batch=3, splats=4, size=16):
        row = bench._measure("tiny", "forward")
    assert timed == [5120] and row["peak_bytes"] is None


def test_growth_is_drawn_against_splats_and_all_pixels(monkeypatch, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the plot needs matplotlib")
    drawn, subplots = [], pyplot.subplots

    def keep(*arguments, **settings):
        figure, axes = subplots(*arguments, **settings)
        drawn.extend(axes)
        return figure, axes

    monkeypatch.setattr(pyplot, "subplots", keep)
    rows = [
        {
            "case": name,
            "direction": "forward",
            "splats": cases.CASES[name].num_splats,
            "height": 10,
            "width": cases.CASES[name].image_size[1],
            "median_ms": 2.0 * place,
        }
        for sweep in cases.SWEEPS.values()
        for place, name in enumerate(sweep)
    ]
    bench.plot(rows[::-1], tmp_path / "growth.png")
    splats, pixels = (axes.lines[0].get_xdata() for axes in drawn)
    assert list(splats) == [12_500, 25_000, 50_000, 100_000, 200_000]
    assert list(pixels) == [1280, 2560, 3620, 5120, 7240]
    assert list(drawn[1].lines[0].get_ydata()) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert list(drawn[1].lines[1].get_xdata()) == [0, 7240], "the straight line through the last"


# --- tuning --------------------------------------------------------------------------------------


def test_a_sample_is_of_one_call_without_the_start_of_a_program(monkeypatch):
    """Both programs run once before; the median of what is left is the measure."""
    clock = _clock(monkeypatch, tune)
    loops = iter((100.0, 8.0, 8.0, 64.0))
    starts = iter((50.0, 4.0, 2.0, 4.0))

    def program(lasts):
        def run(*_):
            clock.now += next(lasts)
            return jnp.zeros(())

        return run

    monkeypatch.setattr(tune, "looped", lambda *_: program(loops))
    monkeypatch.setattr(tune.jax, "jit", lambda _: program(starts))
    times = tune.samples(None, (1.0,), 0, 2, repeats=3)
    assert times == [2.0, 3.0, 30.0]
    monkeypatch.setattr(tune, "samples", lambda *_, **__: [2.0, 3.0, 30.0])
    assert tune.measure(None, (1.0,), 0, 2) == 3.0


@pytest.mark.parametrize("backward", [False, True])
def test_both_passes_are_timed_where_both_are_asked_for(backward, monkeypatch):
    """With the capacity that the scene needs."""
    asked = []

    def rasterize(*arrays, options, **others):
        asked.append(options.capacity)
        return types.SimpleNamespace(image=sum(jnp.sum(array) for array in arrays))

    monkeypatch.setattr(tune.api, "rasterize", rasterize)
    monkeypatch.setattr(tune.api, "propose_capacity", lambda *_, **__: 2048)
    monkeypatch.setattr(tune, "measure", lambda function, arrays, *_: function(*arrays))
    arrays = tuple(jnp.ones(2) for _ in range(7))
    result = tune.timed(arrays, 16, 1, backward=backward)
    assert len(jax.tree.leaves(result)) == (7 if backward else 1)
    assert asked == [2048]


def test_warps_follow_what_is_searched(monkeypatch):
    """A thread for two pixels of a tile and one for each splat of a block."""
    first = tune.triton_config.KernelConfig(project_warps=9, emit_warps=9)
    tried = []

    def attempt(kernel):
        tried.append(kernel)
        height, width = kernel.tile  # the larger, the better
        return 1.0 / (height * width + kernel.emit_block + kernel.project_block)

    grid = {"tile": ((8, 16), (16, 16)), "emit_block": (64,), "project_block": (128,)}
    best, _, _ = tune._search(first, grid, attempt, float("inf"))
    by_tile = {kernel.tile: (kernel.forward_warps, kernel.backward_warps) for kernel in tried}
    assert by_tile == {(8, 8): (1, 1), (8, 16): (2, 2), (16, 16): (4, 4)}
    assert (best.emit_block, best.emit_warps) == (64, 2)
    assert (best.project_block, best.project_warps) == (128, 4)


@pytest.mark.parametrize(("interpreting", "timings"), [(False, 2), (False, 1), (True, 2)])
def test_only_times_of_a_gpu_make_a_choice_measured(interpreting, timings, monkeypatch):
    phases, seen = itertools.count(), []

    def search(best, grid, attempt, deadline):
        attempt(best)
        return best, 1.0, timings if next(phases) == 1 else 2

    monkeypatch.setattr(tune, "_search", search)
    monkeypatch.setattr(tune, "_try", lambda kernel, arrays, size, loops, back: seen.append(back))
    monkeypatch.setattr(tune.triton_compile, "is_interpreting", lambda: interpreting)
    best, times = tune.tune(3, 8, 16, 1, 1.0)
    assert best.measured == (timings > 1 and not interpreting)
    assert seen == [True, False, True], "the tile by both passes, then forward, then both"
    assert set(times) == {"forward_backward", "forward"}
