"""Hosts of one run: processes on this machine that know each other's address."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_address() -> str:
    """Where nobody listens yet, "localhost:PORT"."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start(*words, devices: int = 1, stderr: int = subprocess.STDOUT) -> subprocess.Popen:
    """Starts Python in the repository, on the CPU.

    Args:
        words: Of its command line.
        devices: How many it has.
        stderr: Where that goes; by default where its other output goes, too.
    """
    xla = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def outputs(runs) -> list[str]:
    """What each of them said, once all have ended; no one goes on behind it."""
    try:
        return [run.communicate(timeout=500)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
            run.stdout.close()
