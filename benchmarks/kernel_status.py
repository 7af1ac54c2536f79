"""Says whether today's kernels are those that were last verified on a GPU.

    python -m benchmarks.kernel_status            prints the status in one line
    python -m benchmarks.kernel_status --record   on a GPU machine: runs the gpu tests and, if they
                                                  pass, writes benchmarks/results/gpu-*.json

The machines that run the tests every day have no GPU. So each verification stores a hash of the
sources in `kernels/`, and `make test` compares it with the sources it has.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

from absl import flags

from instant_gs import cli

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
RESULTS = ROOT / "benchmarks" / "results"

RECORD_KIND = "gpu_verification"

_RECORD = flags.DEFINE_bool("record", False, "Run the gpu tests here and record that they passed.")
_OUT = flags.DEFINE_string("out", str(RESULTS), "Folder for the file that --record writes.")


def sources_hash(folder: Path = KERNELS) -> str:
    """SHA-256 over the names and contents of all Python files below `folder`, in hex."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read_records(results: Path = RESULTS) -> list[dict]:
    """The GPU verifications among the result files, the newest first.

    Raises:
      ValueError: a result file is not valid JSON.
    """
    records = []
    for path in sorted(results.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON ({error}); remove or restore it") from error
        if isinstance(record, dict) and record.get("kind") == RECORD_KIND:
            records.append(record)
    return sorted(records, key=lambda record: record["date"], reverse=True)


def describe(kernels: Path = KERNELS, results: Path = RESULTS) -> str:
    """One line: never verified on a GPU, verified as they are, or changed since then."""
    records = read_records(results)
    if not records:
        return "kernels: never verified on a GPU"
    today = sources_hash(kernels)
    for record in records:
        if record["kernels_sha256"] == today:
            return f"kernels: verified on {record['device']} on {record['date']}"
    newest = records[0]
    return (
        f"kernels: changed since they were last verified on a GPU "
        f"({newest['device']}, {newest['date']})"
    )


def record(folder: Path) -> Path:
    """Runs the gpu tests and writes the result file.

    Args:
      folder: receives the file; only files in `benchmarks/results` count later.

    Returns:
      The path of the file.

    Raises:
      cli.UserError: there is no CUDA device, or a test failed, or none ran.
    """
    import jax

    try:
        device = jax.devices("cuda")[0].device_kind
    except RuntimeError as error:
        raise cli.UserError(
            "--record: JAX finds no CUDA device here; run it on a machine with an NVIDIA GPU "
            "after `pip install .[cuda]`"
        ) from error
    before = sources_hash()
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(run.stdout)
    passed = re.search(r"(\d+) passed", run.stdout)
    if run.returncode or not passed or re.search(r"\d+ skipped", run.stdout):
        raise cli.UserError("--record: the gpu tests did not all run and pass; nothing is recorded")
    if sources_hash() != before:
        raise cli.UserError("--record: kernels/ changed during the tests; run it again")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = {
        "kind": RECORD_KIND,
        "kernels_sha256": before,
        "device": device,
        "date": today,
        "tests_passed": int(passed[1]),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "command": "python -m benchmarks.kernel_status --record",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise cli.UserError(f"unexpected argument {argv[1]!r}: --help lists the flags")
    if _RECORD.value:
        print(f"wrote {record(Path(_OUT.value))}")
    print(describe())


if __name__ == "__main__":
    cli.run(main)
