"""Compiles whole programs for an H100, without one, and records what XLA makes around the kernels.

    pip install --no-deps --target=/tmp/pjrt jax-cuda13-pjrt==<jax's version>     (130 MB)
    JAX_PLATFORMS=cpu PYTHONPATH=/tmp/pjrt python -m benchmarks.compiled_program \
        --out=benchmarks/compiled_program.json

XLA's compiler for GPUs is in that package and compiles for a GPU that is only described. Each
program is compiled twice. Once for a described CUB, whose radix sort XLA takes where it thinks it
faster: the optimised program is dumped, then compilation fails, because a sort asks the device for
its scratch memory. Once without CUB, with sorts of XLA's own: this goes through to the sequence of
launches and tells what lies in command buffers (CUDA graphs). Nothing runs, nothing is timed.
"""

import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

import kernels
from benchmarks import provenance
from instant_gs import cli
from kernels.types import Operands

TARGET = "NVIDIA H100 80GB HBM3"
# Public numbers of that GPU; XLA looks up CUB's scratch sizes by name and CUB's version.
_DESCRIPTION = """
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
_NO_DEVICE = "cudaErrorInvalidDevice"  # what a sort's question for scratch memory ends in
_COLLECTIVES = re.compile(r" (?:all-|collective-|reduce-scatter|ragged-)[\w-]*\(")

SIZE = 512
# Name, splats, cameras, scenes, channels, GPUs, backward pass; capacity is four slots a splat.
PROGRAMS = (
    ("forward", 200_000, 1, 1, 3, 1, False),
    ("forward + backward", 200_000, 1, 1, 3, 1, True),
    ("forward + backward, D = 32", 200_000, 1, 1, 32, 1, True),
    ("forward + backward, 8 cameras", 200_000, 8, 1, 3, 1, True),
    ("forward + backward, 8 scenes", 200_000, 1, 8, 3, 1, True),
    ("forward + backward, 8 scenes on 4 GPUs", 200_000, 1, 8, 3, 4, True),
)


def devices(count: int, *, cub: bool) -> list:
    """GPUs to compile for.

    Raises:
      cli.UserError: the package with XLA's GPU compiler is not there.
    """
    from jax.experimental import topologies

    text = _DESCRIPTION.format(name=TARGET, cub=_CUB if cub else "")
    try:
        topology = topologies.get_topology_desc(
            "described", "cuda", target_config=text, topology=f"1x1x{count}"
        )
    except Exception as error:  # JAX has no kind of its own for an unknown plugin
        raise cli.UserError(
            "XLA's compiler for GPUs is not here: run `pip install --no-deps --target=FOLDER "
            f"jax-cuda13-pjrt=={jax.__version__}` and put FOLDER into PYTHONPATH "
            f"({str(error).splitlines()[0]})"
        ) from error
    return list(topology.devices)


def program(
    splats: int, cameras: int, scenes: int, channels: int, gpus: list, backward: bool
) -> jax.stages.Lowered:
    """A rendering of `scenes` x `cameras` images, lowered; several GPUs share the scenes."""
    mesh = jax.sharding.Mesh(gpus, ("data",))
    split = jax.sharding.PartitionSpec("data" if len(gpus) > 1 else None)
    sharding = jax.sharding.NamedSharding(mesh, split)
    options = kernels.RasterizeOptions(capacity=4 * splats, on_overflow="count")
    settings = {"image_size": (SIZE, SIZE), "options": options, "implementation": "triton"}

    def forward(*arrays):
        if len(gpus) > 1:
            return kernels.rasterize_sharded(*arrays, mesh=mesh, **settings).image
        return jax.vmap(lambda *a: kernels.rasterize(*a, **settings).image)(*arrays)

    def both(*arrays):
        names = range(len(Operands._fields))
        return jax.grad(lambda *a: jnp.sum(forward(*a) ** 2), argnums=tuple(names))(*arrays)

    shapes = ((splats, 3), (splats, 4), (splats, 3), (splats,), (splats, channels))
    arrays = [
        jax.ShapeDtypeStruct((scenes, *shape), jnp.float32, sharding=sharding)
        for shape in (*shapes, (cameras, 4, 4), (cameras, 3, 3))
    ]
    step = jax.jit(both if backward else forward, out_shardings=sharding)
    return step.trace(*arrays).lower(lowering_platforms=("cuda",))


def count(text: str) -> dict[str, int]:
    """What an optimised program consists of.

    Args:
      text: HLO. Each kernel launch is an instruction of its entry, the last computation.
    """
    entry = text.rpartition("\nENTRY ")[2]
    return {
        "triton": entry.count('custom_call_target="triton_kernel_call_ffi"'),
        "radix_sorts": entry.count('custom_call_target="xla.gpu.ext.cub_sort'),
        "other_sorts": len(re.findall(r" sort\(", text)),
        "fusions": len(re.findall(r" fusion\(", entry)),
        "copies": len(re.findall(r" copy(?:-start)?\(", text)),
        "collectives": len(_COLLECTIVES.findall(text)),
        "host": len(re.findall(r" (?:infeed|outfeed|send|recv)\(|callback", text)),
        "loops": len(re.findall(r" while\(", text)),
    }


def outside(text: str) -> tuple[int, int]:
    """Command buffers in a sequence of launches, and launches outside of any."""
    kinds = re.findall(r"^\d+: (k\w+)", text, re.MULTILINE)  # what is inside is indented
    return kinds.count("kCommandBuffer"), len(kinds) - kinds.count("kCommandBuffer")


def _dumped(lowered: jax.stages.Lowered, ending: str, allowed: str | None = None) -> str:
    """Compiles; the dumped file with that ending.

    Raises:
      jax.errors.JaxRuntimeError: compilation failed, and not with the words that are allowed.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            lowered.compile({"xla_dump_to": folder})
        except jax.errors.JaxRuntimeError as error:
            if allowed is None or allowed not in str(error):
                raise
        (path,) = Path(folder).glob(f"*{ending}")
        return path.read_text(encoding="utf-8")


def survey(programs=PROGRAMS) -> list[dict]:
    """Compiles the programs; one entry each."""
    entries = []
    for name, *sizes, gpus, backward in programs:

        def lowered(cub: bool, sizes=sizes, gpus=gpus, backward=backward):
            return program(*sizes, devices(gpus, cub=cub), backward)

        counts = count(_dumped(lowered(True), "gpu_after_optimizations.txt", _NO_DEVICE))
        sequence = _dumped(lowered(False), "thunk_sequence_after_thunk_passes.txt")
        buffers, rest = outside(sequence)
        entries.append(
            {"program": name, **counts, "command_buffers": buffers, "launches_outside": rest}
        )
        print(entries[-1], flush=True)
    return entries


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_string("out", None, "Result file; only printed without it.")


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    import triton

    entries = survey()
    if flags.FLAGS.out:
        record = {
            "kind": "compiled_program",
            "device": TARGET,
            "triton": triton.__version__,
            "jax": jax.__version__,
            "sources_sha256": provenance.triton_hash(),
            "programs": entries,
        }
        provenance.write(Path(flags.FLAGS.out), record)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
