"""What each stage of the released model costs: arithmetic, memory traffic and, if asked for, time.

    python -m benchmarks.stage_cost --out=benchmarks/stage_cost.json
    python -m benchmarks.stage_cost --time --out=benchmarks/stage_cost.json
    python -m benchmarks.table                    # shows them in docs/animation.md

FLOPs and bytes are those of XLA's cost analysis of each stage at batch 1, before fusion: exact for
matrix products and convolutions, an upper bound for traffic. "Least" bytes are the stage's inputs,
weights and outputs once. The rasterizer loops over as many splats as there are in a tile, which XLA
counts once; its FLOPs are what the dense reference takes to project a splat and to blend it into a
pixel, for all splats and all pixels of the 16 x 16 tiles that each touches, opaque before or not;
sorting is no arithmetic. It draws a head's surface that the Gaussians tile once, at opacity 0.7.
``--time`` runs the stages on this machine, the others with random weights. On a CPU the processor
time of all threads counts, which is what stays meaningful while others use the machine.
Times of the other platform that stand in ``--out`` already are kept.
"""

import dataclasses
import json
import math
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from instant_gs import cli, version

REPEATS = 7
RANDOM_SCALE = 0.02  # of the random weights: nothing overflows
OPACITY = 0.7  # of the head that is rasterized
TILE = 16  # pixels, the side of the tiles whose pixels are counted
COUNTED_SPLATS, COUNTED_SIDES = (256, 512), (16, 32)  # dense scenes whose differences are counted


class Stage(NamedTuple):
    """A pure function and what goes in, as shapes.

    ``example`` makes what goes in while it is timed, None noise; ``flops`` counts its arithmetic
    with that, None asks XLA.
    """

    function: Callable
    arguments: tuple
    example: Callable[[], tuple] | None = None
    flops: Callable[..., float] | None = None


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
    encoder = {name: part for name, part in params.items() if not name.startswith("motion")}
    decoders = {name: params[name] for name in ("decoder", "motion_decoder")}
    reader = {"motion_encoder": params["motion_encoder"]}
    avatar = jax.eval_shape(model.encode, params, photo)
    folded = jax.eval_shape(model.fold, avatar)
    motion = jax.eval_shape(model.motion, params, code, code)
    gaussians = jax.eval_shape(model.animate_folded, params, folded, motion)
    view = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=settings.fov_degrees)
    drawn = {"image_size": (size, size), "options": model.raster_options(size)}

    def rasterize(gaussians):
        camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], view)
        return rendering.render(gaussians, camera, **drawn).image

    def count(gaussians):
        scene = [leaf[0] for leaf in jax.tree.leaves(gaussians)]
        lens = camera_lib.pixel_intrinsics(view.intrinsics, drawn["image_size"])[None]
        cameras = camera_lib.view_matrix(view.cam2world)[None], lens
        return rasterizer_flops(scene, cameras, **drawn)

    return {
        "encode": Stage(model.encode, (encoder, photo)),
        "motion code": Stage(model.motion_code, (reader, crop)),
        "motion": Stage(model.motion, (decoders, code, code)),
        "fold": Stage(model.fold, (avatar,)),
        "decode": Stage(model.animate_folded, (decoders, folded, motion)),
        "rasterize": Stage(rasterize, (gaussians,), lambda: (_head(settings),), count),
    }


def measure(stage: Stage, *, timed: bool) -> dict[str, Any]:
    """Counts one stage, and times it if asked to.

    Returns:
        ``gflop``, ``megabytes`` (None where XLA cannot count them), ``least_megabytes``, and
        ``milliseconds`` by platform.
    """
    import jax

    jitted = jax.jit(stage.function)
    lowered = jitted.lower(*stage.arguments)
    # By the CPU's client: a GPU's does not count what is not compiled.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        if stage.flops:
            flops, moves = stage.flops(*stage.example()), None
        else:
            counts = jitted.lower(*stage.arguments).cost_analysis()
            flops, moves = counts["flops"], counts["bytes accessed"] / 1e6
    moved = jax.tree.leaves((stage.arguments, lowered.out_info))
    least = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in moved)
    return {
        "gflop": flops / 1e9,
        "megabytes": moves,
        "least_megabytes": least / 1e6,
        "milliseconds": {jax.default_backend(): _time(lowered.compile(), stage)} if timed else {},
    }


def record(config, size: int, *, timed: bool) -> dict[str, Any]:
    """All stages, and what they were measured on."""
    import jax

    rows = {name: measure(stage, timed=timed) for name, stage in stages(config, size).items()}
    return {
        "model": config.name,
        "frame": size,
        "timed_on": {jax.default_backend(): _machine()} if timed else {},
        "stages": rows,
    }


