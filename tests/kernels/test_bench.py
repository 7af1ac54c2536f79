"""The benchmark's own promises: JSON, no recompilation unnoticed, a plot."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import kernels
from instant_gs import version
from kernels import bench, device, timing
from kernels.rasterize import cases


def test_measure_gives_json_with_the_facts():
    options = kernels.RasterizeOptions(capacity=4096)
    case = cases.CASES["tiny"]
    row = timing.measure(
        *(case.build(), "forward", options),
        **{"image_size": case.image_size, "backend": None, "repeats": 3, "name": "own"},
    )
    row = json.loads(json.dumps(row))
    assert row["splats"] == 256
    assert 0 < row["min_ms"] <= row["median_ms"]
    assert row["overflow"] == 0
    told = ("case", "implementation", "capacity", "mode", "tile_size", "deterministic", "images")
    backend = "triton" if device.is_nvidia() else "xla"
    assert [row[name] for name in told] == ["own", backend, 4096, "classic", None, False, 1]
    assert row["intersections_per_image"] > 256
    assert row["compile_s"] > 0
    assert row["peak_bytes"] > 1e6
    assert row["commit"] == version.commit()


def test_recompiling_while_timing_fails():
    sizes = iter(range(5, 50))

    def changing(_):
        return jax.jit(lambda x: x + 1)(jnp.ones(next(sizes)))  # a new shape at every call

    with pytest.raises(timing.RecompiledError, match=r"changing: \d+ compilations while timing"):
        timing.time_calls(changing, (None,), repeats=2, name="changing")
    steady = jax.jit(lambda x: x + 1)
    first_call, times, cpu_times = timing.time_calls(
        steady, (jnp.ones(3),), repeats=2, name="steady"
    )
    assert first_call > 0
    assert len(times) == len(cpu_times) == 2


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        (bench._CASE, ["tiny", "huge"], r"--case: unknown \['huge'\], expected some of"),
        (bench._DIRECTION, [], "--direction=: expected some of"),
        (bench._DIRECTION, ["backward"], r"--direction: unknown \['backward'\]"),
        (bench._TILE_SIZE, ["8"], "--tile_size=8: expected height,width"),
        (bench._CAPACITY, "0", "--capacity: expected a positive int up to 1073741824"),
        (bench._CAPACITY, "-1", "--capacity=-1: expected a number or measured"),
        (bench._PLOT, "missing/a.png", r"--plot=missing/a\.png: no such folder"),
        (bench._PLOT, "notes.txt", r"--plot=notes\.txt: the name must end in \.png"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_runs(flag, value, words):
    flags.FLAGS.mark_as_parsed()
    bench._check_flags(["bench"])
    with flagsaver.flagsaver((flag, value)), pytest.raises(bench.UsageError, match=words):
        bench._check_flags(["bench"])


def test_a_plot_has_its_own_sizes():
    flags.FLAGS.mark_as_parsed()
    with (
        flagsaver.flagsaver(plot="new.png", channels=2),
        pytest.raises(bench.UsageError, match=r"--plot: .* leave --channels out"),
    ):
        bench._check_flags(["bench"])


def test_sizes_of_a_case_can_be_changed_and_what_is_left_out_is_said(capsys):
    flags.FLAGS.mark_as_parsed()
    sizes = {"splats": 40, "size": 16, "channels": 2, "cameras": 3, "batch": 2, "repeats": 1}
    with flagsaver.flagsaver(**sizes, capacity="20", implementation="xla"):
        row = bench._measure("tiny", "forward_backward")
    told = ("splats", "height", "width", "channels", "images", "capacity")
    assert [row[name] for name in told] == [40, 16, 16, 2, 6, 20]
    assert row["case"] == "tiny,splats=40,size=16,channels=2,cameras=3,batch=2"
    assert row["peak_bytes"] > 1e6
    assert f"{row['case']}: {row['overflow']} intersections" in capsys.readouterr().err
    with flagsaver.flagsaver(**sizes, capacity="measured", implementation="xla"):
        row = bench._measure("tiny", "forward")
    assert row["overflow"] == 0
    assert (row["capacity"], row["peak_bytes"]) == (1024, None)
    assert not capsys.readouterr().err


def test_cases_are_reproducible_and_valid():
    for name, case in cases.CASES.items():
        assert case.name == name
    first, second = (cases.CASES["tiny"].build() for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.dtype == np.float32
        assert a.shape[0] == 1
        np.testing.assert_array_equal(a, b)


def test_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib, a development tool")
    rows = [
        {
            "case": name,
            "direction": "forward",
            "splats": cases.CASES[name].num_splats,
            "height": cases.CASES[name].image_size[0],
            "width": cases.CASES[name].image_size[1],
            "median_ms": 1.0,
        }
        for sweep in cases.SWEEPS.values()
        for name in sweep
    ]
    path = tmp_path / "growth.png"
    bench.plot(rows, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
