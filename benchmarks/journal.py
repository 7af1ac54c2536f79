"""A pytest plugin: each test's result is a line of JSON in a file as soon as it is known.

    TEST_JOURNAL=results.jsonl python -m pytest -p benchmarks.journal ...

A run that is cut short leaves what it has done; the first line tells how many tests there were.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

VARIABLE = "TEST_JOURNAL"


# A machine that is only visited may lack pytest-timeout, whose option and mark are in use here.
_HAS_TIMEOUT = importlib.util.find_spec("pytest_timeout") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    if not _HAS_TIMEOUT:
        parser.addini("timeout", "not heeded: pytest-timeout is not installed")


def pytest_configure(config: pytest.Config) -> None:
    if not _HAS_TIMEOUT:
        config.addinivalue_line("markers", "timeout(seconds): not heeded")


def _append(entry: dict) -> None:
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    _append({"collected": len(session.items)})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":  # also what fails around the test
        _append({"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration})


def read(path: Path) -> dict:
    """What a journal says: `passed`, `failed` (names), `skipped` and `not_run`.

    A journal whose tests were never collected says that nothing ran.
    """
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    collected = sum(entry.get("collected", 0) for entry in entries)
    outcomes: dict[str, str] = {}
    for entry in entries:
        if "test" in entry and outcomes.get(entry["test"]) != "failed":
            outcomes[entry["test"]] = entry["outcome"]
    values = list(outcomes.values())
    return {
        "passed": values.count("passed"),
        "failed": sorted(test for test, outcome in outcomes.items() if outcome == "failed"),
        "skipped": values.count("skipped"),
        "not_run": collected - len(outcomes),
    }
