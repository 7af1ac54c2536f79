"""Programs compile for accelerators that are not here, with XLA's own compilers for them."""

import importlib.util
import json

import pytest

from benchmarks import described, planned_memory
from instant_gs import cli
from tests import own_process


def test_what_cannot_be_described_is_named(monkeypatch):
    with pytest.raises(cli.UserError, match=r"'v9'.*h100, v5e, v5p, v6e"):
        described.devices("v9", 8)
    with pytest.raises(cli.UserError, match="9 chips: at most 8 v5p chips"):
        described.devices("v5p", 9)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cli.UserError, match="pip install --no-deps --target=FOLDER libtpu"):
        described.devices("v5p", 8)


def test_a_program_that_is_too_large_is_an_error_of_one_line():
    import jax

    class TooLarge:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 20.53G of 15.75G hbm. Exceeded hbm capacity by 4.78G.\n\nmore"
            )

    with pytest.raises(cli.UserError, match=r"does not fit .* 20.53G of 15.75G .* 4.78G\.$"):
        planned_memory.plan(TooLarge())


def test_collectives_are_counted():
    text = """
  %a = f32[4]{0} all-reduce(%x), to_apply=%add
  %b = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), dimensions={0}
  %c = f32[8]{0} all-gather-done(%b)
  %d = f32[4]{0} collective-permute(%a), source_target_pairs={{0,1}}
"""
    assert planned_memory.collectives(text) == {
        "all-reduce": 1,
        "all-gather": 1,
        "collective-permute": 1,
    }


_RASTERIZE = """
import jax, json
import jax.numpy as jnp
import kernels
from benchmarks import described, planned_memory

mesh = jax.sharding.Mesh(described.devices("v5e", 1), ("data",))
place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
shapes = (64, 3), (64, 4), (64, 3), (64,), (64, 3), (1, 4, 4), (1, 3, 3)
arrays = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]
options = kernels.RasterizeOptions(capacity=512, on_overflow="count")

def loss(*arrays):
    return jnp.sum(kernels.rasterize(*arrays, image_size=(16, 16), options=options).image ** 2)

step = jax.jit(jax.grad(loss, argnums=tuple(range(7))))
print(json.dumps(planned_memory.plan(step.trace(*arrays).lower(lowering_platforms=("tpu",)))))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs XLA's compiler for TPUs, 500 MB: benchmarks/described.py",
)
def test_the_rasterizer_and_its_gradient_compile_for_a_tpu():
    planned = json.loads(own_process.python(_RASTERIZE).splitlines()[-1])
    assert planned["collectives"] == {}
    # Kilobytes of numbers; sorting needs room, and rows are padded to 128 lanes.
    assert 0 < planned["bytes"] < 50e6
