"""Which launch parameters a call gets: by GPU, number of channels and tile size."""

import dataclasses
import json

import pytest

from kernels import RasterizeOptions, triton_call
from kernels.types import RasterizeConfig
from tests.kernels import triton_scene as ts

pytestmark = ts.NEEDS_TRITON


@pytest.fixture
def table(monkeypatch):
    """Two GPUs, whose entries tell themselves by their registers."""
    from kernels.rasterize import triton_config  # after triton_scene has chosen the interpreter

    plain = dataclasses.asdict(triton_config.KernelConfig(measured=True))
    entries = {
        f"sm_{capability}": {
            name: {**plain, "forward_registers": capability + int(name)} for name in ("4", "64")
        }
        for capability in (80, 90)
    }
    entries = json.loads(json.dumps(entries))
    monkeypatch.setattr(triton_config, "_read_table", lambda: {"entries": entries})
    return triton_config


@pytest.mark.parametrize(
    ("capability", "entry", "measured"),
    [(75, 80, False), (80, 80, True), (86, 80, False), (90, 90, True), (120, 90, False)],
)
def test_a_gpu_takes_its_own_entry_or_that_of_the_nearest_older_one(
    capability, entry, measured, table
):
    found = table.lookup(capability, 3)
    assert (found.forward_registers, found.measured) == (entry + 4, measured)
    assert found.tile == (8, 8), "hashable"


def test_classes_count_the_depth_as_a_channel(table):
    classes = {channels: table.lookup(90, channels).forward_registers - 90 for channels in range(9)}
    assert classes == {0: 4, 1: 4, 2: 4, 3: 4, 4: 64, 5: 64, 6: 64, 7: 64, 8: 64}
    assert table.lookup(90, 200).forward_registers == 90 + 64


@pytest.mark.parametrize(
    ("tile", "forward", "backward"),
    [((4, 4), 1, 1), ((8, 16), 2, 4), ((16, 16), 4, 8), ((32, 32), 8, 8)],
)
def test_warps_follow_the_tile_asked_for(tile, forward, backward, table, monkeypatch):
    monkeypatch.setattr(triton_call, "cuda_capability", lambda: 90)
    config = RasterizeConfig(RasterizeOptions(tile_size=tile), 64, 64, 1024)
    chosen = table.choose(config, 3)
    assert (chosen.tile, chosen.forward_warps, chosen.backward_warps) == (tile, forward, backward)
    mine = table.KernelConfig(forward_chunk=32)
    with table.override(mine):
        assert table.choose(config, 3) == mine
    assert table.choose(config, 3) == chosen
