"""Accelerators that are not here, for XLA to compile for on a CPU.

    pip install --no-deps --target=FOLDER jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION
    pip install --no-deps --target=FOLDER libtpu==VERSION
    JAX_PLATFORMS=cpu PYTHONPATH=FOLDER python -m ...

The first is for NVIDIA GPUs, with the version of jax; the second for TPUs, 500 MB unpacked, with
the version that jax[tpu] asks for (0.0.42.1 of jax 0.10.2).

XLA's compilers are in these packages and need neither a device nor a driver. What is compiled is
what would run; nothing runs, nothing is timed.
"""

import importlib.util
import os

from instant_gs import cli

H100 = "NVIDIA H100 80GB HBM3"
# Slices of eight chips. TPU: what Cloud TPU calls v5e-8, v5p-16 (it counts cores) and v6e-8.
SLICES = {"v5e": "v5e:2x4", "v5p": "v5p:2x2x2", "v6e": "v6e:2x4"}
NAMES = ("h100", *SLICES)
MOST_CHIPS = 8

# Public numbers of that GPU in the words of XLA's GpuTargetConfigProto; XLA looks up CUB's scratch
# sizes by name and CUB's version.
_H100 = """
gpu_device_info {{
  name: "{name}"
  {cub}
  cuda_compute_capability {{ major: 9 }}
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84929347584
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
_CUB = 'cub_version: "3.1.2"'
# libtpu would ask a metadata server what machine this is, and let one process use it at a time.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def platform(name: str) -> str:
    """What JAX lowers for: "cuda" or "tpu"."""
    return "tpu" if name in SLICES else "cuda"


def devices(name: str, count: int, *, cub: bool = False) -> list:
    """Devices to compile for, of one host or slice.

    Args:
      name: one of NAMES.
      count: how many.
      cub: GPUs only: XLA may take CUB's radix sort where it thinks it faster. Programs with one
        compile to optimised HLO and no further: it asks the device for its scratch memory.

    Raises:
      cli.UserError: an unknown name, too many chips, or the package with XLA's compiler is missing.
    """
    if name not in NAMES:
        raise cli.UserError(f"device {name!r}: expected one of {', '.join(NAMES)}")
    return _tpus(name, count) if name in SLICES else _gpus(count, cub=cub)


def _gpus(count: int, *, cub: bool) -> list:
    import jax
    from jax.experimental import topologies

    text = _H100.format(name=H100, cub=_CUB if cub else "")
    shape = f"1x1x{count}"
    try:
        topology = topologies.get_topology_desc(
            "described", "cuda", target_config=text, topology=shape
        )
    except Exception as error:  # JAX has no kind of its own for an unknown plugin
        raise cli.UserError(
            "XLA's compiler for GPUs is not here: run `pip install --no-deps --target=FOLDER "
            f"jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt=={jax.__version__}` and put "
            "FOLDER into PYTHONPATH "
            f"({str(error).splitlines()[0]})"
        ) from error
    return list(topology.devices)


def _tpus(name: str, count: int) -> list:
    from jax.experimental import topologies

    if count > MOST_CHIPS:
        raise cli.UserError(f"{count} chips: at most {MOST_CHIPS} {name} chips are described here")
    if importlib.util.find_spec("libtpu") is None:
        raise cli.UserError(
            "XLA's compiler for TPUs is not here: run `pip install --no-deps --target=FOLDER "
            "libtpu` with the version that jax[tpu] asks for and put FOLDER into PYTHONPATH"
        )
    os.environ.update(_NO_TPU_HERE)
    try:
        topology = topologies.get_topology_desc(SLICES[name], platform="tpu")
    except (RuntimeError, ValueError) as error:  # JaxRuntimeError is a RuntimeError
        raise cli.UserError(
            f"libtpu cannot describe {SLICES[name]}: {str(error).splitlines()[0]}"
        ) from error
    return list(topology.devices)[:count]
