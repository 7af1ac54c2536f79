"""What a command would train, on what, and whether it fits; nothing is trained or written."""

import math
import pathlib

import jax

from instant_gs import models
from instant_gs.config import Config
from instant_gs.training import (
    abstract,
    checkpoint,
    curriculum,
    device_peak,
    loop,
    parallel,
    run_folder,
    same_run,
    step,
    throughput,
)


def describe(
    config: Config,
    workdir: str | pathlib.Path,
    init_from: str | None = None,
    motion_encoder: str | None = None,
):
    """Yields lines of text: parameters, data, where the run would start, memory and speed.

    The step is compiled for these devices, so that its memory is what XLA would allocate.

    Args:
        config: As for ``loop.train``, as are the others.
        workdir: The run's folder.
        init_from: Weights or run.
        motion_encoder: Weights or run.

    Raises:
        ValueError: The configuration is invalid or does not fit the devices or the data.
        UserError: ``workdir`` holds a run of another configuration, or a pack shows another view
            than the model's.
        PackError: A pack cannot be read, or lacks what the configuration needs.
        FileNotFoundError: There is nothing to start from where an option says.
    """
    config.validate()
    mesh = parallel.mesh_of(config)
    model = models.build(config.model)
    shapes = abstract.train_state(model, config, mesh)
    pretrain = config.motion_pretrain.steps
    device = f"{mesh.size} x {jax.devices()[0].device_kind}"
    shares = config.train.shard_parameters
    yield (
        f"configuration {config.name}: {pretrain} motion and {config.train.steps} avatar steps, "
        f"{config.data.batch_size} samples each, on {device}, {jax.process_count()} processes"
    )
    for line in curriculum.never_reached(config):
        yield f"warning       {line}"
    for name, part in shapes.params.items():
        yield f"parameters    {_count(part):>12,} {name}"
    yield f"parameters    {_count(shapes.params):>12,} in all"
    yield (
        f"state         {_local_bytes(shapes) / 1e6:,.1f} MB a device: parameters, average, Adam"
        + (f" (a copy a group of {shares} devices)" if shares > 1 else "")
    )
    yield from _data(config)
    yield from _start(config, workdir, shapes, init_from, motion_encoder)
    batch = abstract.batch(config, mesh)
    for phase in curriculum.phases(config):  # last, because it compiles
        yield from _step(model, config, phase, mesh, shapes, batch)


def _count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _local_bytes(tree) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _title(phase: curriculum.Phase) -> str:
    """Such as "avatar step at 64 with lpips"."""
    at = f" at {phase.image_size}" if phase.image_size else ""
    judges = f" with {', '.join(phase.judges)}" if phase.judges else ""
    return f"{phase.name} step{at}{judges}"


def memory(compiled) -> tuple[int, int, int]:
    """Bytes a device of a compiled step by XLA's analysis: in all, arguments, temporary."""
    plan = compiled.memory_analysis()
    arguments, temporary = plan.argument_size_in_bytes, plan.temp_size_in_bytes
    fresh = max(plan.output_size_in_bytes - plan.alias_size_in_bytes, 0)
    return arguments + temporary + fresh, arguments, temporary


def _step(model, config, phase, mesh, shapes, batch):
    compiled = step.make(model, config, phase, mesh).lower(shapes, batch).compile()
    total, arguments, temporary = memory(compiled)
    yield (
        f"{_title(phase)}: {total / 1e6:,.1f} MB a device ({arguments / 1e6:,.1f} arguments, "
        f"{temporary / 1e6:,.1f} temporary), XLA's plan of the compiled step"
    )
    flops = throughput.model_flops(model, config, phase, mesh.size)
    if flops is None:
        yield f"{_title(phase)}: FLOPs not counted, which needs the platform cpu beside yours"
        return
    kind = jax.devices()[0].device_kind
    peak, origin = device_peak.flops_per_second(kind, config.model.dtype), f"the {kind}'s peak"
    if peak is None:
        peak = device_peak.timed(config.model.dtype)
        origin = f"the {peak / 1e9:,.0f} GFLOP/s that a matrix product has on this {kind} now"
    yield (
        f"{_title(phase)}: {flops:.3g} FLOPs a device without the rasterizer; at most "
        f"{peak / flops:.3g} steps/s at {origin}, an upper bound"
    )


def _data(config: Config):
    if not config.data.packs:
        yield "data          none: training needs --config.data.packs='(\"FOLDER\",)'"
        return
    _, _, uses = loop.training_data(config)  # refuses what training would refuse
    for use in uses:
        yield f"data          {use}"


def _start(config, workdir, state, init_from, motion_encoder):
    run_folder.check_place(pathlib.Path(workdir))
    same_run.check(workdir, config, init_from, motion_encoder)
    found = checkpoint.find(workdir, state)
    if found is None:
        _, origins = loop.start_parameters(config, state.params, init_from, motion_encoder)
        described = [f"--{option}={facts['folder']}" for option, facts in origins.items()]
        origin = " and ".join(described) or "random parameters"
        yield f"start         a new run in {workdir}, from {origin}"
        for line in loop.frozen_as_drawn(config, origins):
            yield f"warning       {line}"
        return
    step, before, broken = found
    for other, reason in broken.items():
        yield f"warning       checkpoint {other} is broken and would be moved aside: {reason}"
    total = config.motion_pretrain.steps + config.train.steps
    yield f"start         would resume {workdir} at step {step} of {total}"
    if changed := same_run.changes(before, config):
        yield f"changes       {same_run.describe(changed)}"
