"""The line that says whether today's kernels were verified on a GPU tells the truth."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import journal, kernel_status, provenance
from instant_gs import cli
from tests import own_process


@pytest.fixture
def tree(tmp_path):
    kernels, results = tmp_path / "kernels", tmp_path / "results"
    (kernels / "op").mkdir(parents=True)
    results.mkdir()
    (kernels / "__init__.py").write_text("A = 1\n")
    (kernels / "op" / "api.py").write_text("B = 2\n")
    return kernels, results


def write_record(tree, date="2026-01-02", **changes):
    kernels, results = tree
    record = {
        "kind": kernel_status.RECORD_KIND,
        "kernels_sha256": provenance.sources_hash(kernels),
        "device": "NVIDIA Test",
        "date": date,
    }
    (results / f"gpu-{date}.json").write_text(json.dumps({**record, **changes}))


def test_without_records_it_was_never_verified(tree):
    assert kernel_status.describe(*tree) == "kernels: never verified on a GPU"


def test_other_result_files_are_no_verification(tree):
    write_record(tree, kind="benchmark")
    assert "never" in kernel_status.describe(*tree)


def test_unchanged_sources_are_verified(tree):
    write_record(tree)
    assert kernel_status.describe(*tree) == "kernels: verified on NVIDIA Test on 2026-01-02"


@pytest.mark.parametrize("change", ["edit", "add", "rename", "delete", "tune"])
def test_any_change_of_the_sources_is_noticed(tree, change):
    write_record(tree)
    api = tree[0] / "op" / "api.py"
    if change == "edit":
        api.write_text("B = 3\n")
    elif change == "add":
        (tree[0] / "op" / "xla.py").write_text("")
    elif change == "tune":
        (tree[0] / "op" / "tuned.json").write_text("{}")
    elif change == "rename":
        api.rename(tree[0] / "op" / "other.py")
    else:
        api.unlink()
    text = kernel_status.describe(*tree)
    assert "changed since" in text and "NVIDIA Test, 2026-01-02" in text


def test_an_older_record_counts_if_its_sources_are_todays(tree):
    write_record(tree, date="2026-01-02")
    write_record(tree, date="2026-02-03", kernels_sha256="0" * 64)
    assert kernel_status.describe(*tree) == "kernels: verified on NVIDIA Test on 2026-01-02"


def test_of_records_that_are_all_stale_the_newest_is_named(tree):
    for date in ("2026-01-02", "2026-03-04", "2026-02-03"):
        write_record(tree, date=date, kernels_sha256="0" * 64)
    assert "(NVIDIA Test, 2026-03-04)" in kernel_status.describe(*tree)


def test_tools_beside_the_kernels_are_no_source_of_theirs(tree):
    """What times and tunes them; a kernel of such a name, in a folder below, is one."""
    write_record(tree)
    for name in ("bench.py", "timing.py", "tune.py"):
        assert (provenance.KERNELS / name).is_file()
        (tree[0] / name).write_text("C = 3\n")
    assert "kernels: verified on" in kernel_status.describe(*tree)
    (tree[0] / "op" / "tune.py").write_text("C = 3\n")
    assert "changed since" in kernel_status.describe(*tree)


def test_a_broken_record_names_its_file(tree):
    (tree[1] / "gpu-x.json").write_text("{")
    with pytest.raises(ValueError, match=r"gpu-x\.json: not valid JSON"):
        kernel_status.describe(*tree)


def test_a_run_cut_short_leaves_what_has_passed(tmp_path):
    path = tmp_path / "tests.txt"
    lines = [
        {"collected": 4},
        {"test": "a", "outcome": "passed", "seconds": 1.0},
        {"test": "b", "outcome": "passed", "seconds": 1.0},
        {"test": "b", "outcome": "failed", "seconds": 0.1},  # in its teardown
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert journal.read(path) == {"passed": 1, "failed": ["b"], "skipped": 0, "not_run": 2}
    path.write_text("")
    assert journal.read(path) == {"passed": 0, "failed": [], "skipped": 0, "not_run": 0}


WHOLE = {"passed": 7, "failed": [], "skipped": 0, "not_run": 0}


@pytest.fixture
def run_of(monkeypatch):
    """Makes the gpu tests end at once with these counts, on a device of a name."""

    def pretend(**changes):
        tests = WHOLE | changes
        monkeypatch.setattr(kernel_status, "_run_tests", lambda *_: tests)
        monkeypatch.setattr(kernel_status, "_device", lambda _: "NVIDIA Test")
        return tests

    return pretend


@pytest.mark.parametrize("changes", [{}, {"not_run": 3}, {"skipped": 1}, {"failed": ["x"]}])
def test_only_a_complete_run_is_a_verification(changes, tmp_path, run_of):
    tests = run_of(**changes)
    if tests["failed"]:
        with pytest.raises(cli.UserError, match="failed: x"):
            kernel_status.record(tmp_path)
    else:
        kernel_status.record(tmp_path)
    assert json.loads((tmp_path / "gpu-nvidia-test.json").read_text())["tests"] == tests
    said = kernel_status.describe(results=tmp_path)
    verified = re.fullmatch(r"kernels: verified on NVIDIA Test on \d{4}-\d\d-\d\d", said)
    assert bool(verified) == (not changes)


def test_a_rehearsal_is_no_verification(tmp_path, run_of):
    run_of()
    path = kernel_status.record(tmp_path, rehearse=True)
    assert json.loads(path.read_text())["interpreted"]
    assert "never verified" in kernel_status.describe(results=tmp_path)


def test_kernels_that_change_during_the_tests_are_not_recorded(tmp_path, monkeypatch, run_of):
    run_of()
    hashes = iter("ab")
    monkeypatch.setattr(provenance, "sources_hash", lambda: next(hashes))
    with pytest.raises(cli.UserError, match=r"kernels/ changed during the tests"):
        kernel_status.record(tmp_path)
    assert not list(tmp_path.iterdir())


class Process:
    """Runs a file of tests: the first one hangs, the others pass one each."""

    started, ended = [], []

    def __init__(self, command, *, cwd, env):
        self.number, self.part = len(self.started), Path(env[journal.VARIABLE])
        self.started.append((command, env))
        entries = [{"collected": 1}]
        if self.number:
            entries.append({"test": command[-1], "outcome": "passed"})
        self.part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def wait(self, timeout=None):
        if self.number == 0 and self.number not in self.ended:
            assert timeout is not None, "would wait forever"
            raise subprocess.TimeoutExpired("pytest", timeout)

    def kill(self):
        self.ended.append(self.number)


def test_a_file_that_hangs_is_ended_and_the_others_count(monkeypatch):
    monkeypatch.setattr(Process, "started", [])
    monkeypatch.setattr(Process, "ended", [])
    monkeypatch.setattr(kernel_status.subprocess, "Popen", Process)
    found = kernel_status._run_tests(9.0, False)
    files = sorted((kernel_status.ROOT / "tests" / "kernels").glob("test_*.py"))
    assert found == {"passed": len(files) - 1, "failed": [], "skipped": 0, "not_run": 1}
    assert [command[-1] for command, _ in Process.started] == [str(path) for path in files]
    for command, env in Process.started:
        assert command[command.index("-m", 2) + 1] == "gpu", "only what needs a GPU"
        assert env["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        assert env.get("TRITON_INTERPRET") == os.environ.get("TRITON_INTERPRET")
    assert Process.ended == [0]


@pytest.mark.parametrize(("not_run", "status"), [(0, 0), (2, provenance.NOT_WHOLE)])
def test_a_run_cut_short_has_an_exit_status_of_its_own(not_run, status, tmp_path, run_of, capsys):
    run_of(not_run=not_run)
    with flagsaver.flagsaver(record=True, out=str(tmp_path)):
        flags.FLAGS.mark_as_parsed()
        assert kernel_status.main([]) == status
    assert f"wrote {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--rehearse", "--seconds=9", "--out=folder"])
def test_flags_of_a_record_are_refused_without_one(flag):
    run = own_process.run("-m", "benchmarks.kernel_status", flag)
    assert run.returncode != 0
    assert f"{flag.partition('=')[0]}: only with --record" in run.stderr


def test_no_test_is_no_record(tmp_path, run_of):
    run_of(passed=0)
    with pytest.raises(cli.UserError, match="no gpu test ran"):
        kernel_status.record(tmp_path)
    assert not list(tmp_path.iterdir())
