"""Says whether today's kernels are those that were last verified on a GPU.

    python -m benchmarks.kernel_status            prints the status in one line
    python -m benchmarks.kernel_status --record   on a GPU machine: runs the gpu tests and, if they
                                                  pass, writes benchmarks/results/gpu-*.json

The machines that run the tests every day have no GPU. So each verification stores a hash of the
sources in `kernels/`, and `make test` compares it with the sources it has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from absl import flags

from benchmarks import provenance
from instant_gs import cli

ROOT, KERNELS = provenance.ROOT, provenance.KERNELS
RESULTS = ROOT / "benchmarks" / "results"

RECORD_KIND = "gpu_verification"
# Lets gpu tests run in Triton's interpreter, see tests/conftest.py.
REHEARSE_VARIABLE = "REHEARSE_GPU_TESTS"

_RECORD = flags.DEFINE_bool("record", False, "Run the gpu tests here and record that they passed.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Try --record without a GPU, on two tests.")
_OUT = flags.DEFINE_string("out", str(RESULTS), "Folder for the file that --record writes.")


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
    today = provenance.sources_hash(kernels)
    for record in records:
        if record["kernels_sha256"] == today:
            return f"kernels: verified on {record['device']} on {record['date']}"
    newest = records[0]
    return (
        f"kernels: changed since they were last verified on a GPU "
        f"({newest['device']}, {newest['date']})"
    )


def _device(rehearse: bool) -> str:
    """Name of the GPU here.

    Raises:
      cli.UserError: there is none, and this is no rehearsal.
    """
    import jax

    if rehearse:
        return "no GPU: a rehearsal"
    try:
        return jax.devices("cuda")[0].device_kind
    except RuntimeError as error:
        raise cli.UserError(
            "--record: JAX finds no CUDA device here; run it on a machine with an NVIDIA GPU "
            "after `pip install .[cuda]`"
        ) from error


def record(folder: Path, *, rehearse: bool = False) -> Path:
    """Runs the gpu tests and writes the result file.

    Args:
      folder: receives the file; only files in `benchmarks/results` count later.
      rehearse: run two of the tests in Triton's interpreter; the file then is no verification.

    Returns:
      The path of the file.

    Raises:
      cli.UserError: there is no CUDA device, or a test failed, or none ran.
    """
    device = _device(rehearse)
    before = provenance.sources_hash()
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["-k", "zero_splats or do_not_recompile"] if rehearse else []
    variables = {REHEARSE_VARIABLE: "1", "TRITON_INTERPRET": "1"} if rehearse else {}
    run = subprocess.run(
        [*command, "tests/kernels"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    print(run.stdout)
    passed = re.search(r"(\d+) passed", run.stdout)
    if run.returncode or not passed or re.search(r"\d+ skipped", run.stdout):
        raise cli.UserError("--record: the gpu tests did not all run and pass; nothing is recorded")
    if provenance.sources_hash() != before:
        raise cli.UserError("--record: kernels/ changed during the tests; run it again")
    content = provenance.describe(
        f"{RECORD_KIND}_rehearsal" if rehearse else RECORD_KIND, interpreted=rehearse
    )
    content |= {
        "device": device,
        "date": content["date"][:10],
        "tests_passed": int(passed[1]),
        "command": "python -m benchmarks.kernel_status --record",
    }
    path = folder / f"gpu-{provenance.file_name(device)}.json"
    provenance.write(path, content)
    return path


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise cli.UserError(f"unexpected argument {argv[1]!r}: --help lists the flags")
    if _RECORD.value:
        print(f"wrote {record(Path(_OUT.value), rehearse=_REHEARSE.value)}")
    print(describe())


if __name__ == "__main__":
    cli.run(main)
