"""Tuning and timing: loops without the host, a table that loses nothing, a search that stops."""

import json
import math
import re
import types

import jax.numpy as jnp
import pytest

from kernels import cubin, triton_compile, tune
from kernels.rasterize import triton_config


def test_the_timed_loop_has_a_length_that_the_compiler_knows():
    arrays = (jnp.ones(4), jnp.ones((2, 2)))
    run = tune.looped(lambda x, y: (x * 2, y @ y), 1, 7)
    text = run.lower(*arrays).compile().as_text()
    assert re.search(r'known_trip_count.{0,10}"7"', text), "XLA would ask the host at each step"
    assert float(run(*arrays)) == 2.0 + 2.0


def test_measure_takes_trees_of_arrays():
    arrays = ({"x": jnp.ones(4)}, jnp.ones(2))
    assert tune.measure(lambda tree, y: tree["x"] + y[0], arrays, 1, 3, repeats=1) < 1.0


def test_a_new_table_begins_as_the_installed_one(tmp_path):
    path = tmp_path / "new" / "tuned.json"
    best = triton_config.KernelConfig(forward_warps=4, measured=True)
    tune.write(path, 90, 3, best)
    tune.write(path, 86, 32, best)  # a GPU that the table does not know
    installed = json.loads(triton_config.TABLE.read_text())["entries"]
    entries = json.loads(path.read_text())["entries"]
    assert set(entries) == {*installed, "sm_86"}
    assert entries["sm_80"] == installed["sm_80"]
    assert entries["sm_90"]["4"]["forward_warps"] == 4 and entries["sm_90"]["4"]["measured"]
    assert entries["sm_90"]["64"] == installed["sm_90"]["64"]
    assert entries["sm_86"]["64"]["measured"] and not entries["sm_86"]["4"]["measured"]


@pytest.mark.parametrize("kind", ["folder", "below_a_file", "json", "no_table"])
def test_a_table_that_cannot_be_written_is_refused_before_the_search(kind, tmp_path, monkeypatch):
    path = tmp_path / "tuned.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "below_a_file":
        path.write_text("")
        path = path / "tuned.json"
    else:
        path.write_text("{" if kind == "json" else "[]")
    values = types.SimpleNamespace(out=str(path), channels=["3"], splats=8, size=16, loops=1)
    monkeypatch.setattr(tune.flags, "FLAGS", values)
    monkeypatch.setattr(tune.device, "is_nvidia", lambda: True)
    monkeypatch.setattr(tune, "tune", lambda *_: pytest.fail("it searched first"))
    with pytest.raises(SystemExit, match=r"kernels\.tune: --out=.*tuned\.json: .*restore it"):
        tune.main([""])


def test_a_search_stops_in_time_and_says_what_it_timed():
    first = triton_config.KernelConfig()
    grid = {"forward_warps": (1, 2, 4), "emit_block": (64,)}
    costs = {1: 3.0, 2: 1.0, 4: math.inf}

    def attempt(kernel):
        return costs[kernel.forward_warps] + (kernel.emit_block == 64)

    best, seconds, timings = tune._search(first, grid, attempt, math.inf)
    assert (best.forward_warps, best.emit_block, seconds, timings) == (2, 32, 1.0, 3)
    best, seconds, timings = tune._search(first, grid, attempt, -math.inf)
    assert (best, seconds, timings) == (first, 3.0, 1)


def test_a_win_over_a_disturbed_measurement_does_not_count():
    first = triton_config.KernelConfig()
    times = {1: [9.0, 1.0], 2: [2.0]}  # something else used the GPU the first time

    def attempt(kernel):
        return times[kernel.forward_warps].pop(0)

    best, _, _ = tune._search(first, {"forward_warps": (1, 2)}, attempt, math.inf)
    assert best == first and times == {1: [], 2: []}


def test_a_candidate_that_spills_is_no_candidate(monkeypatch):
    launch = type("Launch", (), {"name": "blend_kernel"})
    compiled = [(launch, {"spill_bytes": 8}), (launch, {"spill_bytes": 0})]
    monkeypatch.setattr(triton_compile, "compiled_kernels", lambda: compiled)
    monkeypatch.setattr(cubin, "resources", lambda found: found)
    tune._refuse_spills(1)
    with pytest.raises(RuntimeError, match="blend_kernel spills 8 bytes"):
        tune._refuse_spills(0)
