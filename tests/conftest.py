"""Settings of the whole test run: virtual devices, strict broadcasting, what a GPU would add.

Environment variables must be set before JAX is imported, so they are set here at import time.
"""

from __future__ import annotations

import importlib.metadata
import os

NUM_CPU_DEVICES = 4  # enough for a 2x2 mesh

# Compiling takes most of the time of the tests. Without LLVM's optimisations all took 14 % less
# processor time, those that compile most a fifth (2026-11-29). What the caller sets comes last and
# wins: XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" tests
# what users run.
_FLAGS = [
    f"--xla_force_host_platform_device_count={NUM_CPU_DEVICES}",
    "--xla_backend_optimization_level=0",
]
# XLA's older way to write loops compiles the demo's encoder in two thirds of the processor time, a
# frame in under half of it (2026-11-30). Newer versions have no other way than theirs.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")]).strip()
# Several processes test at once, and may share a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# A cache shared between runs would hide what a fresh machine pays and what recompiles.
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax
import pytest

from kernels import device

GPU_SKIP_REASON = "no CUDA device on this machine"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Files with slow tests first (the Makefile keeps this order), so that quick ones fill the end,
    # when one process waits for the other.
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)
    # Not `in item.keywords`: these hold the names of folders, too.
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    # Set by `benchmarks.kernel_status --rehearse`: they then run in Triton's interpreter.
    rehearsing = os.environ.get("REHEARSE_GPU_TESTS") == "1"
    if gpu_items and not rehearsing and not device.is_nvidia():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=GPU_SKIP_REASON))


@pytest.fixture(autouse=True)
def strict_rank_promotion():
    """Broadcasting a (3,) over an (N, 3) must be written out: a silent one has hidden many bugs."""
    with jax.numpy_rank_promotion("raise"):
        yield


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
    from benchmarks import kernel_status

    skipped = sum(
        GPU_SKIP_REASON in str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    terminalreporter.section("accelerators")
    terminalreporter.write_line(
        f"{skipped} gpu tests skipped: {GPU_SKIP_REASON}" if skipped else "no gpu test was skipped"
    )
    terminalreporter.write_line(kernel_status.describe())
