"""Times the rasterizer on a workload: compile time, run time, memory, and what ran where."""

import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

import kernels
from kernels import device

DIRECTIONS = ("forward", "forward_backward")

# JAX reports every compilation under this name.
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


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


def with_gradients(draw: Callable) -> Callable:
    """The first seven arguments of `kernels.rasterize` -> gradients of sum(draw(*arrays) ** 2)."""

    def both(*arrays):
        return jax.grad(lambda *a: jnp.sum(draw(*a) ** 2), argnums=tuple(range(7)))(*arrays)

    return both


def _function(direction: str, image_size, options: kernels.RasterizeOptions, backend: str):
    def render(*arrays):
        return kernels.rasterize(
            *arrays, image_size=image_size, options=options, implementation=backend
        )

    def loss(*arrays):
        output = jax.vmap(render)(*arrays)
        return jnp.sum(output.image**2) + jnp.sum(output.alpha), output.stats

    if direction == "forward":
        return jax.vmap(render)
    if direction == "forward_backward":
        return jax.value_and_grad(loss, argnums=tuple(range(7)), has_aux=True)
    raise ValueError(f"direction: expected one of {DIRECTIONS}, got {direction!r}")


def _accepted(direction: str, image_size, options, arrays) -> str:
    """The backend that `kernels.rasterize` picks: the first that accepts the call."""
    if device.is_nvidia():
        try:
            jax.eval_shape(_function(direction, image_size, options, "triton"), *arrays)
            return "triton"
        except NotImplementedError:
            pass
    return "xla"


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
    arrays: Sequence,
    direction: str,
    options: kernels.RasterizeOptions,
    *,
    image_size: tuple[int, int],
    backend: str | None = None,
    repeats: int = 10,
    name: str = "scenes",
) -> dict:
    """Times scenes of one's own, or a case's (`cases.Case.build`), rendered at once.

    Args:
        arrays: the first seven arguments of `kernels.rasterize`, each with a leading batch axis.
        direction: of `DIRECTIONS`; "forward_backward" gives gradients of all seven arrays.
        options: rasterizer options.
        image_size: (height, width), pixels.
        backend: implementation; None is what `kernels.rasterize` picks, "triton" or "xla".
        repeats: timed calls, at least 1.
        name: what the workload is called.

    Returns:
        A flat dict that JSON can hold; times in milliseconds for the whole batch.

    Raises:
        ValueError: no such direction, no repeats, or as `kernels.rasterize`.
        NotImplementedError: the backend cannot run here.
        RecompiledError: something compiled during the timed calls.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    arrays = [jnp.asarray(array) for array in arrays]
    backend = backend or _accepted(direction, image_size, options, arrays)
    function = jax.jit(_function(direction, image_size, options, backend))
    first_call, times, cpu_times = time_calls(function, arrays, repeats, name)
    result = function(*arrays)
    stats = result.stats if direction == "forward" else result[0][1]
    counts, has_slots = stats.num_intersections, backend != "reference"
    low, middle, high = _quartiles(times)
    return {
        "case": name,
        "direction": direction,
        "implementation": backend,
        "platform": device.platform(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "commit": _commit(),
        "splats": arrays[0].shape[1],
        "height": image_size[0],
        "width": image_size[1],
        "channels": arrays[4].shape[-1],
        "images": counts.size,
        "mode": options.mode,
        "tile_size": options.tile_size,
        "deterministic": options.deterministic,
        "capacity": int(stats.capacity.ravel()[0]) if has_slots else None,
        "intersections_per_image": float(counts.mean()) if has_slots else None,
        "overflow": int(jnp.max(stats.overflow)) if has_slots else None,
        "compile_s": round(first_call - middle / 1e3, 2),
        "median_ms": round(middle, 3),
        "quartiles_ms": [round(low, 3), round(high, 3)],
        "min_ms": round(min(times), 3),
        "median_ms_per_image": round(middle / counts.size, 3),
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
