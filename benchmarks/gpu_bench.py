"""Times the Triton rasterizer on the GPU at hand, stage by stage and whole, beside gsplat.

    python -m benchmarks.gpu_bench --out=DIR/h100.json [--gsplat_python=python3] [--seconds=480]
    TRITON_INTERPRET=1 python -m benchmarks.gpu_bench --rehearse --out=/tmp/rehearsal.json

Ours: many calls inside one jitted loop, and the profiler's sum over kernels. gsplat 1.5.3: CUDA
events around its own calls, and its profiler's sum, in a process of its own over the same arrays
(`benchmarks.gsplat_side`), if --gsplat_python has it. The headline comes first, and every number is
on disk as soon as it exists.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import kernels
from benchmarks import gpu_profile, gpu_stages, provenance
from instant_gs import cli
from kernels import timing, tune
from kernels.rasterize import api, cases
from kernels.types import Operands, RasterizeConfig

_OUT = flags.DEFINE_string("out", None, "Result file (JSON).", required=True)
_GSPLAT = flags.DEFINE_string("gsplat_python", None, "Python that can import torch and gsplat.")
_SECONDS = flags.DEFINE_float("seconds", 480.0, "Start no further case after so long.")
_FIRST = flags.DEFINE_integer("first", None, "Only the first cases, so many.", lower_bound=1)
_STAGES = flags.DEFINE_bool("stages", True, "Time the first case's stages, too.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny sizes, to try this script without a GPU.")

LOOPS = 30  # calls in each timed loop


# Small splats; the first is the scene that targets are set for, and alone gets `details`.
CASES = tuple(
    dataclasses.replace(cases.CASES["target_200k"], **changes)
    for changes in (
        {},
        {"num_splats": 1_000_000, "image_size": (1024, 1024)},
        {"num_splats": 20_000},
        {"cameras": 8},
        {"batch": 8},
        {"channels": 32},
        {"num_splats": 1_000_000},
        {"image_size": (256, 256)},
        {"image_size": (1024, 1024)},
    )
)


def shrunk() -> tuple[cases.Case, ...]:
    """Cases at sizes for Triton's interpreter; the last three only combine what others have."""
    return tuple(
        dataclasses.replace(
            case,
            num_splats=max(2, case.num_splats // 100_000),
            image_size=(max(8, case.image_size[0] // 64),) * 2,
            cameras=min(2, case.cameras),
            batch=min(2, case.batch),
        )
        for case in CASES[:6]
    )


def make_arrays(case: cases.Case) -> tuple[jax.Array, ...]:
    """The case's arrays as `kernels.rasterize` takes them, or a batch of them."""
    return tuple(jnp.asarray(a[0] if case.batch == 1 else a) for a in case.build())


def _render(case: cases.Case, options: kernels.RasterizeOptions) -> Callable:
    """The seven arrays -> RasterizeOutput."""

    def scene(*arrays):
        return kernels.rasterize(
            *arrays, image_size=case.image_size, options=options, implementation="triton"
        )

    return jax.vmap(scene) if case.batch > 1 else scene


def _config(case: cases.Case, arrays) -> tuple[RasterizeConfig, int]:
    """Configuration with the capacity that fits, and the tile intersections of all images."""
    options = kernels.RasterizeOptions(on_overflow="count")
    render = _render(case, options)
    counts = jax.jit(lambda *arrays: render(*arrays).stats.num_intersections)(*arrays)
    capacity = api.propose_from_count(int(jnp.max(counts)))
    options = dataclasses.replace(options, capacity=capacity)
    return RasterizeConfig(options, *case.image_size, capacity), int(jnp.sum(counts))


def _samples(function, arrays: tuple, vary: int) -> list[float]:
    """Microseconds a call, see `kernels.tune.samples`, sorted; a rehearsal measures once."""
    loops, repeats = (1, 1) if _REHEARSE.value else (LOOPS, 5)
    return sorted(
        1e6 * time for time in tune.samples(function, arrays, vary, loops, repeats=repeats)
    )


def microseconds(function, arrays: tuple, vary: int = 0) -> float:
    """Time of one call, the median."""
    return statistics.median(_samples(function, arrays, vary))


def copy_rate() -> float:
    """Gigabytes a second that passes over a large array read and write: what memory gives here."""
    loops = 1 if _REHEARSE.value else LOOPS
    array = jnp.arange((1 << 10) if _REHEARSE.value else (1 << 28), dtype=jnp.float32)
    passes = jax.jit(
        lambda array: jax.lax.fori_loop(0, loops, lambda _, x: x + 1.0, array), donate_argnums=0
    )
    times = []
    for _ in range(6):
        start = time.perf_counter()
        array = passes(array).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2e-9 * array.nbytes * loops / statistics.median(times[1:])  # the first one compiles


def _functions(config: RasterizeConfig, case: cases.Case):
    """(forward, forward and backward) of the seven arrays."""
    render = _render(case, config.options)

    def forward(*arrays):
        return render(*arrays).image

    return forward, timing.with_gradients(forward)


def memory_bytes(compiled) -> int:
    """What XLA allocates for one call: arguments, results and everything between."""
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def details(case: cases.Case, arrays, config: RasterizeConfig) -> dict:
    """Memory, launches, kernels; with --stages the stages and the deterministic mode."""
    _, both = _functions(config, case)
    compiled = jax.jit(both).lower(*arrays).compile()
    result = {"memory_bytes": memory_bytes(compiled)}
    try:
        result |= gpu_profile.profile(compiled, arrays)
    except Exception as error:  # the profiler's parts differ between machines; times stand
        result["profile_error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    if _STAGES.value:
        result["stages_us"] = gpu_stages.stages(arrays, config, microseconds)
        options = dataclasses.replace(config.options, deterministic=True)
        _, both = _functions(dataclasses.replace(config, options=options), case)
        result["forward_backward_deterministic_us"] = microseconds(both, arrays, 5)
    return result


class Gsplat:
    """A process that times gsplat over the same arrays, see `benchmarks.gsplat_side`."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).with_name("gsplat_side.py"))]
        command += ["--rehearse"] if _REHEARSE.value else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, case: cases.Case, arrays) -> dict:
        """Its times, or why there are none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.npz"
            named = dict(zip(Operands._fields, map(np.asarray, arrays), strict=True))
            np.savez(path, size=case.image_size[0], **named)
            try:
                self._process.stdin.write(f"{path}\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # it has ended, and so does what it says
            for line in self._process.stdout:
                if line.startswith("{"):  # gsplat itself prints, too
                    return json.loads(line)
        return {"error": f"gsplat_side ended with status {self._process.wait()}"}


def _head() -> dict:
    record = provenance.describe("gpu_bench", interpreted=_REHEARSE.value)
    return record | {"xla_flags": os.environ.get("XLA_FLAGS", ""), "cases": []}


def run(chosen: tuple[cases.Case, ...], out: Path) -> list[dict]:
    """Times the cases; writes the headline as soon as it is there, and after every step."""
    deadline = time.monotonic() + _SECONDS.value
    theirs = Gsplat(_GSPLAT.value) if _GSPLAT.value else None
    record = _head()
    record["copy_gb_per_s"] = copy_rate()
    for case in chosen:
        if time.monotonic() > deadline:
            print("out of time; the remaining cases are not measured", flush=True)
            break
        start = time.perf_counter()
        arrays = make_arrays(case)
        config, intersections = _config(case, arrays)
        forward, both = _functions(config, case)
        ours = {"capacity": config.capacity, "intersections": intersections}
        sizes = {"splats": case.num_splats, "size": case.image_size[0], "cameras": case.cameras}
        sizes |= {"channels": case.channels, "scenes": case.batch}
        entry = {"case": sizes, "ours": ours}
        for name, function in (("forward", forward), ("forward_backward", both)):
            times = _samples(function, arrays, 5)
            ours[f"{name}_us"] = statistics.median(times)
            ours[f"{name}_range_us"] = [times[0], times[-1]]  # a smaller difference is noise
        record["cases"].append(entry)
        provenance.write(out, record)
        if theirs:
            entry["gsplat"] = theirs.measure(case, arrays)
            provenance.write(out, record)
        if case is chosen[0]:
            ours |= details(case, arrays, config)
        ours["compile_and_time_s"] = time.perf_counter() - start
        provenance.write(out, record)
        print(json.dumps(entry), flush=True)
    return record["cases"]


def main(argv: list[str]) -> int:
    """Command line."""
    del argv
    chosen = (shrunk() if _REHEARSE.value else CASES)[: _FIRST.value]
    results = run(chosen, Path(_OUT.value))
    failed = [entry["gsplat"] for entry in results if "error" in entry.get("gsplat", {})]
    if failed:
        raise cli.UserError(f"gsplat: {failed[0]['error']}")
    return 0 if len(results) == len(chosen) else provenance.NOT_WHOLE


if __name__ == "__main__":
    cli.run(main)
