"""What each stage of the released model costs: arithmetic, memory traffic and, if asked for, time.

    python -m benchmarks.stage_cost --out=benchmarks/stage_cost.json --doc=docs/stage_cost.md
    python -m benchmarks.stage_cost --time --out=benchmarks/stage_cost.json --doc=docs/stage_cost.md

FLOPs and bytes are those of XLA's cost analysis of each stage at batch 1, before fusion: exact for
matrix products and convolutions, an upper bound for traffic. "Least" bytes are the stage's inputs,
weights and outputs once. The rasterizer loops over as many splats as there are in a tile, which XLA
counts once, so it has no counts. ``--time`` runs the stages on this machine with random weights.
"""

import json
import math
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from instant_gs import cli

NOT_MEASURED = "not measured"
REPEATS = 5
RANDOM_SCALE = 0.02  # of the random weights: nothing overflows


class Stage(NamedTuple):
    """A pure function and what goes in, as shapes."""

    function: Callable
    arguments: tuple
    counted: bool = True


def stages(config, size: int) -> dict[str, Stage]:
    """The stages from a photo to a frame, in order.

    Args:
        config: ``config.Config`` of a model.
        size: Side of the frame in pixels.

    Returns:
        Stage by name; weights are an argument, only those that the stage uses.
    """
    import jax
    import jax.numpy as jnp

    from instant_gs import models, rendering
    from instant_gs.geometry import camera as camera_lib

    model, settings = models.build(config.model), config.model
    params = jax.eval_shape(model.init, jax.random.key(0))
    photo = _shape(1, settings.image_size, settings.image_size, 3)
    crop = _shape(1, settings.motion.image_size, settings.motion.image_size, 3)
    code = _shape(1, settings.motion.code_width)
    encoder = {name: params[name] for name in ("backbone", "decoder")}
    decoders = {name: params[name] for name in ("decoder", "motion_decoder")}
    reader = {"motion_encoder": params["motion_encoder"]}
    avatar = jax.eval_shape(model.encode, params, photo)
    folded = jax.eval_shape(model.fold, avatar)
    motion = jax.eval_shape(model.motion, params, code, code)
    gaussians = jax.eval_shape(model.animate_folded, params, folded, motion)
    view = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=settings.fov_degrees)

    def rasterize(gaussians):
        camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], view)
        return rendering.render(gaussians, camera, image_size=(size, size)).image

    return {
        "encode": Stage(model.encode, (encoder, photo)),
        "motion code": Stage(model.motion_code, (reader, crop)),
        "motion": Stage(model.motion, (decoders, code, code)),
        "fold": Stage(model.fold, (avatar,)),
        "decode": Stage(model.animate_folded, (decoders, folded, motion)),
        "rasterize": Stage(rasterize, (gaussians,), counted=False),
    }


def measure(stage: Stage, *, timed: bool) -> dict[str, Any]:
    """Counts one stage, and times it if asked to.

    Returns:
        ``gflop``, ``megabytes``, ``least_megabytes`` and ``milliseconds`` (the median of
        ``REPEATS`` after one that compiles); None where nothing was counted or timed.
    """
    import jax

    lowered = jax.jit(stage.function).lower(*stage.arguments)
    counts = lowered.cost_analysis() if stage.counted else {}
    moved = jax.tree.leaves((stage.arguments, lowered.out_info))
    least = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in moved)
    return {
        "gflop": counts["flops"] / 1e9 if stage.counted else None,
        "megabytes": counts["bytes accessed"] / 1e6 if stage.counted else None,
        "least_megabytes": least / 1e6,
        "milliseconds": _time(lowered.compile(), stage.arguments) if timed else None,
    }


def record(config, size: int, *, timed: bool) -> dict[str, Any]:
    """All stages, and what they were measured on."""
    import jax

    rows = {name: measure(stage, timed=timed) for name, stage in stages(config, size).items()}
    device = jax.devices()[0]
    return {
        "model": config.name,
        "frame": size,
        "jax": jax.__version__,
        "platform": device.platform,
        "device": f"{device.device_kind}, {platform.machine()}" if timed else None,
        "stages": rows,
    }


def document(result: dict[str, Any]) -> str:
    """The record as a page of Markdown."""
    lines = [
        "# Cost of each stage",
        "",
        f"The model `{result['model']}` at batch 1 in float32, a frame of {result['frame']} x "
        f"{result['frame']}; written by",
        "`python -m benchmarks.stage_cost`, whose docstring says how the numbers come about.",
        "",
        f"| stage | GFLOP | MB before fusion | MB at least | ms, {_device(result)} | ms, GPU |",
        "|---|---|---|---|---|---|",
    ]
    on_gpu = result["platform"] == "gpu"
    for name, row in result["stages"].items():
        time = _number(row["milliseconds"])
        times = (NOT_MEASURED, time) if on_gpu else (time, NOT_MEASURED)
        counts = [
            _number(row[key], "not counted") for key in ("gflop", "megabytes", "least_megabytes")
        ]
        lines.append("| " + " | ".join([name, *counts, *times]) + " |")
    lines += [
        "",
        "*encode* and *fold* run once a photo; *motion code* and *motion* once a driving frame,",
        "for any number of avatars; *decode* and *rasterize* once a frame.",
    ]
    return "\n".join(lines) + "\n"


def _device(result: dict[str, Any]) -> str:
    return result["device"] if result["device"] and result["platform"] == "cpu" else "CPU"


def _number(value: float | None, missing: str = NOT_MEASURED) -> str:
    return missing if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _shape(*shape: int):
    import jax
    import jax.numpy as jnp

    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _time(compiled, shapes) -> float:
    import time

    import jax
    import numpy as np

    random = np.random.default_rng(0)

    def fill(leaf):
        if leaf.dtype == bool:
            return np.ones(leaf.shape, bool)
        return RANDOM_SCALE * random.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)

    arguments = jax.device_put(jax.tree.map(fill, shapes))
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds[1:]))


def main(argv: list[str]) -> None:
    """Measures and writes both files."""
    from instant_gs import convert, output

    if len(argv) > 1:
        raise cli.UserError(f"{argv[1]}: not expected; every option has a flag (--help)", 2)
    values = flags.FLAGS
    if not values.out:
        raise cli.UserError("--out is missing; give the JSON file to write", 2)
    result = record(convert.released_config(), values.size, timed=values.time)
    texts = {values.out: json.dumps(result, indent=2) + "\n", values.doc: document(result)}
    for path, text in texts.items():
        if path:
            with output.whole_file(path, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
    print(document(result))


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "JSON file to write or replace.")
    flags.DEFINE_string("doc", None, "Markdown page to write or replace, too.")
    flags.DEFINE_boolean("time", False, "Run the stages; the machine must have nothing else to do.")
    flags.DEFINE_integer("size", 512, "Side of the frame in pixels.", lower_bound=16)
    cli.run(main)
