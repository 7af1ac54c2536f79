"""Checkpoints on a disk that takes no more, and on other devices than they came from."""

import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import demo
from instant_gs.training import checkpoint, parallel, state

# In a process of its own: a limit on the size of files stands for a full disk, and stays.
_PROGRAM = """
import resource, sys, time
import jax.numpy as jnp, numpy as np
from configs import demo
from instant_gs import cli
from instant_gs.training import checkpoint, state

def at(step):
    noise = {"a": jnp.asarray(np.random.default_rng(step).normal(size=100_000), jnp.float32)}
    return state.TrainState(jnp.int32(step), noise, noise, {}, jnp.int32(-1))

def main(argv):
    checkpointer = checkpoint.RunCheckpointer(argv[1])
    checkpointer.save(at(1), {}, demo.get_config("smoke"))
    checkpointer._manager.wait_until_finished()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    checkpointer.save(at(2), {}, demo.get_config("smoke"))
    while argv[2] == "training goes on":
        checkpointer.check()
        time.sleep(0.02)
    checkpointer.close()

cli.run(main, positional=True)
"""


@pytest.mark.parametrize("when", ["training goes on", "training ends"])
def test_a_full_disk_is_one_clear_line_and_leaves_the_whole_checkpoint(tmp_path, when):
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "run"), when],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert run.returncode == 1 and len(lines) == 1, f"exit {run.returncode}: {run.stderr}"
    (line,) = lines
    assert f"--workdir={tmp_path / 'run'}: a checkpoint could not be written: File too" in line
    assert "step 1 is whole" in line and "resume" in line
    assert "orbax" not in run.stderr.replace(".orbax-checkpoint", "")
    assert "Traceback" not in run.stderr, "whichever thread met it"
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[0] == "1" and "2" not in names


def test_other_threads_are_quiet_about_a_failed_write_only(tmp_path, monkeypatch, caplog):
    class Spoilt:
        def __init__(self, message):
            self.message = message

        def __del__(self):
            raise RuntimeError(self.message)

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: shown.append(str(what.exc_value)))
    for folder in "ab":  # the second one adds nothing
        checkpoint.RunCheckpointer(tmp_path / folder).close()
    for message in ("Event loop is closed", "something else"):
        Spoilt(message)
    assert shown == ["something else"]

    for path in ("/packages/orbax/write.py", "/packages/other.py"):
        try:
            exec(compile("1 / 0", path, "exec"))
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("from %s", path)
    assert [record.getMessage() for record in caplog.records] == ["from /packages/other.py"]


@pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 virtual CPU devices")
@pytest.mark.parametrize("shards", [1, 4])
def test_a_run_on_four_devices_is_read_on_one(tmp_path, shards):
    mesh = parallel.make_mesh(4, jax.devices()[:4], shards=shards)
    arrays = {"a": jnp.arange(2.0**15).reshape(128, 256), "b": jnp.ones(3)}
    whole = state.TrainState(jnp.int32(1), arrays, arrays, {}, jnp.int32(-1))
    placed = parallel.place(whole, mesh)
    assert placed.ema["a"].addressable_data(0).size == 2**15 // shards
    checkpointer = checkpoint.RunCheckpointer(tmp_path / "run")
    checkpointer.save(placed, {}, demo.get_config("smoke"))
    checkpointer.close()
    program = """
import sys
import jax
from instant_gs.training import weights
_, params, _ = weights.load(sys.argv[1])
print(jax.device_count(), params["a"].sharding.num_devices, float(params["a"].sum()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["1", "1", str(float(arrays["a"].sum()))]
