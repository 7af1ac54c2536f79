"""Checkpoints on a disk that takes no more, and on other devices than they came from."""

import logging
import pathlib
import sys

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from configs import demo
from instant_gs.training import checkpoint, failed_write, parallel, state
from tests import own_process

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
    run = own_process.run("-c", _PROGRAM, tmp_path / "run", when)
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert run.returncode == 1 and len(lines) == 1, f"exit {run.returncode}: {run.stderr}"
    (line,) = lines
    assert f"--workdir={tmp_path / 'run'}: a checkpoint could not be written: File too" in line
    assert "step 1 is whole" in line and "resume" in line
    assert "orbax" not in run.stderr.replace(".orbax-checkpoint", "")
    assert "Traceback" not in run.stderr, "whichever thread met it"
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[0] == "1" and "2" not in names


_WEIGHTS = """
import resource, sys
import numpy as np
from configs import demo
from instant_gs import cli
from instant_gs.training import weights

def main(argv):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    noise = np.random.default_rng(0).normal(size=(3, 100_000)).astype("f4")
    weights.save(argv[1], demo.get_config("smoke"), {"x": dict(zip("abc", noise))}, {})

cli.run(main, positional=True)
"""


def test_weights_on_a_full_disk_are_one_line_and_leave_nothing(tmp_path):
    run = own_process.run("-c", _WEIGHTS, tmp_path / "weights")
    said = f"error: {tmp_path}/weights: weights could not be written: File too large; make room or"
    assert run.returncode == 1 and run.stderr.startswith(said), run.stderr
    assert run.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_other_threads_are_quiet_about_a_failed_write_only(monkeypatch, caplog):
    class Spoilt:
        def __init__(self, message):
            self.message = message

        def __del__(self):
            raise RuntimeError(self.message)

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: shown.append(str(what.exc_value)))
    for _ in range(2):  # the second one adds nothing
        failed_write.quieten()
    for message in ("Event loop is closed", "something else"):
        Spoilt(message)
    assert shown == ["something else"]

    orbax = pathlib.Path(ocp.__file__).parent / "write.py"
    for path in (str(orbax), "/home/orbax/mine.py"):
        for logger in ("asyncio", "absl"):
            try:
                exec(compile("1 / 0", path, "exec"))
            except ZeroDivisionError:
                logging.getLogger(logger).exception("%s of %s", logger, path)
    # What a user logs of an error from Orbax is shown; only Orbax's own pages are not.
    assert [record.getMessage() for record in caplog.records] == [
        f"absl of {orbax}",
        "asyncio of /home/orbax/mine.py",
        "absl of /home/orbax/mine.py",
    ]


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
    said = own_process.python(program, tmp_path / "run", XLA_FLAGS="")
    assert said.split() == ["1", "1", str(float(arrays["a"].sum()))]
