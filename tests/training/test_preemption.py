"""SIGTERM to one of two hosts stops both after the same step."""

import signal
import socket
import subprocess
import sys

import pytest

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


def _free_address() -> str:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return f"localhost:{one.getsockname()[1]}"


@pytest.mark.slow
def test_all_hosts_stop_after_the_same_step():
    address = _free_address()
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, address, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    try:
        assert [host.stdout.readline() for host in hosts] == ["training\n"] * 2
        hosts[1].send_signal(signal.SIGTERM)
        ends = [host.communicate(timeout=120)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert ends[0] == ends[1] and ends[0].startswith("SIGTERM after ")
