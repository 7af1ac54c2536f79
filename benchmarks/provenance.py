"""What a result file says about where it comes from: versions, commit, sources, device."""

from __future__ import annotations

import datetime
import hashlib
import platform
import re
import subprocess
from pathlib import Path

from instant_gs import output, version

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
NOT_WHOLE = 69  # exit status of a step that ran out of time; what it found until then is written
_TOOLS = ("bench.py", "timing.py", "tune.py")
_TRITON_SOURCES = ("kernels/triton_*.py", "kernels/rasterize/triton_*")


def sources_hash(folder: Path = KERNELS) -> str:
    """SHA-256 over the names and contents of all Python files and tables below `folder`, in hex.

    Tables decide which kernels run. Without the tools: what times and tunes kernels changes none.
    """
    digest = hashlib.sha256()
    files = [path for pattern in ("*.py", "*.json") for path in folder.rglob(pattern)]
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        if path.relative_to(folder).as_posix() in _TOOLS:
            continue
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def triton_hash() -> str:
    """SHA-256 over the sources of the Triton backend, in hex."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _TRITON_SOURCES for path in ROOT.glob(pattern)):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _driver() -> str | None:
    """Version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return run.stdout.strip().splitlines()[0] if run.returncode == 0 and run.stdout else None


def describe(kind: str, *, interpreted: bool) -> dict:
    """The head of a result file.

    Args:
      kind: what sort of result.
      interpreted: the kernels ran in Triton's interpreter: times mean nothing.
    """
    import jax
    import jaxlib
    import triton

    return {
        "kind": kind,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "driver": _driver(),
        "interpreted": interpreted,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "triton": triton.__version__,
        },
        "commit": version.commit(),
        "kernels_sha256": sources_hash(),
        "triton_sources_sha256": triton_hash(),
    }


def file_name(device: str) -> str:
    """A device's name as a file name without extension: "NVIDIA H100 80GB" -> nvidia-h100-80gb."""
    return re.sub("[^a-z0-9]+", "-", device.lower()).strip("-")


def write(path: Path, record: dict) -> None:
    """Writes a result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output.write_json(path, record)
