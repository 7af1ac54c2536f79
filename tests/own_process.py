"""Programs that need a process of their own: other devices, or a library that stays loaded."""

import os
import subprocess
import sys
from pathlib import Path


def python(code: str, *arguments: str, **variables: str) -> str:
    """Output of a Python program on the CPU, run in the repository, without Triton's interpreter.

    Args:
        code: Its text.
        arguments: Of its command line.
        variables: Of its environment, besides those of this process.

    Raises:
        AssertionError: It failed; holds the end of what it said.
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout
