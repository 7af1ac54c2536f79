"""What the GPU did in a few calls, by JAX's profiler: time in each kernel, and launches."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

_KERNELS_KEPT = 20
_CALLS = 10


def profile(run: Callable, arrays: tuple) -> dict:
    """Profiles run(*arrays), compiled before.

    Returns:
        `kernels_us`, microseconds a call by kernel, the largest first, and `launches`, a call: of
        single kernels, and of CUDA graphs, which is what XLA's command buffers are.
    """
    jax.block_until_ready(run(*arrays))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_CALLS):
                jax.block_until_ready(run(*arrays))
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    sums: dict[str, float] = {}
    launches = {"LaunchKernel": 0.0, "GraphLaunch": 0.0}
    for plane in planes:
        on_gpu = plane.name.startswith("/device:GPU")
        for line in plane.lines:
            for event in line.events:
                name = event.name
                if on_gpu and line.name.startswith("Stream"):
                    sums[name] = sums.get(name, 0.0) + event.duration_ns / 1e3 / _CALLS
                elif not on_gpu:  # calls of the driver
                    for word in launches:
                        launches[word] += (word in name) / _CALLS
    largest = sorted(sums.items(), key=lambda item: -item[1])[:_KERNELS_KEPT]
    return {
        "kernels_us": dict(largest),
        "launches": {"kernels": launches["LaunchKernel"], "graphs": launches["GraphLaunch"]},
    }