def with_other_times(result: dict[str, Any], older: dict[str, Any]) -> dict[str, Any]:
    """The record, with an older one's times of platforms that it has none of.

    Returns:
        ``result`` as it is if the older one is of another model or frame.
    """
    if any(result[name] != older.get(name) for name in ("model", "frame")):
        return result
    rows = {
        name: row | {"milliseconds": older["stages"][name]["milliseconds"] | row["milliseconds"]}
        for name, row in result["stages"].items()
    }
    return result | {"timed_on": older["timed_on"] | result["timed_on"], "stages": rows}


def _machine() -> dict[str, Any]:
    import jax

    return {
        "device": _processor() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "runs": REPEATS,
        "commit": version.commit() or "unknown",
    }


def _processor() -> str:
    """Linux's name of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _shape(*shape: int):
    import jax
    import jax.numpy as jnp

    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _time(compiled, stage: Stage) -> dict[str, float]:
    """Milliseconds of ``REPEATS`` calls: processor time on a CPU, elapsed time elsewhere."""
    import jax

    from kernels import timing

    arguments = jax.device_put(stage.example() if stage.example else _noise(stage.arguments))
    _, elapsed, processor = timing.time_calls(compiled, arguments, REPEATS, "stage")
    spent = processor if jax.default_backend() == "cpu" else elapsed
    return {"median": statistics.median(spent), "least": min(spent), "most": max(spent)}


def _noise(shapes):
    import jax
    import numpy as np

    random = np.random.default_rng(0)

    def fill(leaf):
        if leaf.dtype == bool:
            return np.ones(leaf.shape, bool)
        return RANDOM_SCALE * random.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)

    return jax.tree.map(fill, shapes)


def rasterizer_flops(scene, cameras, *, image_size: tuple[int, int], options) -> float:
    """FLOPs of one image: what all splats and their tiles' pixels cost the dense reference.

    Args:
        scene: Means (N, 3), quats (N, 4), scales (N, 3), opacities (N,) and colours (N, 3).
        cameras: View matrix (1, 4, 4) and intrinsics (1, 3, 3) in pixels.
        image_size: (height, width) in pixels.
        options: ``kernels.RasterizeOptions``.
    """
    import jax

    import kernels

    def dense(splats: int, side: int) -> float:
        few = tuple(_shape(splats, *leaf.shape[1:]) for leaf in scene)

        def draw(*arrays):
            return kernels.rasterize(
                *arrays, image_size=(side, side), options=options, implementation="reference"
            ).image

        return jax.jit(draw).lower(*few, *cameras).cost_analysis()["flops"]

    (few, many), (small, large) = COUNTED_SPLATS, COUNTED_SIDES
    least = dense(few, small)
    a_pair = (dense(few, large) - least) / (few * (large**2 - small**2))
    a_splat = (dense(many, small) - least) / (many - few) - a_pair * small**2
    tiled = dataclasses.replace(options, tile_size=(TILE, TILE))
    # Named: this runs on the CPU, also where there is a GPU whose backend would be chosen.
    drawn = kernels.rasterize(
        *scene, *cameras, image_size=image_size, options=tiled, implementation="xla"
    )
    pairs = int(drawn.stats.num_intersections.sum()) * TILE**2
    return a_splat * len(scene[0]) + a_pair * pairs


def _head(settings):
    """Gaussians (1, N, ·) of one cell's size each, all over a head's surface."""
    import jax.numpy as jnp
    import numpy as np

    from instant_gs import types
    from instant_gs.models import head_surface

    grid = settings.gaussians.grid
    means = head_surface.points(grid)
    cell = float(np.ptp(means[:, 1])) / (grid - 1)
    colors = np.random.default_rng(0).uniform(size=means.shape).astype(np.float32)
    quats = jnp.broadcast_to(jnp.array([1.0, 0, 0, 0]), (grid * grid, 4))
    opacities = jnp.full(grid * grid, OPACITY)
    head = (means, quats, jnp.full(means.shape, cell), opacities, jnp.asarray(colors))
    return types.Gaussians(*(leaf[None] for leaf in head))


def main(argv: list[str]) -> None:
    """Measures and writes the file."""
    del argv
    from instant_gs import convert, output

    values = flags.FLAGS
    if not values.out:
        raise cli.UserError("--out is missing; give the JSON file to write", 2)
    result = record(convert.released_config(), values.size, timed=values.time)
    if (stored := Path(values.out)).is_file():
        older = json.loads(stored.read_text(encoding="utf-8"))
        result = with_other_times(result, older)
    with output.whole_file(values.out, overwrite=True) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "JSON file to write or replace.")
    flags.DEFINE_boolean("time", False, "Run the stages, too, and take their times.")
    flags.DEFINE_integer("size", 512, "Side of the frame in pixels.", lower_bound=16)
    cli.run(main)
