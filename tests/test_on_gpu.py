"""The script of a visit to a GPU says what did not run, and fails then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "on_gpu.sh"


def run(tmp_path, *arguments, **variables):
    """The script with a Python that does nothing, successfully; without the GPU's programs."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    environment = {"PATH": f"{tools}:{os.defpath}", "PYTHON": "true", **variables}
    command = ["bash", str(SCRIPT), str(tmp_path / "out"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_all_that_was_asked_for_ran(tmp_path):
    visit = run(tmp_path, ONLY="environment parity")
    assert visit.stdout.splitlines()[-1] == "== done; failed: none; not run, or not whole: none"
    assert visit.returncode == 0


@pytest.mark.parametrize(("only", "seconds"), [("parity bench", "0"), ("memcheck", "60")])
def test_what_did_not_run_is_no_success(only, seconds, tmp_path):
    """Out of time, or without compute-sanitizer."""
    visit = run(tmp_path, seconds, ONLY=only)
    assert visit.stdout.splitlines()[-1] == f"== done; failed: none; not run, or not whole: {only}"
    assert visit.returncode == 1


def test_a_step_that_ends_for_want_of_time_is_no_success(tmp_path):
    """The real modules write what they have and say so by their exit status."""
    visit = run(
        tmp_path,
        "20",
        ONLY="parity_rest",
        PYTHON=sys.executable,
        REHEARSE="1",
        LIMIT_parity_rest="19",
    )
    assert "out of time; the remaining cases are not checked" in visit.stdout
    assert visit.stdout.splitlines()[-1].endswith(
        "failed: none; not run, or not whole: parity_rest"
    )
    assert visit.returncode == 1


def test_a_step_that_fails_is_named(tmp_path):
    visit = run(tmp_path, ONLY="parity", PYTHON="false")
    assert visit.stdout.splitlines()[-1] == "== done; failed: parity; not run, or not whole: none"
    assert visit.returncode == 1


@pytest.mark.parametrize("name", ["train", "gsplat", "nothing"])
def test_a_step_that_cannot_run_is_refused_at_once(name, tmp_path):
    visit = run(tmp_path, ONLY=name)
    assert visit.returncode == 2 and visit.stderr.startswith("ONLY") and name in visit.stderr


@pytest.mark.parametrize(("answer", "expected"), [("12.0", "12.0"), ("No devices found", "9.0")])
def test_gsplat_is_built_for_the_gpu_at_hand(answer, expected, tmp_path):
    (tmp_path / "tools").mkdir()
    tool = tmp_path / "tools" / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho {answer}\n")
    tool.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    visit = run(tmp_path, ONLY="gsplat", GSPLAT_WHEEL="gsplat.whl", SCRATCH=str(scratch))
    assert visit.returncode == 0, visit.stdout
    assert f"TORCH_CUDA_ARCH_LIST:-{expected}}}" in (scratch / "gsplat-python").read_text()
