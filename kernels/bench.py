"""Times the rasterizer on named workloads and prints one JSON line for each.

    python -m kernels.bench --case=small_200k
    python -m kernels.bench --case=demo_96,demo_128 --implementation=xla --repeats=20
    python -m kernels.bench --plot=growth.png        # time against splats and against pixels

Each line holds compile time, median and quartiles of the run time, memory and the machine. Timing
fails if anything compiles meanwhile. Every case runs in a process of its own unless --noisolate, so
that peak memory is that case's.
"""

import importlib.util
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

import kernels
from kernels import device, validation
from kernels.rasterize import api, cases

DIRECTIONS = ("forward", "forward_backward")

_CASE = flags.DEFINE_list("case", None, f"Workloads, of: {', '.join(cases.CASES)}.")
_DIRECTION = flags.DEFINE_list(
    "direction", list(DIRECTIONS), f"What to time: {', '.join(DIRECTIONS)}."
)
_IMPLEMENTATION = flags.DEFINE_enum(
    "implementation", None, api.IMPLEMENTATIONS, "Backend; default: what rasterize picks."
)
_CAPACITY = flags.DEFINE_integer("capacity", None, "Intersections per image; default: automatic.")
_TILE_SIZE = flags.DEFINE_list("tile_size", None, "height,width of tiles; default: the backend's.")
_MODE = flags.DEFINE_enum("mode", "classic", ["classic", "antialiased"], "Rasterization mode.")
_DETERMINISTIC = flags.DEFINE_boolean("deterministic", False, "Bit-identical gradients.")
_REPEATS = flags.DEFINE_integer("repeats", 10, "Timed calls.", lower_bound=1)
_ISOLATE = flags.DEFINE_boolean("isolate", True, "Run every case in its own process.")
_PLOT = flags.DEFINE_string("plot", None, "Write this PNG of time against splats and pixels.")

# JAX reports every compilation under this name.
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class UsageError(ValueError):
    """A flag that makes no sense."""


class RecompiledError(RuntimeError):
    """Something compiled while it was being timed, so the times mean nothing."""


class CompileCounter:
    """Counts compilations while it is active."""

    def __init__(self):
        self.count = 0

    def _listen(self, event: str, duration: float, **_: object) -> None:
        del duration
        self.count += event == _COMPILE_EVENT

    def __enter__(self) -> "CompileCounter":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def _function(case: cases.Case, direction: str, options: kernels.RasterizeOptions, backend):
    def render(*arrays):
        return kernels.rasterize(
            *arrays, image_size=case.image_size, options=options, implementation=backend
        )

    def loss(*arrays):
        output = jax.vmap(render)(*arrays)
        return jnp.sum(output.image**2) + jnp.sum(output.alpha), output.stats

    if direction == "forward":
        return jax.vmap(render)
    if direction == "forward_backward":
        return jax.value_and_grad(loss, argnums=tuple(range(7)), has_aux=True)
    raise ValueError(f"direction: expected one of {DIRECTIONS}, got {direction!r}")


