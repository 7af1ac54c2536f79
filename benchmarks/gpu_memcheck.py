"""Runs every Triton kernel over small scenes, for compute-sanitizer to watch.

    XLA_PYTHON_CLIENT_ALLOCATOR=platform compute-sanitizer --tool memcheck \
        --report-api-errors no --error-exitcode 9 python -m benchmarks.gpu_memcheck
    TRITON_INTERPRET=1 python -m benchmarks.gpu_memcheck    without a GPU

Nothing is jitted as a whole: each kernel is a program of its own whose buffers are allocations of
their own, so that an access beyond one is beyond what CUDA has given out. Inside one large program,
or with JAX's own allocator, it would land in a neighbour and nobody would notice.
"""

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from instant_gs import cli
from kernels import triton_compile
from kernels.rasterize import cases, triton_backend
from kernels.types import Operands, RasterizeConfig

SMALL, LARGE = (52, 44), (284, 268)  # pixels, no multiples of a tile
DOTS, SHEETS = (-3.5, -1.3), (-6.0, 1.0)  # logarithms of scales; of sheets some touch 1224 tiles
# (splats, their scales, size, channels, cameras, mode, capacity): the common kernels, those of many
# channels, overflow; splats of more tiles than one thread works on, and overflow within such a one.
SCENES = (
    (200, DOTS, SMALL, 3, 1, "classic", 4096),
    (200, DOTS, SMALL, 9, 2, "antialiased", 4096),
    (200, DOTS, SMALL, 3, 1, "classic", 64),
    (40, SHEETS, LARGE, 3, 2, "classic", 40_960),
    (40, SHEETS, LARGE, 3, 1, "classic", 3000),
)


def render(
    splats: int,
    log_scale: tuple[float, float],
    size: tuple[int, int],
    channels: int,
    cameras: int,
    mode: str,
    capacity: int,
) -> tuple[int, bool]:
    """One forward and backward pass; tile intersections dropped, and whether all is finite."""
    height, width = size
    scene = cases.random_scene(
        0,
        cases.turned_views(0.3 * np.arange(cameras), 3.0),
        cases.pinhole((1.4 * width, 1.1 * height), (0.5 * width, 0.48 * height)),
        splats=splats,
        channels=channels,
        log_scale=log_scale,
    )
    arrays = [jnp.asarray(scene[name], jnp.float32)[None] for name in Operands._fields]
    options = kernels.RasterizeOptions(mode=mode, capacity=capacity, on_overflow="count")
    config = RasterizeConfig(options, height, width, capacity)
    operands = Operands(*arrays)
    output, residuals = triton_backend.forward(operands, config, keep=True)
    image = triton_backend.forward(operands, config, keep=False)[0].image
    cotangents = (output.image, output.transmittance, output.depth)
    grads = triton_backend.backward(operands, residuals, cotangents, config)
    results = jax.tree.leaves((image, output[:3], grads))
    finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in results)
    dropped = int(jnp.sum(jnp.maximum(output.num_intersections - capacity, 0)))
    return dropped, finite


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    scenes = SCENES
    if triton_compile.is_interpreting():  # a thousand times slower
        scenes = [(12, *rest) for _, *rest in SCENES if SMALL in rest]
    for scene in scenes:
        dropped, finite = render(*scene)
        print(f"{scene}: {dropped} intersections dropped, finite: {finite}", flush=True)
        if not finite:
            raise cli.UserError(f"memcheck: {scene} gives numbers that are not finite")


if __name__ == "__main__":
    cli.run(main)
