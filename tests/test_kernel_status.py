"""The line that says whether today's kernels were verified on a GPU tells the truth."""

import json

import pytest

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


@pytest.mark.parametrize("changes", [{}, {"not_run": 3}, {"skipped": 1}, {"failed": ["x"]}])
def test_only_a_complete_run_is_a_verification(changes, tmp_path, monkeypatch):
    tests = {"passed": 7, "failed": [], "skipped": 0, "not_run": 0} | changes
    monkeypatch.setattr(kernel_status, "_run_tests", lambda *_: tests)
    monkeypatch.setattr(kernel_status, "_device", lambda _: "NVIDIA Test")
    if tests["failed"]:
        with pytest.raises(cli.UserError, match="failed: x"):
            kernel_status.record(tmp_path)
    else:
        kernel_status.record(tmp_path)
    assert json.loads((tmp_path / "gpu-nvidia-test.json").read_text())["tests"] == tests
    verified = kernel_status.describe(results=tmp_path).startswith("kernels: verified")
    assert verified == (not changes)


@pytest.mark.parametrize("flag", ["--rehearse", "--seconds=9", "--out=folder"])
def test_flags_of_a_record_are_refused_without_one(flag):
    run = own_process.run("-m", "benchmarks.kernel_status", flag)
    assert run.returncode != 0
    assert f"{flag.partition('=')[0]}: only with --record" in run.stderr


def test_no_test_is_no_record(tmp_path, monkeypatch):
    tests = {"passed": 0, "failed": [], "skipped": 0, "not_run": 0}
    monkeypatch.setattr(kernel_status, "_run_tests", lambda *_: tests)
    monkeypatch.setattr(kernel_status, "_device", lambda _: "NVIDIA Test")
    with pytest.raises(cli.UserError, match="no gpu test ran"):
        kernel_status.record(tmp_path)
    assert not list(tmp_path.iterdir())
