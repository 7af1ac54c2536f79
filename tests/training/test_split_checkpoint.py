"""A checkpoint that two hosts wrote in parts: what one of them finds broken, both leave behind."""

import json

import pytest

from tests.training import hosts

# In processes of their own, one device each. Every odd array is split between the two.
_PROGRAM = """
import json, logging, pathlib, sys, zlib
import jax
import numpy as np
address, index, folder = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
from configs import demo
from instant_gs.training import checkpoint, parallel, state
mesh = parallel.make_mesh(2, shards=2)
numbers = np.arange(2 * parallel.MIN_SHARDED_SIZE, dtype=np.float32)

def at(step):
    tree = {"even": numbers[:4] * step, "odd": numbers * step}
    tree = parallel.place(tree, mesh)
    one = parallel.place(np.int32(step), mesh)
    return state.TrainState(one, tree, tree, {"m": tree}, one)

checkpointer = checkpoint.RunCheckpointer(folder)
for step in (1, 2, 3):
    checkpointer.save(at(step), {"next": step}, demo.get_config("smoke"))
checkpointer.close()
checkpoints = pathlib.Path(folder) / "checkpoints"
if index == "0":
    path = checkpoints / "3" / "checksum" / "metadata"
    sums = json.loads(path.read_text())
    print(json.dumps(sums["ema"]), zlib.crc32(numbers[len(numbers) // 2 :] * 3))
    place = max(sums["ema"]["['odd']"])  # the other process holds it
    sums["ema"]["['odd']"][place] ^= 1
    path.write_text(json.dumps(sums))
    for path in (checkpoints / "2").rglob("ocdbt.process_1/d/*"):
        path.unlink()  # this process can read all of its own
jax.experimental.multihost_utils.sync_global_devices("damaged")
checkpointer = checkpoint.RunCheckpointer(folder)
restored, data, _ = checkpointer.restore(at(0))
np.testing.assert_array_equal(
    restored.ema["odd"].addressable_data(0), at(1).ema["odd"].addressable_data(0)
)
assert int(restored.step) == 1 and data == {"next": 1}
checkpointer.save(at(2), {"next": 2}, demo.get_config("smoke"))
checkpointer.close()
"""


@pytest.mark.slow
def test_hosts_fall_back_together(tmp_path):
    address = hosts.free_address()
    runs = [hosts.start("-c", _PROGRAM, address, index, tmp_path) for index in range(2)]
    outputs = hosts.outputs(runs)
    assert [run.returncode for run in runs] == [0, 0], outputs
    (line,) = [line for line in outputs[0].splitlines() if line.startswith("{")]
    sums, second_half = line.rsplit(" ", 1)
    sums = json.loads(sums)
    assert isinstance(sums["['even']"], int) and len(sums["['odd']"]) == 2
    assert int(second_half) in sums["['odd']"].values()
    assert "checkpoint 3" in outputs[1] and "1 parts changed after writing" in outputs[1]
    assert "checkpoint 2" in outputs[1]
    assert "another host cannot read its part" in outputs[0]
    kept = sorted(path.name.split("-")[0] for path in (tmp_path / "broken_checkpoints").iterdir())
    assert kept == ["2", "3"] and (tmp_path / "checkpoints" / "2").is_dir()
