"""The binding: Triton kernels inside JAX programs, and what it says where they cannot run."""

import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import device, triton_call, triton_compile, triton_interpreter
from tests import own_process
from tests.kernels import triton_scene as ts

pytestmark = ts.NEEDS_TRITON


@pytest.fixture(scope="module")
def toy():
    return importlib.import_module("tests.kernels.triton_toy")


def _scale(toy, x, factor=2.0, **settings):
    (out,) = triton_call.triton_call(
        toy.scale_kernel,
        x,
        outputs=(jax.ShapeDtypeStruct(x.shape, x.dtype),),
        grid=(triton_call_blocks(x.size),),
        scalars={"count": x.size, "factor": factor},
        constants={"BLOCK": 8},
        **settings,
    )
    return out


def triton_call_blocks(size: int) -> int:
    return -(-size // 8)


def test_runs_eagerly_under_jit_and_with_jit_disabled(toy):
    x = jnp.arange(21, dtype=jnp.float32)
    assert np.array_equal(_scale(toy, x), 2 * x)
    scale = jax.jit(lambda x: _scale(toy, x + 1))
    assert np.array_equal(scale(x), 2 * (x + 1))
    with jax.disable_jit():
        assert np.array_equal(scale(x), 2 * (x + 1))


def test_scan_gives_the_weights_of_blending(toy):
    """What a GPU runs, and what the interpreter runs in its place."""
    alpha = np.random.default_rng(0).uniform(0, 0.99, (16, 4)).astype(np.float32)
    (out,) = triton_call.triton_call(
        toy.weights_kernel,
        jnp.asarray(alpha),
        outputs=(jax.ShapeDtypeStruct((4, *alpha.shape), jnp.float32),),
        grid=(1,),
        constants={"ROWS": 16, "COLUMNS": 4},
    )
    after = np.cumprod(1 - alpha.astype(np.float64), axis=0)
    before = np.concatenate([np.ones((1, 4)), after[:-1]])
    for got, expected in zip(out, (after, before * alpha) * 2, strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-6)


def test_an_output_can_begin_as_an_operand(toy):
    def count(x, before):
        return triton_call.triton_call(
            toy.count_kernel,
            x,
            before,
            outputs=(jax.ShapeDtypeStruct((1,), jnp.int32),),
            grid=(triton_call_blocks(x.size),),
            scalars={"count": x.size},
            constants={"BLOCK": 8},
            aliases=((1, 0),),
        )[0]

    x = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)
    before, positive = jnp.full(1, 5, jnp.int32), int((x > 0).sum())
    for run in (count, jax.jit(count)):
        assert int(run(x, before)[0]) == 5 + positive
        assert int(before[0]) == 5, "what a caller holds stays as it was"
    with pytest.raises(TypeError, match=r"output 0 cannot begin as int32\(2,\)"):
        count(x, jnp.zeros(2, jnp.int32))


def test_an_empty_grid_launches_nothing(toy):
    assert _scale(toy, jnp.zeros(0, jnp.float32)).shape == (0,)


def test_arguments_that_do_not_fit_are_named(toy):
    x = jnp.zeros(8, jnp.float32)
    with pytest.raises(TypeError, match="no kernel takes arrays of type bool"):
        _scale(toy, x > 0)
    launch = triton_compile.Launch(kernel=toy.scale_kernel, grid=(1, 1, 1))
    with pytest.raises(TypeError, match="takes 5 arguments, the call gives 2"):
        triton_compile._signature(launch, [np.float32, np.float32])
    launch = triton_compile.Launch(
        kernel=toy.scale_kernel,
        grid=(1, 1, 1),
        scalars=(("factor", 1.0), ("count", 1)),
        constants=(("BLOCK", 8),),
    )
    with pytest.raises(TypeError, match="expected scalar 'count' here, got 'factor'"):
        triton_compile._signature(launch, [np.float32, np.float32])


