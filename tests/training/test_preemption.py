"""SIGTERM to one of two hosts stops both after the same step."""

import signal
import subprocess

import pytest

from tests.training import hosts

_PROGRAM = """
import sys, time
import jax
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from instant_gs.training import preemption
with preemption.StopRequest() as stop:
    for step in range(3000):
        time.sleep(0.02)
        if step == 3:
            print("training", flush=True)
        request = stop.after(step)
        if request:
            print(f"{request} after {step}", flush=True)
            break
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_all_hosts_stop_after_the_same_step():
    address = hosts.free_address()
    runs = [
        hosts.start("-c", _PROGRAM, address, index, stderr=subprocess.DEVNULL) for index in range(2)
    ]
    began = [run.stdout.readline() for run in runs]
    runs[1].send_signal(signal.SIGTERM)
    ends = hosts.outputs(runs)
    assert began == ["training\n"] * 2
    assert ends[0] == ends[1] and ends[0].startswith("SIGTERM after ")