def _peak_bytes() -> int:
    """Peak memory: the device's where it reports one, else this process's resident set."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_calls(function, arrays, repeats: int, name: str) -> tuple[float, list[float], list[float]]:
    """Seconds of the first call; then milliseconds of each of `repeats` calls, elapsed and of CPU.

    CPU time, of all threads, is what stays meaningful on a machine that others use as well.

    Raises:
        RecompiledError: something compiled during the timed calls; the message names `name`.
    """
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    first_call = time.perf_counter() - start
    times, cpu_times = [], []
    with CompileCounter() as compiled:
        for _ in range(repeats):
            start, cpu_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(function(*arrays))
            times.append(1e3 * (time.perf_counter() - start))
            cpu_times.append(1e3 * (time.process_time() - cpu_start))
    if compiled.count:
        raise RecompiledError(f"{name}: {compiled.count} compilations while timing")
    return first_call, times, cpu_times


def measure(
    case: cases.Case,
    direction: str,
    options: kernels.RasterizeOptions,
    backend: str | None = None,
    repeats: int = 10,
) -> dict:
    """Times one case.

    Args:
        case: the workload.
        direction: of `DIRECTIONS`; "forward_backward" gives gradients of all seven arrays.
        options: rasterizer options.
        backend: implementation, or None.
        repeats: timed calls.

    Returns:
        A flat dict that JSON can hold; times in milliseconds for the whole batch.

    Raises:
        RecompiledError: something compiled during the timed calls.
    """
    arrays = [jnp.asarray(array) for array in case.build()]
    function = jax.jit(_function(case, direction, options, backend))
    first_call, times, cpu_times = time_calls(function, arrays, repeats, case.name)
    result = function(*arrays)
    stats = result.stats if direction == "forward" else result[0][1]
    low, middle, high = _quartiles(times)
    images = case.batch * case.cameras
    return {
        "case": case.name,
        "direction": direction,
        "implementation": backend or "auto",
        "platform": device.platform(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "commit": _commit(),
        "splats": case.num_splats,
        "height": case.image_size[0],
        "width": case.image_size[1],
        "channels": case.channels,
        "images": images,
        "intersections_per_image": float(jnp.mean(stats.num_intersections)),
        "overflow": int(jnp.max(stats.overflow)),
        "compile_s": round(first_call - middle / 1e3, 2),
        "median_ms": round(middle, 3),
        "quartiles_ms": [round(low, 3), round(high, 3)],
        "min_ms": round(min(times), 3),
        "median_ms_per_image": round(middle / images, 3),
        "median_cpu_ms": round(statistics.median(cpu_times), 3),
        "repeats": repeats,
        "peak_bytes": _peak_bytes(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _commit() -> str | None:
    """The commit of these sources, as ``instant_gs.version.commit`` says it."""
    if told := os.environ.get("COMMIT"):
        return told
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    quiet = {"capture_output": True, "text": True, "check": True}
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], **quiet)
        describe = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
        return subprocess.run(describe, **quiet).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or not a file of its
        return None


def _quartiles(times: list[float]) -> tuple[float, float, float]:
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def _options() -> kernels.RasterizeOptions:
    tile_size = tuple(int(side) for side in _TILE_SIZE.value or ()) or None
    return kernels.RasterizeOptions(
        mode=_MODE.value,
        capacity=_CAPACITY.value,
        tile_size=tile_size,
        deterministic=_DETERMINISTIC.value,
    )


def _run_isolated(name: str, direction: str) -> dict:
    """Runs one case in a fresh process with the same flags."""
    command = [sys.executable, "-m", "kernels.bench", *sys.argv[1:]]
    command += [f"--case={name}", f"--direction={direction}", "--noisolate", "--plot="]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} {direction}: its process ended with code {done.returncode}, see above")
    return json.loads(done.stdout.strip().splitlines()[-1])


def plot(rows: list[dict], path: Path) -> None:
    """Draws time against splats and against pixels, with a straight line for comparison."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = {
        "splats": lambda row: row["splats"],
        "pixels": lambda row: row["height"] * row["width"],
    }
    for axis, (sweep, size) in zip(axes, sizes.items(), strict=True):
        for direction in dict.fromkeys(row["direction"] for row in rows):
            chosen = [
                row
                for row in rows
                if row["case"] in cases.SWEEPS[sweep] and row["direction"] == direction
            ]
            chosen.sort(key=size)
            x = [size(row) for row in chosen]
            y = [row["median_ms"] for row in chosen]
            label = direction.replace("_", " + ")
            (line,) = axis.plot(x, y, marker="o", label=label)
            if x:
                axis.plot([0, x[-1]], [0, y[-1]], ":", color=line.get_color(), alpha=0.5)
        fixed = "512x512 pixels" if sweep == "splats" else "100,000 splats"
        axis.set(title=f"{fixed} (dotted: proportional)", xlabel=sweep, ylabel="median ms")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.legend()
    temporary = path.with_name(path.name + ".partial")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)


def _check_flags(argv: list[str]) -> None:
    """Raises UsageError before anything is timed."""
    if len(argv) > 1:
        raise UsageError(f"unexpected argument {argv[1]!r}; write --case=NAME")
    for flag, known in ((_CASE, cases.CASES), (_DIRECTION, DIRECTIONS)):
        if flag.value == []:
            raise UsageError(f"--{flag.name}=: expected some of {sorted(known)}")
        unknown = sorted(set(flag.value or ()) - set(known))
        if unknown:
            raise UsageError(f"--{flag.name}: unknown {unknown}, expected some of {sorted(known)}")
    sides = _TILE_SIZE.value or ["8", "8"]
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise UsageError(f"--tile_size={','.join(sides)}: expected height,width, as 8,8")
    try:
        validation.check_options(_options())
    except ValueError as error:
        raise UsageError(str(error).replace("options.", "--")) from error
    if not _PLOT.value:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot: needs matplotlib; pip install matplotlib")
    if not _PLOT.value.endswith(".png"):
        raise UsageError(f"--plot={_PLOT.value}: the name must end in .png")
    if not Path(_PLOT.value).absolute().parent.is_dir():
        raise UsageError(f"--plot={_PLOT.value}: no such folder; make it first")
    if Path(_PLOT.value).exists():
        raise UsageError(f"--plot={_PLOT.value}: exists already; choose another name")


def main(argv: list[str]) -> None:
    """Command line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # "no TPU here" is no news
    try:
        _check_flags(argv)
        _run()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NotImplementedError as error:  # a backend that this machine cannot run
        sys.exit(f"error: {error}")


def _run() -> None:
    names = list(_CASE.value or ([] if _PLOT.value else ["demo_96", "small_200k"]))
    if _PLOT.value:
        names += [name for sweep in cases.SWEEPS.values() for name in sweep if name not in names]
    rows = []
    for name in names:
        for direction in _DIRECTION.value:
            if _ISOLATE.value:
                row = _run_isolated(name, direction)
            else:
                options = _options()
                row = measure(
                    cases.CASES[name], direction, options, _IMPLEMENTATION.value, _REPEATS.value
                )
            rows.append(row)
            print(json.dumps(row), flush=True)
    if _PLOT.value:
        plot(rows, Path(_PLOT.value))
        print(f"wrote {_PLOT.value}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
