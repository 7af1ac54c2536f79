"""Programs in a process of their own: commands, other devices, or a library that stays loaded."""

import os
import subprocess
import sys
from pathlib import Path


def run(*words, **variables: str) -> subprocess.CompletedProcess:
    """A Python process that ran in the repository, without Triton's interpreter.

    Args:
        words: Of its command line: "-m", "instant_gs.animate", "--out=a.mp4".
        variables: Of its environment, besides those of this process.
    """
    environment = {**os.environ, **variables}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def python(code: str, *arguments: str, **variables: str) -> str:
    """Output of a Python program on the CPU.

    Args:
        code: Its text.
        arguments: Of its command line.
        variables: As for ``run``.

    Raises:
        AssertionError: It failed; holds the end of what it said.
    """
    done = run("-c", code, *arguments, **{"JAX_PLATFORMS": "cpu", **variables})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
