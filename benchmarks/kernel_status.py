"""Says whether today's kernels are those that were last verified on a GPU.

    python -m benchmarks.kernel_status            prints the status in one line
    python -m benchmarks.kernel_status --record   on a GPU machine: runs the gpu tests and writes
                                                  benchmarks/results/gpu-*.json

The machines that run the tests every day have no GPU. So each verification stores a hash of the
sources in `kernels/`, and `make test` compares it with the sources it has. A run that ends early
(--seconds) records what passed until then; only one in which every test passed is a verification.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from benchmarks import journal, provenance
from instant_gs import cli

ROOT, KERNELS = provenance.ROOT, provenance.KERNELS
RESULTS = ROOT / "benchmarks" / "results"

RECORD_KIND = "gpu_verification"
PART_KIND = "gpu_verification_part"  # not every test ran, or not every one passed
# Lets gpu tests run in Triton's interpreter, see tests/conftest.py.
REHEARSE_VARIABLE = "REHEARSE_GPU_TESTS"

_RECORD = flags.DEFINE_bool("record", False, "Run the gpu tests here and record what passed.")
_SECONDS = flags.DEFINE_float("seconds", None, "End the tests after so long.", lower_bound=1)
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


def _run_tests(seconds: float | None, rehearse: bool) -> dict:
    """Runs the gpu tests, a process for each file at once; what their journals say.

    One process spends its time compiling, on one core, beside a GPU that waits.
    """
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.journal", "-q", "-rf"]
    command += ["-k", "zero_splats or do_not_recompile"] if rehearse else []
    variables = {REHEARSE_VARIABLE: "1", "TRITON_INTERPRET": "1"} if rehearse else {}
    variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # they share the memory
    deadline = time.monotonic() + (seconds or math.inf)
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for path in sorted((ROOT / "tests" / "kernels").glob("test_*.py")):
            part = Path(folder) / path.stem
            part.touch()
            env = {**os.environ, journal.VARIABLE: str(part), **variables}
            running.append((part, subprocess.Popen([*command, str(path)], cwd=ROOT, env=env)))
        for _, process in running:
            try:
                left = max(0.0, deadline - time.monotonic())
                process.wait(None if math.isinf(left) else left)
            except subprocess.TimeoutExpired:
                print(f"out of time after {seconds:.0f} s", flush=True)
                process.kill()
                process.wait()
        whole = Path(folder) / "whole"
        whole.write_text("".join(part.read_text("utf-8") for part, _ in running), "utf-8")
        return journal.read(whole)


def record(folder: Path, *, seconds: float | None = None, rehearse: bool = False) -> Path:
    """Runs the gpu tests and writes the result file.

    Args:
      folder: receives the files; only those in `benchmarks/results` count later.
      seconds: end after so long, with what has passed until then.
      rehearse: run two of the tests in Triton's interpreter; the file then is no verification.

    Returns:
      The path of the file.

    Raises:
      cli.UserError: there is no CUDA device, or a test failed (the file names it), or none ran.
    """
    device = _device(rehearse)
    before = provenance.sources_hash()
    tests = _run_tests(seconds, rehearse)
    if provenance.sources_hash() != before:
        raise cli.UserError("--record: kernels/ changed during the tests; run it again")
    if not tests["passed"] and not tests["failed"]:
        raise cli.UserError("--record: no gpu test ran; nothing is recorded")
    complete = not (tests["failed"] or tests["skipped"] or tests["not_run"])
    kind = RECORD_KIND if complete else PART_KIND
    content = provenance.describe(f"{kind}_rehearsal" if rehearse else kind, interpreted=rehearse)
    content |= {"device": device, "date": content["date"][:10], "tests": tests}
    path = folder / f"gpu-{provenance.file_name(device)}.json"
    provenance.write(path, content)
    if tests["failed"]:
        raise cli.UserError(f"--record: failed: {', '.join(tests['failed'])}; see {path}")
    return path


def main(argv: list[str]) -> int:
    del argv
    not_run = []
    for flag in (_SECONDS, _REHEARSE, _OUT):
        if flag.present and not _RECORD.value:
            raise cli.UserError(f"--{flag.name}: only with --record")
    if _RECORD.value:
        path = record(Path(_OUT.value), seconds=_SECONDS.value, rehearse=_REHEARSE.value)
        print(f"wrote {path}")
        not_run = json.loads(path.read_text(encoding="utf-8"))["tests"]["not_run"]
    print(describe())
    return provenance.NOT_WHOLE if not_run else 0


if __name__ == "__main__":
    cli.run(main)
