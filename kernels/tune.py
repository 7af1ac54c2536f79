"""Tunes the Triton rasterizer for the GPU at hand, offline, and writes the table it runs with.

    python -m kernels.tune --out=kernels/rasterize/triton_tuned.json
    python -m kernels.tune --channels=3 --splats=20000 --size=256 --minutes=2

A coordinate search: the tile by the time of forward and backward pass, forward launch parameters by
that of the forward pass, backward ones by both. Each candidate is compiled and timed on random
small splats as many calls inside one jitted loop. One that wins has to win against a second
measurement of the best so far, too: while something else used the GPU, a search that did not ask
twice chose parameters that took 1.6 times as long. What spills or fails to compile is skipped. The
table is written after each number of channels; the entries of other GPUs are kept.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from kernels import cubin, device, timing, triton_call, triton_compile
from kernels.rasterize import api, cases, triton_config, vjp
from kernels.types import RasterizeOptions

TILE = {"tile": ((8, 8), (8, 16), (16, 16))}
FORWARD = {
    "forward_warps": (1, 2, 4),
    "forward_chunk": (16, 32),
    "emit_block": (32, 64, 128),
    "project_block": (32, 64, 128),
    "forward_registers": (120, 128),
}
_NOISE = 0.99  # of a time; a smaller gain is none
_NEVER = 1.2345678e30  # no sum of outputs has this value
BACKWARD = {"backward_warps": (1, 2, 4), "backward_chunk": (16,), "feature_warps": (1, 2, 4)}
# What decides, among what, and when to stop as a share of the minutes.
_PHASES = (
    ("forward_backward", TILE, 0.2),
    ("forward", FORWARD, 0.7),
    ("forward_backward", BACKWARD, 1.0),
)


def looped(function: Callable, vary: int, loops: int) -> Callable:
    """Jitted arrays -> a number, with many calls of function(*arrays) in one loop.

    The loop's length is a constant: XLA would ask the host after each call if it were not.
    """

    def run(*arrays):
        def body(_, previous):
            changed = list(arrays)
            # A zero that the compiler cannot know, also where previous is not finite.
            zero = (previous == _NEVER).astype(changed[vary].dtype)
            changed[vary] = changed[vary] + zero
            # The barrier keeps what nobody reads: XLA would drop kernels of unused gradients.
            leaves = jax.lax.optimization_barrier(jax.tree.leaves(function(*changed)))
            first = [jax.lax.index_in_dim(leaf.reshape(-1), 0, keepdims=False) for leaf in leaves]
            return sum(value.astype(jnp.float32) for value in first)

        return jax.lax.fori_loop(0, loops, body, jnp.float32(0))

    return jax.jit(run)


def samples(
    function: Callable, arrays: tuple, vary: int, loops: int, *, repeats: int = 5
) -> list[float]:
    """Seconds per call of function(*arrays), many calls inside one jitted loop, measured again.

    Args:
        function: arrays -> any pytree of arrays; all of it is computed in every call.
        arrays: its arguments, arrays or pytrees of them.
        vary: index of a small argument, an array, that is made to depend on the previous call, so
            that calls neither overlap nor move out of the loop.
        loops: calls in the loop; what it costs to start any program is taken off.
        repeats: how often that is measured.
    """

    def seconds(run: Callable) -> float:
        start = time.perf_counter()
        run(*arrays).block_until_ready()
        return time.perf_counter() - start

    run, nothing = looped(function, vary, loops), jax.jit(lambda *arrays: arrays[vary] + 1)
    for first in (run, nothing):
        seconds(first)
    return [(seconds(run) - seconds(nothing)) / loops for _ in range(repeats)]


def measure(function: Callable, arrays: tuple, vary: int, loops: int, *, repeats: int = 5) -> float:
    """The median of `samples`."""
    return float(np.median(samples(function, arrays, vary, loops, repeats=repeats)))


def timed(arrays: tuple, size: int, loops: int, *, backward: bool) -> float:
    """Seconds of one forward pass, or of forward and backward, of the Triton backend."""
    options = RasterizeOptions(on_overflow="count")
    images = dict(image_size=(size, size), implementation="triton")
    capacity = api.propose_capacity(*arrays, options=options, **images)
    options = dataclasses.replace(options, capacity=capacity)

    def forward(*arrays):
        return api.rasterize(*arrays, options=options, **images).image

    function = timing.with_gradients(forward) if backward else forward
    return measure(function, arrays, 5, loops)


def _candidates(best: triton_config.KernelConfig, grid: dict) -> Iterator[tuple[str, object]]:
    for name, values in grid.items():
        for value in values:
            if getattr(best, name) != value:
                yield name, value


def _refuse_spills(seen: int) -> None:
    """Raises RuntimeError if a kernel compiled after the first `seen` ones spills registers."""
    for launch, compiled in triton_compile.compiled_kernels()[seen:]:
        spilled = cubin.resources(compiled)["spill_bytes"]
        if spilled:
            raise RuntimeError(f"{launch.name} spills {spilled} bytes a thread")


def _try(
    kernel: triton_config.KernelConfig, arrays, size: int, loops: int, backward: bool
) -> float:
    """Seconds with these parameters; infinite where they do not work or a kernel spills."""
    vjp.differentiable.cache_clear()  # what is traced holds the parameters of before
    seen = len(triton_compile.compiled_kernels())
    try:
        with triton_config.override(kernel):
            seconds = timed(arrays, size, loops, backward=backward)
        _refuse_spills(seen)
        return seconds
    except Exception as error:  # ptxas, shared memory, a shape that Triton rejects: all mean "no"
        print(f"  skipped: {str(error).splitlines()[0][:90]}", flush=True)
        return float("inf")


def _search(best: triton_config.KernelConfig, grid: dict, attempt: Callable, deadline: float):
    """Best of a grid, one parameter at a time: (parameters, seconds, how many were timed)."""
    fastest = attempt(best)
    timings = int(np.isfinite(fastest))
    print(f"  to begin with: {1e6 * fastest:.1f} us", flush=True)
    for name, value in _candidates(best, grid):
        if time.monotonic() > deadline:
            print("  out of time", flush=True)
            break
        candidate = dataclasses.replace(best, **{name: value})
        if name == "tile":
            warps = max(1, value[0] * value[1] // 64)
            candidate = dataclasses.replace(candidate, forward_warps=warps, backward_warps=warps)
        if name in ("emit_block", "project_block"):  # a thread a splat
            warps = {name.replace("block", "warps"): max(1, value // 32)}
            candidate = dataclasses.replace(candidate, **warps)
        seconds = attempt(candidate)
        timings += int(np.isfinite(seconds))
        print(f"  {name}={value}: {1e6 * seconds:.1f} us", flush=True)
        if seconds < _NOISE * fastest and seconds < _NOISE * attempt(best):
            best, fastest = candidate, seconds
    return best, fastest, timings


def tune(channels: int, splats: int, size: int, loops: int, minutes: float):
    """Best parameters found for a number of channels, and the two times with them, in seconds."""
    start = time.monotonic()
    scene = cases.Case("small", "small", splats, (size, size), channels=channels).build()
    arrays = tuple(jnp.asarray(array[0]) for array in scene)
    best = triton_config.lookup(triton_call.cuda_capability(), channels)
    times, chosen = {}, not triton_compile.is_interpreting()  # whose times mean nothing
    for name, grid, share in _PHASES:
        print(f"D={channels} {name}:", flush=True)

        def attempt(kernel, backward=name != "forward"):
            return _try(kernel, arrays, size, loops, backward)

        best, times[name], timings = _search(best, grid, attempt, start + 60 * minutes * share)
        chosen &= timings > 1  # a choice among one is none
    return dataclasses.replace(best, measured=chosen), times


def read(path: Path) -> dict:
    """The table at `path`, or the installed one if there is none yet.

    Raises:
        OSError: it cannot be read, or no file can be written there.
        ValueError: it is no table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: cannot write into this folder")
    text = (path if path.exists() else triton_config.TABLE).read_text(encoding="utf-8")
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    entries = table.get("entries") if isinstance(table, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError('no table: it has no "entries" by GPU')
    return table


def write(path: Path, capability: int, channels: int, kernel: triton_config.KernelConfig) -> None:
    """Puts one entry into a table, whole or not at all; a new table begins as the installed one."""
    table = read(path)
    entries = table["entries"].setdefault(f"sm_{capability}", {})
    for size in triton_config.CHANNEL_CLASSES:  # a GPU has entries of all classes or none
        known = triton_config.lookup(capability, size - 1)
        entries.setdefault(str(size), dataclasses.asdict(known))
    entries[str(triton_config.channel_class(channels))] = dataclasses.asdict(kernel)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_string("out", str(triton_config.TABLE), "Table to update.")
    flags.DEFINE_list("channels", ["3", "32"], "Channel counts to tune for.")
    flags.DEFINE_integer("splats", 200_000, "Splats of the scene.", lower_bound=1)
    flags.DEFINE_integer("size", 512, "Image height and width.", lower_bound=16)
    flags.DEFINE_integer("loops", 20, "Calls in the timed loop.", lower_bound=1)
    flags.DEFINE_float("minutes", 8.0, "For each number of channels.")


def main(argv: list[str]) -> None:
    """Command line."""
    values = flags.FLAGS
    if len(argv) > 1 or not all(text.isdigit() and int(text) for text in values.channels):
        raise app.UsageError("expected flags only, and --channels such as 3,32")
    if not (device.is_nvidia() or triton_compile.is_interpreting()):
        sys.exit("kernels.tune: no NVIDIA GPU here; run it on the GPU that the table is for")
    try:  # now, not after minutes of searching
        read(Path(values.out))
    except (OSError, ValueError) as error:
        sys.exit(f"kernels.tune: --out={values.out}: {error}; name another file or restore it")
    for text in values.channels:
        channels = int(text)
        kernel, times = tune(channels, values.splats, values.size, values.loops, values.minutes)
        print(json.dumps({"channels": channels, **times, **dataclasses.asdict(kernel)}), flush=True)
        write(Path(values.out), triton_call.cuda_capability(), channels, kernel)


if __name__ == "__main__":
    define_flags()
    app.run(main)
