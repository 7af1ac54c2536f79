"""Compiles whole programs for an H100, without one, and records what XLA makes around the kernels.

    JAX_PLATFORMS=cpu python -m benchmarks.compiled_program --out=benchmarks/compiled_program.json

`benchmarks/described.py` says which package that needs. Each program is compiled twice. Once for a
described CUB, whose radix sort XLA takes where it thinks it faster: the optimised program is
dumped, then compilation fails, because a sort asks the device for its scratch memory. Once without
CUB, with sorts of XLA's own: this goes through to the sequence of launches and tells what lies in
command buffers (CUDA graphs). Nothing runs, nothing is timed.
"""

import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

import kernels
from benchmarks import described, provenance
from instant_gs import cli
from kernels import timing

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


def program(
    splats: int,
    cameras: int,
    scenes: int,
    channels: int,
    devices: list,
    backward: bool,
    *,
    platform: str = "cuda",
) -> jax.stages.Lowered:
    """A rendering of `scenes` x `cameras` images, lowered; several devices share the scenes."""
    mesh = jax.sharding.Mesh(devices, ("data",))
    split = jax.sharding.PartitionSpec("data" if len(devices) > 1 else None)
    sharding = jax.sharding.NamedSharding(mesh, split)
    options = kernels.RasterizeOptions(capacity=4 * splats, on_overflow="count")
    backend = "triton" if platform == "cuda" else "xla"
    settings = {"image_size": (SIZE, SIZE), "options": options, "implementation": backend}

    def forward(*arrays):
        if len(devices) > 1:
            return kernels.rasterize_sharded(*arrays, mesh=mesh, **settings).image
        return jax.vmap(lambda *a: kernels.rasterize(*a, **settings).image)(*arrays)

    shapes = ((splats, 3), (splats, 4), (splats, 3), (splats,), (splats, channels))
    arrays = [
        jax.ShapeDtypeStruct((scenes, *shape), jnp.float32, sharding=sharding)
        for shape in (*shapes, (cameras, 4, 4), (cameras, 3, 3))
    ]
    function = timing.with_gradients(forward) if backward else forward
    step = jax.jit(function, out_shardings=sharding)
    return step.trace(*arrays).lower(lowering_platforms=(platform,))


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


def survey() -> list[dict]:
    """Compiles the programs; one entry each."""
    entries = []
    for name, *sizes, gpus, backward in PROGRAMS:

        def lowered(cub: bool, sizes=sizes, gpus=gpus, backward=backward):
            return program(*sizes, described.devices("h100", gpus, cub=cub), backward)

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
            "device": described.H100,
            "triton": triton.__version__,
            "jax": jax.__version__,
            "sources_sha256": provenance.triton_hash(),
            "programs": entries,
        }
        provenance.write(Path(flags.FLAGS.out), record)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
