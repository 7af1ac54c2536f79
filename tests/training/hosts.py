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


def start(*words, stderr: int = subprocess.STDOUT, **variables: str) -> subprocess.Popen:
    """Starts Python in the repository, on the CPU.

    Args:
        words: Of its command line.
        stderr: Where that goes; by default where its other output goes, too.
        variables: Of its environment, besides those of this process.
    """
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
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
