"""What programs need on accelerators that are not here: XLA compiles for them on a CPU.

    python -m benchmarks.planned_memory --device=h100 --config=configs/gpu_8x.py
    python -m benchmarks.planned_memory --device=v5p --config=configs/tpu.py
    python -m benchmarks.planned_memory --device=v5e --program=frame --config=configs/demo.py
    python -m benchmarks.planned_memory --device=v6e --program=rasterizer

`benchmarks/described.py` says which package each device needs. Programs: the training step of the
last phase (all losses, full size), the stages from a photo to a frame at batch 1 on one device, or
the rasterizer at 200,000 splats and 512 x 512 on one device. Prints a JSON line for each; bytes are
a device's, as XLA's memory analysis plans them. Not in it: what libraries (cuDNN, NCCL) and
runtimes take, and workspaces that are found by trying. Matrix products on GPUs are given to cuBLAS
and sorts to XLA's own code, because choosing otherwise needs a GPU. docs/training.md says how the
TPU compiler takes a large step on a small machine.
"""

import importlib.metadata
import json
import os
import re
import time
from collections import Counter

from absl import flags
from ml_collections import config_flags

from benchmarks import described
from instant_gs import cli, version

PROGRAMS = ("step", "frame", "rasterizer")
_COLLECTIVES = re.compile(
    r" (all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
    r"|collective-broadcast)(?:-start)?\("
)
# What XLA says of a program that is too large for the device.
_TOO_LARGE = re.compile(r"[Oo]ut of memory.*")


def plan(lowered) -> dict:
    """Compiles a program.

    Returns:
      JSON-able: ``bytes`` a device in all, of which ``arguments`` and ``temporary``;
      ``collectives``; ``compile_s``, processor time.

    Raises:
      cli.UserError: the program does not fit into the device's memory.
    """
    import jax

    from instant_gs.training import dry_run

    start = time.process_time()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        said = _TOO_LARGE.search(str(error))
        if said is None:
            raise
        raise cli.UserError(f"the program does not fit into a device: {said[0]}") from error
    total, arguments, temporary = dry_run.memory(compiled)
    return {
        "bytes": total,
        "arguments": arguments,
        "temporary": temporary,
        "collectives": collectives(compiled.as_text()),
        "compile_s": round(time.process_time() - start),
    }


def collectives(text: str) -> dict[str, int]:
    """How often each kind of message between devices stands in an optimised program (HLO)."""
    return dict(Counter(_COLLECTIVES.findall(text)))


def step(config, devices: list, platform: str) -> dict:
    """The last phase's training step, spread over the devices."""
    from instant_gs import models
    from instant_gs.training import abstract, curriculum, parallel
    from instant_gs.training import step as step_lib

    mesh = parallel.mesh_of(config, devices)
    model = models.build(config.model)
    arguments = abstract.train_state(model, config, mesh), abstract.batch(config, mesh)
    phase = curriculum.phases(config)[-1]
    traced = step_lib.make(model, config, phase, mesh).trace(*arguments)
    return {
        "config": config.name,
        "dtype": config.model.dtype,
        "remat": config.model.encoder.remat,
        "accumulate": config.train.accumulate,
        "phase": [phase.image_size, *phase.judges],
        "devices": len(devices),
        "samples_a_device": config.data.batch_size // len(devices),
        **plan(traced.lower(lowering_platforms=(platform,))),
    }


def frame(config, devices: list, platform: str):
    """Yields the stages from a photo to a frame, a photo and a driver at once."""
    import jax

    from benchmarks import stage_cost

    mesh = jax.sharding.Mesh(devices[:1], ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for name, stage in stage_cost.stages(config, config.model.image_size).items():
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            stage.arguments,
        )
        lowered = jax.jit(stage.function).trace(*arguments).lower(lowering_platforms=(platform,))
        yield {"config": config.name, "stage": name, **plan(lowered)}


def rasterizer(devices: list, platform: str):
    """Yields the rasterizer's programs of one image, at the size that its speed is stated for."""
    from benchmarks import compiled_program

    for name, splats, cameras, scenes, channels, _, backward in compiled_program.PROGRAMS:
        if cameras == scenes == 1:
            sizes = splats, cameras, scenes, channels
            lowered = compiled_program.program(*sizes, devices[:1], backward, platform=platform)
            yield {"rasterizer": name, **plan(lowered)}


def _lines(device: str, count: int, program: str, config):
    from kernels import device as kernels_device

    devices, platform = described.devices(device, count), described.platform(device)
    kernels_device.is_nvidia = lambda: platform == "cuda"  # its kernels, though it is not here
    if program == "rasterizer":
        yield from rasterizer(devices, platform)
    elif program == "frame":
        yield from frame(config, devices, platform)
    else:
        yield step(config, devices, platform)


def _versions(device: str) -> dict:
    packages = ("jax", "libtpu") if device != "h100" else ("jax", "jax-cuda13-pjrt")
    return {name: importlib.metadata.version(name) for name in packages}


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    values = flags.FLAGS
    os.environ["JAX_PLATFORMS"] = "cpu"
    if values.device == "h100":
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there are no CUDA libraries to check
        # Its tiles are found by trying.
        own = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{own} --xla_gpu_enable_triton_gemm=false".strip()
    config = values.config
    if values.program != "rasterizer":
        if config is None:
            raise cli.UserError("--config is missing; give a file of configs/", 2)
        config.validate()
    for line in _lines(values.device, values.devices, values.program, config):
        where = {"device": values.device, **_versions(values.device)}
        print(json.dumps({**where, **line, "commit": version.commit()}), flush=True)


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    config_flags.DEFINE_config_file("config", None, "File with get_config(arg).")
    flags.DEFINE_enum("device", "h100", described.NAMES, "What to compile for.")
    flags.DEFINE_integer("devices", 8, "How many of them take a step.", lower_bound=1)
    flags.DEFINE_enum("program", "step", PROGRAMS, "What to compile.")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
