"""Times each stage of the Triton rasterizer by itself, its inputs at hand."""

from collections.abc import Callable

import jax

from kernels.rasterize import triton_backend, triton_bwd, triton_config, triton_fwd, triton_sizes
from kernels.types import Operands, RasterizeConfig


def stages(arrays: tuple, config: RasterizeConfig, microseconds: Callable) -> dict[str, float]:
    """Microseconds of each stage.

    All inputs are arguments of what is timed: closed over, they would be constants of the program.
    "project" and "emit" contain a copy of what they begin with, the tallies and the counts, which
    the whole program does not: each time they are needed again.

    Args:
        arrays: of one scene, as `kernels.rasterize` takes them.
        config: the call's configuration.
        microseconds: (function, its arguments) -> time; the first argument is a small array.
    """
    operands = Operands(*(array[None] for array in arrays))
    kernel = triton_config.choose(config, operands.features.shape[-1])
    sizes = triton_sizes.sizes_of(operands, config, kernel.tile)

    def find_limits(views, operands):
        return triton_fwd._limits(operands._replace(viewmats=views), sizes)

    def project(views, operands, limits):
        return triton_fwd._project(operands._replace(viewmats=views), *limits, config, kernel)

    def bin_(depths, projected):
        return triton_fwd._bin(projected._replace(depths=depths), sizes)

    def emit(needed, projected, binned):
        binned = binned._replace(needed=needed)
        return triton_fwd._emit(projected, binned, sizes, kernel, keep=True)

    def tile_sort(keys, slots):
        return jax.lax.sort((keys, slots), num_keys=1, is_stable=True)

    def blend(ranges, operands, records, lists):
        lists = dict(lists, ranges=ranges)
        return triton_fwd._blend(operands, records, lists, sizes, config, kernel)

    def blend_backward(ranges, operands, residuals, cotangents):
        residuals = residuals._replace(ranges=ranges)
        return triton_bwd._blend_backward(operands, residuals, cotangents, sizes, config, kernel)

    def gather(first_slots, residuals, rows):
        residuals = residuals._replace(first_slots=first_slots)
        return triton_bwd._gather(residuals, *rows, sizes, kernel)

    def project_backward(views, operands, emitted, grads):
        operands = operands._replace(viewmats=views)
        return triton_bwd._project_backward(operands, emitted, grads, sizes, config, kernel)

    views = operands.viewmats
    output, residuals = jax.jit(lambda o: triton_backend.forward(o, config, keep=True))(operands)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), residuals)
    limits = jax.jit(find_limits)(views, operands)
    projected = jax.jit(project)(views, operands, limits)
    binned = jax.jit(bin_)(projected.depths, projected)
    lists = {name: getattr(flat, name) for name in ("splats", "slots")}
    cotangents = (output.image, output.transmittance, output.depth)
    backward = (residuals.ranges, operands, residuals, cotangents)
    rows = jax.jit(blend_backward)(*backward)
    grads = jax.jit(gather)(residuals.first_slots, residuals, rows)[0]
    keys, slots = flat.keys.reshape(-1), flat.slots.reshape(-1)
    return {
        "limits": microseconds(find_limits, (views, operands)),
        "project": microseconds(project, (views, operands, limits)),
        "bins": microseconds(bin_, (projected.depths, projected)),
        "emit": microseconds(emit, (binned.needed, projected, binned)),
        "tile sort": microseconds(tile_sort, (keys, slots)),
        "blend": microseconds(blend, (flat.ranges, operands, flat.records, lists)),
        "blend backward": microseconds(blend_backward, backward),
        "gather": microseconds(gather, (residuals.first_slots, residuals, rows)),
        "project backward": microseconds(
            project_backward, (views, operands, residuals.emitted, grads)
        ),
    }