def test_without_triton_the_message_says_what_to_install(toy, monkeypatch):
    monkeypatch.setattr(triton_compile, "has_triton", lambda: False)
    with pytest.raises(NotImplementedError, match="pip install"):
        _scale(toy, jnp.zeros(8, jnp.float32))


def test_without_triton_the_public_call_says_what_to_install():
    code = """
import sys
sys.modules["triton"] = None
import jax.numpy as jnp, kernels
shapes = (1, 3), (1, 4), (1, 3), (1,), (1, 3), (1, 4, 4), (1, 3, 3)
arrays = [jnp.ones(shape) for shape in shapes]
try:
    kernels.rasterize(*arrays, image_size=(8, 8), implementation="triton")
except NotImplementedError as error:
    print(error)
print(kernels.rasterize(*arrays, image_size=(8, 8)).image.shape)
"""
    message, shape = own_process.python(code).splitlines()[-2:]
    assert "triton is not installed; run `pip install" in message and shape == "(1, 8, 8, 3)"


def test_without_the_plugin_the_message_says_what_to_install(monkeypatch):
    from jax._src.lib import gpu_triton

    triton_call._load_binding.cache_clear()
    if hasattr(gpu_triton, "TritonKernelCall"):
        monkeypatch.delattr(gpu_triton, "TritonKernelCall")
    with pytest.raises(NotImplementedError, match="jax-cuda13-plugin=="):
        triton_call._load_binding()


@pytest.mark.skipif(ts.HAS_GPU, reason="there is a GPU: the call runs")
def test_on_a_plain_cpu_the_message_names_the_interpreter(toy, monkeypatch):
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "0")
    with pytest.raises(NotImplementedError, match="TRITON_INTERPRET=1"):
        jax.jit(lambda x: _scale(toy, x, factor=5.0)).lower(jnp.zeros(8, jnp.float32))


@pytest.mark.skipif(ts.HAS_GPU, reason="there is a GPU: nothing is interpreted")
def test_an_interpreting_process_compiles_nothing(toy):
    launch = triton_compile.Launch(kernel=toy.scale_kernel, grid=(1, 1, 1))
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        triton_compile.compile_kernel(launch, [np.float32], 90)


def test_capability_variable_is_checked(monkeypatch):
    if ts.HAS_GPU:
        pytest.skip("the GPU's own capability counts")
    monkeypatch.setenv(triton_call.CAPABILITY_VARIABLE, "80")
    assert triton_call.cuda_capability() == 80
    monkeypatch.setenv(triton_call.CAPABILITY_VARIABLE, "hopper")
    with pytest.raises(ValueError, match=triton_call.CAPABILITY_VARIABLE):
        triton_call.cuda_capability()


@pytest.mark.skipif(ts.HAS_GPU, reason="the GPU's own capability counts")
def test_a_gpu_that_kernels_do_not_know_is_refused_through_the_public_call(monkeypatch):
    monkeypatch.setenv(triton_call.CAPABILITY_VARIABLE, "130")
    with pytest.raises(
        NotImplementedError, match=r"compute capability 130, only for \[75, .*'xla'"
    ):
        ts.render(ts.make_scene(), size=(8, 16))
    monkeypatch.setattr(device, "is_nvidia", lambda: True)
    assert ts.render(ts.make_scene(), None, size=(8, 16)).image.shape == (1, 8, 16, 3)


@pytest.mark.skipif(ts.HAS_GPU, reason="there is a GPU: compute-sanitizer looks for this")
def test_the_guards_notice_a_write_outside(toy, monkeypatch):
    monkeypatch.setattr(triton_interpreter, "HostTensor", ts.GuardedTensor)
    x = jnp.ones(8, jnp.float32)
    with pytest.raises(Exception, match="a kernel wrote outside an array"):
        jax.block_until_ready(
            triton_call.triton_call(
                toy.scale_kernel,
                x,
                outputs=(jax.ShapeDtypeStruct(x.shape, x.dtype),),
                grid=(2,),
                scalars={"count": 16, "factor": 2.0},  # twice what there is
                constants={"BLOCK": 8},
            )
        )
