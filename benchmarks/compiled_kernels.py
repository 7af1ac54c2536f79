"""Compiles every Triton kernel for several GPUs, without a GPU, and records what each one uses.

    python -m benchmarks.compiled_kernels --out=benchmarks/compiled_kernels.json

The kernels compiled are those that a jitted loss, with its gradient or alone, asks for: it is
lowered for CUDA as on a machine with such a GPU. Register spills make the command fail: a kernel
that spills is slow. Needs `triton` and `jax-cuda13-plugin`
(`pip install --no-deps jax-cuda13-plugin==<jax's version>`).
"""

import os
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

import kernels
from benchmarks import provenance
from instant_gs import cli
from kernels import cubin, triton_call, triton_compile
from kernels.rasterize import vjp

# Ampere, Hopper, Blackwell for data centres (two), Blackwell for desktops (two).
CAPABILITIES = (80, 90, 100, 103, 120, 121)
# Channels, modes, and whether with a gradient: what leads to different kernels.
VARIANTS = (
    (3, "classic", True),
    (3, "classic", False),
    (3, "antialiased", True),
    (1, "classic", True),
    (32, "classic", True),
)


def lower(channels: int, mode: str, gradient: bool = True) -> str:
    """StableHLO for CUDA of a loss of the rasterizer's, with its gradient or alone."""
    options = kernels.RasterizeOptions(mode=mode, on_overflow="count")

    def loss(*arrays):
        out = kernels.rasterize(
            *arrays, image_size=(64, 64), options=options, implementation="triton"
        )
        return jnp.sum(out.image**2) + jnp.sum(out.alpha) + jnp.sum(out.depth)

    shapes = ((1000, 3), (1000, 4), (1000, 3), (1000,), (1000, channels))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (*shapes, (1, 4, 4), (1, 3, 3))]
    step = jax.value_and_grad(loss, argnums=tuple(range(7))) if gradient else loss
    return jax.jit(step).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


def survey(capabilities: Iterable[int] = CAPABILITIES) -> list[dict]:
    """Lowers all variants for all capabilities; one entry per kernel compiled."""
    before = os.environ.get(triton_call.CAPABILITY_VARIABLE)
    try:
        for capability in capabilities:
            os.environ[triton_call.CAPABILITY_VARIABLE] = str(capability)
            # Traces hold the launch parameters of the GPU that they were made for.
            vjp.differentiable.cache_clear()
            jax.clear_caches()
            for variant in VARIANTS:
                lower(*variant)
    finally:
        if before is None:
            del os.environ[triton_call.CAPABILITY_VARIABLE]
        else:
            os.environ[triton_call.CAPABILITY_VARIABLE] = before
    entries = [
        {
            "kernel": launch.name,
            "variant": _variant(dict(launch.constants)),
            "capability": compiled.capability,
            **cubin.resources(compiled),
        }
        for launch, compiled in triton_compile.compiled_kernels()
    ]
    return sorted(entries, key=lambda entry: (entry["capability"], entry["kernel"]))


def _variant(constants: dict) -> str:
    """In what a kernel differs from others of its name."""
    parts = [f"D = {constants['CHANNELS']}"] if "CHANNELS" in constants else []
    parts += ["antialiased"] if constants.get("ANTIALIASED") else []
    with_gradient = constants.get("NUMBER", constants.get("LOOK_UP", True))
    return ", ".join(parts + ([] if with_gradient else ["no gradient"]))


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_string("out", None, "Result file; only printed as a table without it.")


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    out = flags.FLAGS.out
    import triton

    entries = survey()
    for entry in entries:
        print(
            f"sm_{entry['capability']} {entry['kernel']:26s} registers {entry['registers']:3d}  "
            f"spilled {entry['spill_bytes']}  shared {entry['shared_bytes']:5d}  "
            f"warps {entry['warps']}"
        )
    if out:
        record = {
            "kind": "compiled_kernels",
            "triton": triton.__version__,
            "jax": jax.__version__,
            "sources_sha256": provenance.triton_hash(),
            "kernels": entries,
        }
        provenance.write(Path(out), record)
    spilling = [entry["kernel"] for entry in entries if entry["spill_bytes"]]
    if spilling:
        raise cli.UserError(f"kernels spill registers: {', '.join(sorted(set(spilling)))}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
