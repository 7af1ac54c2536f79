"""Two processes train what one trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from instant_gs import average, cli
from instant_gs.training import distributed, weights
from tests import own_process
from tests.training import hosts

ROOT = Path(__file__).parents[2]
STEPS, MOTION_STEPS = 20, 14


def _start(workdir, pack, cache, devices, *options):
    """A training command on that many virtual devices."""
    flags = {
        "config": "configs/demo.py:smoke",
        "workdir": workdir,
        "compilation_cache": cache,
        "config.data.packs": f'("{pack}",)',
        "config.loss.lpips": 0.0,
        "config.motion_pretrain.steps": MOTION_STEPS,
        "config.train.steps": STEPS - MOTION_STEPS,
        "config.train.image_every": STEPS,
        "config.train.checkpoint_every": STEPS,
        "config.train.shard_parameters": 2,
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    return hosts.start("train.py", *words, *options, devices=devices)


def _losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = (line.get("motion/loss", line.get("avatar/loss")) for line in lines)
    return [loss for loss in losses if loss is not None]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(pack, tmp_path):
    several = f"--coordinator={hosts.free_address()}", "--num_processes=2"
    runs = [
        _start(tmp_path / "two", pack, tmp_path / "cache", 2, *several, f"--process_id={index}")
        for index in range(2)
    ]
    outputs = hosts.outputs(runs)
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    one = _start(tmp_path / "one", pack, tmp_path / "cache", 4)
    (output,) = hosts.outputs([one])
    assert one.returncode == 0, output
    expected = _losses(tmp_path / "one")
    assert len(expected) == STEPS
    np.testing.assert_allclose(_losses(tmp_path / "two"), expected, rtol=1e-5)
    assert f"avatar {STEPS}/{STEPS}" in outputs[0] and "avatar" not in outputs[1]
    names = {path.name for path in (tmp_path / "two" / "samples").iterdir()}
    assert f"validation_{STEPS:07d}.png" in names
    # What two processes wrote in parts, one reads.
    again = _start(tmp_path / "two", pack, tmp_path / "cache", 4)
    (output,) = hosts.outputs([again])
    assert again.returncode == 0 and f"at step {STEPS}" in output, output
    average.average([str(tmp_path / "two")], tmp_path / "out")
    assert weights.load(tmp_path / "out")[2]["step"] == STEPS


def test_without_flags_one_process_stays_alone(monkeypatch):
    met = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: met.append(given))
    distributed.start(False)
    assert not met
    distributed.start(True)
    assert met == [(None, None, None)]


def test_lines_are_said_by_one_process(monkeypatch, capsys):
    for index in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        distributed.say(f"from {index}")
    assert capsys.readouterr().out == "from 0\n"
    said = (ROOT / "train.py", ROOT / "instant_gs/training/loop.py")
    assert not [path for path in said if "print(" in path.read_text()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((False, "host:1", None, None), "--num_processes, --process_id: expected with"),
        ((False, "host", 2, 0), "--coordinator=host: expected host:port"),
        ((False, "host:1", 2, 2), "--process_id=2: expected 0 to 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(cli.UserError, match=message):
        distributed.start(*arguments)


def test_a_machine_that_is_no_cluster_says_what_to_give(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "TPU_")):
            monkeypatch.delenv(name)
    code = "from instant_gs.training import distributed; distributed.start(True)"
    run = own_process.run("-c", code)
    assert "give --coordinator, --num_processes and --process_id" in run.stderr, run.stderr


_DIVERGED = """
import sys
import jax, numpy as np
from jax import sharding
from instant_gs import cli, config
from instant_gs.training import checkpoint, distributed, state
index = int(sys.argv[2])
distributed.start(False, sys.argv[1], 2, index)
assert distributed.first_hosts(f"from {index}") == "from 0"
assert distributed.differing({"same": [1, "a"], "index": index, "too": None}) == ["index"]
everywhere = sharding.NamedSharding(jax.make_mesh((2,), "x"), sharding.PartitionSpec())
def whole(value):  # one array, of which each host believes that its copy is everybody's
    own = jax.device_put(np.int32(value), jax.local_devices()[0])
    return jax.make_array_from_single_device_arrays((), everywhere, [own])
checkpointer = checkpoint.RunCheckpointer(sys.argv[3])
try:
    for step, value in (1, 7), (2, index):
        ema = {"a": whole(value)}
        made = state.TrainState(whole(step), {}, ema, {}, whole(-1))
        checkpointer.save(made, {}, config.Config())
except cli.UserError as error:
    print("refused:", error)
checkpointer.close()
print("kept", checkpointer.latest_step())
"""


@pytest.mark.slow
def test_hosts_that_hold_different_numbers_save_nothing(tmp_path):
    """Their checkpoint would be a mixture that nobody can read."""
    address = hosts.free_address()
    runs = [hosts.start("-c", _DIVERGED, address, index, tmp_path / "run") for index in range(2)]
    outputs = hosts.outputs(runs)
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    for output in outputs:
        assert "hold different numbers at step 2 (ema), so that nothing was saved" in output
        assert "kept 1" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config.optimizer.learning_rate=0.1", "hosts differ in optimizer.learning_rate ("),
        ("--workdir=elsewhere", "expected one folder that all hosts see"),
    ],
)
def test_hosts_that_were_told_different_things_are_refused(pack, tmp_path, option, message):
    option = option.replace("elsewhere", str(tmp_path / "elsewhere"))
    several = f"--coordinator={hosts.free_address()}", "--num_processes=2"
    runs = [
        _start(tmp_path / "run", pack, tmp_path / "cache", 2, *several, *own)
        for own in (["--process_id=0"], ["--process_id=1", option])
    ]
    outputs = hosts.outputs(runs)
    assert [run.returncode for run in runs] == [1, 1], "\n".join(outputs)
    for output in outputs:
        assert message in output, output
    assert not (tmp_path / "run").exists() and not (tmp_path / "elsewhere").exists()


def test_nobody_need_read_what_training_says():
    code = "import sys; from instant_gs.training import distributed as d\n"
    code += "for i in range(3): d.say(f'line {i}')\nsys.stderr.write('trained on')"
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run.stdout.close()  # before the first line
    assert run.stderr.read().decode().endswith("trained on") and run.wait() == 0
    run.stderr.close()


def test_a_failure_on_one_host_stops_all(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    gather, told = distributed.multihost_utils, []
    monkeypatch.setattr(gather, "process_allgather", lambda own: told.append(own) or failed)
    failed = np.array([False, True])
    with pytest.raises(cli.UserError, match="host 1 cannot go on"), distributed.together():
        pass
    with pytest.raises(OSError, match="mine"), distributed.together():  # its own, where it failed
        raise OSError("mine")
    failed = np.array([False, False])
    with distributed.together():
        pass
    assert [bool(own) for own in told] == [False, True, False]
