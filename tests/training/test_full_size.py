"""The full-size step lowers for accelerators that are not here, spread over eight of them."""

import re

import pytest

from tests import own_process

# In a process of its own: eight devices.
_PROGRAM = """
import sys
from kernels import device
name, platform = sys.argv[1:]
if platform == "cuda":
    device.is_nvidia = lambda: True
import importlib
from instant_gs import models
from instant_gs.training import abstract, curriculum, parallel, step
config = importlib.import_module(f"configs.{name}").get_config()
mesh, model = parallel.mesh_of(config), models.build(config.model)
arguments = abstract.train_state(model, config, mesh), abstract.batch(config, mesh)
phase = curriculum.phases(config)[-1]  # 512 pixels, all losses
traced = step.make(model, config, phase, mesh).trace(*arguments)
text = traced.lower(lowering_platforms=(platform,)).as_text()
print(mesh.size, text.count("triton_kernel_call_ffi"), text.count("callback"))
print(len(text), "bf16" in text, "x512x512x3x" in text)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "platform"), [("gpu_8x", "cuda"), ("tpu", "tpu")])
def test_the_full_size_step_lowers(name, platform):
    if platform == "cuda":
        pytest.importorskip("triton", reason="the GPU kernels are Triton's")
        pytest.importorskip("jax_cuda13_plugin", reason="pip install --no-deps jax-cuda13-plugin")
    eight = "--xla_force_host_platform_device_count=8"
    said = own_process.python(_PROGRAM, name, platform, XLA_FLAGS=eight)
    counts, facts = said.splitlines()[-2:]
    devices, kernels, callbacks = map(int, counts.split())
    assert (devices, callbacks) == (8, 0)
    assert kernels == (12 if platform == "cuda" else 0), "one launch of each kernel"
    assert re.fullmatch(r"\d{5,} True True", facts), facts
