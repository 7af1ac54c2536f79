"""What a training step needs on eight GPUs that are not here: XLA compiles it for them on a CPU.

    pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt   # the version of jax; no CUDA needed
    python -m benchmarks.step_memory --config=configs/gpu_8x.py

The last phase's step (all losses, full size) is compiled ahead of time for NVIDIA H100s. Prints a
JSON line; bytes are a device's, as XLA's memory analysis plans them. Not in it: what cuDNN, NCCL
and the CUDA context take, and workspaces that are found by trying on a GPU. Matrix products are
given to cuBLAS and sorts to XLA's own code, because choosing otherwise needs a GPU.
"""

import json
import os

from absl import flags
from ml_collections import config_flags

from benchmarks import provenance
from instant_gs import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(arg).")
_DEVICES = flags.DEFINE_integer("devices", 8, "How many GPUs of one host.", lower_bound=1)

# An H100 SXM in the words of XLA's GpuTargetConfigProto.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84978434048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def measure(config, count: int) -> dict:
    """Compiles the last phase's step for that many H100s.

    Returns:
        JSON-able: ``bytes`` a device in all, of which ``arguments`` and ``temporary``.
    """
    from jax.experimental import topologies

    from instant_gs import models
    from instant_gs.training import abstract, curriculum, dry_run, parallel, step
    from kernels import device

    device.is_nvidia = lambda: True  # the kernels for it, though it is not here
    shape = f"1x1x{count}"
    topology = topologies.get_topology_desc(
        shape, platform="cuda", target_config=_H100, topology=shape
    )
    mesh = parallel.mesh_of(config, topology.devices)
    model = models.build(config.model)
    arguments = abstract.train_state(model, config, mesh), abstract.batch(config, mesh)
    phase = curriculum.phases(config)[-1]
    traced = step.make(model, config, phase, mesh).trace(*arguments)
    compiled = traced.lower(lowering_platforms=("cuda",)).compile()
    total, fixed, temporary = dry_run.memory(compiled)
    return {
        "config": config.name,
        "dtype": config.model.dtype,
        "remat": config.model.encoder.remat,
        "phase": [phase.image_size, *phase.judges],
        "devices": count,
        "samples_a_device": config.data.batch_size // count,
        "bytes": total,
        "arguments": fixed,
        "temporary": temporary,
    }


def main(argv: list[str]) -> None:
    del argv
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there are no CUDA libraries to check
    os.environ["XLA_FLAGS"] = "--xla_gpu_enable_triton_gemm=false"  # its tiles are found by trying
    config = _CONFIG.value
    config.validate()
    print(json.dumps(measure(config, _DEVICES.value) | {"commit": provenance.commit()}))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    cli.run(main)
