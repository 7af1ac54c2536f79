"""The profiler sees the steps of its window and no others."""

import gzip
import json

import jax
import pytest

from instant_gs.training import profile


def recorded(folder) -> list[list[int]]:
    """Step numbers of each trace below a folder."""
    files = sorted(folder.rglob("*.json.gz"))
    traces = [json.loads(gzip.decompress(path.read_bytes())) for path in files]
    return [
        [int(e["args"]["step_num"]) for e in trace["traceEvents"] if e.get("name") == "step"]
        for trace in traces
    ]


@pytest.mark.parametrize(
    ("steps", "numbers", "expected"),
    [
        ((2, 3), range(1, 6), [[2, 3]]),
        ((2, 9), range(4, 6), [[4, 5]]),  # a run that resumes and ends within its window
        ((2, 3), range(4, 6), []),
        (None, range(1, 6), []),
    ],
)
def test_the_window_holds_its_steps(tmp_path, steps, numbers, expected):
    window, result = profile.Window(tmp_path, steps), None
    assert window.misses(numbers[0], numbers[-1]) == (steps is not None and not expected)
    for number in numbers:
        window.before(number)
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            result = jax.device_put(number)
        if window.ends(number):
            jax.block_until_ready(result)
            window.close()
    window.close()
    assert recorded(tmp_path) == expected
