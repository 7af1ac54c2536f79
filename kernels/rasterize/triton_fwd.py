"""Forward pass of the Triton backend: projection, binning, blending.

    sample, limits -> project -> tally, bin -> emit -> sort by tile (XLA) -> ranges -> blend

`triton_depth` says how slots are handed out from near to far. The sort takes XLA's radix path on
GPUs: two operands, unsigned keys of 16 or 32 bits, all images flattened into one array.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import triton_call
from kernels.rasterize import (
    triton_binning,
    triton_blend,
    triton_config,
    triton_depth,
    triton_projection,
    triton_sizes,
)
from kernels.rasterize.triton_sizes import Residuals, Sizes, cdiv, leads, shaped, sizes_of
from kernels.types import CoreOutput, Operands, RasterizeConfig

_SAMPLE_BLOCK = 128  # samples of a program that finds their depths
_LIMITS_BLOCK, _LIMITS_STEP = 16, 512  # samples of a program, and others that it compares at a time
_TALLY_BLOCK, _TALLY_STEP = 256, 1024  # bins of a program, and others that it adds up at a time
_BIN_BLOCK = 128  # splats of a program that puts them into bins
_EMIT_STEP = 16  # splats of the same bins that a program of the emission compares at a time
_FILL = 256  # slots that a program of the emission numbers
_RANGE_BLOCK = 128


def _limits(operands: Operands, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """Keys between the bins of each image, (I, samples, 2) int32, and empty tallies of the bins."""
    images, samples = sizes.images, sizes.samples
    shape = shaped((images, samples, 2), jnp.int32)
    keys, tallies = triton_call.triton_call(
        triton_depth.sample_kernel,
        operands.means,
        operands.viewmats,
        outputs=(shape, shaped((images, samples + 1, 4), jnp.int32)),
        grid=(cdiv(samples + 1, _SAMPLE_BLOCK), images),
        scalars={
            "total": sizes.splats,
            "cameras": sizes.cameras,
            "samples": samples,
            **leads(operands, ("means",)),
        },
        constants={"BLOCK": _SAMPLE_BLOCK},
        fp_fusion=False,  # must find the depths that the projection finds
    )
    (limits,) = triton_call.triton_call(
        triton_depth.limits_kernel,
        keys,
        outputs=(shape,),
        grid=(cdiv(samples, _LIMITS_BLOCK), images),
        scalars={"samples": samples},
        constants={"BLOCK": _LIMITS_BLOCK, "STEP": _LIMITS_STEP},
    )
    return limits, tallies


class Projected(NamedTuple):
    """What the projection makes of I images of N splats each.

    Attributes:
        records: (I, N, 8), see triton_splat.
        depths: (I, N) float32.
        counts: (I, N) int32, tiles that each splat touches.
        boxes: (I, N, 2) int32, the box of tiles that holds these.
        bins: (I, N) int32, bin of each splat that touches a tile.
        places: (I, N) int32, its place in the bin, which differs from run to run.
        tallies: (I, samples + 1, 4) int32, see `triton_depth.join_bin`.
    """

    records: jax.Array
    depths: jax.Array
    counts: jax.Array
    boxes: jax.Array
    bins: jax.Array
    places: jax.Array
    tallies: jax.Array


def _project(
    operands: Operands, limits, tallies, config: RasterizeConfig, kernel: triton_config.KernelConfig
) -> Projected:
    sizes, options = sizes_of(operands, config, kernel.tile), config.options
    images, total = sizes.images, sizes.splats
    row = shaped((images, total), jnp.int32)
    outputs = Projected(
        records=shaped((images, total, 8)),
        depths=shaped((images, total)),
        counts=row,
        boxes=shaped((images, total, 2), jnp.int32),
        bins=row,
        places=row,
        tallies=shaped((images, sizes.samples + 1, 4), jnp.int32),
    )
    projected = triton_call.triton_call(
        triton_projection.project_kernel,
        *operands,
        limits,
        tallies,
        outputs=outputs,
        grid=(cdiv(total, kernel.project_block), images),
        scalars={
            "total": total,
            "samples": sizes.samples,
            "half": 1 << (sizes.samples.bit_length() - 1),
            "cameras": sizes.cameras,
            "width": config.width,
            "height": config.height,
            "tiles_x": sizes.tiles_x,
            "tiles_y": sizes.tiles_y,
            **leads(operands, ("means", "quats", "scales", "opacities", "features")),
        },
        constants={
            "CHANNELS": sizes.channels,
            "BLOCK_D": min(4, 1 << (sizes.channels - 1).bit_length()),
            "NEAR": float(options.near),
            "FAR": float(options.far),
            "EPS2D": float(options.eps2d),
            "RADIUS_CLIP": float(options.radius_clip),
            "ANTIALIASED": options.mode == "antialiased",
            "MIN_COMPENSATION": float(options.min_compensation),
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "BLOCK": kernel.project_block,
        },
        num_warps=kernel.project_warps,
        fp_fusion=False,  # must decide on tiles exactly as the emission does
        aliases=((len(operands) + 1, outputs._fields.index("tallies")),),
    )
    return Projected(*projected)


class Binned(NamedTuple):
    """Splats that touch tiles, bin by bin from near to far, of I images.

    Attributes:
        binned: (I, N, 4) int32, see `triton_depth.bin_kernel`.
        starts, before: (I, samples + 2) int32, splats and intersections before each bin.
        needed: (I,) int32, all intersections.
    """

    binned: jax.Array
    starts: jax.Array
    before: jax.Array
    needed: jax.Array


def _bin(projected: Projected, sizes: Sizes) -> Binned:
    images, total, samples = sizes.images, sizes.splats, sizes.samples
    ends = shaped((images, samples + 2), jnp.int32)
    starts, before, needed = triton_call.triton_call(
        triton_depth.tally_kernel,
        projected.tallies,
        outputs=(ends, ends, shaped((images,), jnp.int32)),
        grid=(cdiv(samples + 2, _TALLY_BLOCK), images),
        scalars={"bins": samples + 1},
        constants={"BLOCK": _TALLY_BLOCK, "STEP": _TALLY_STEP},
    )
    (binned,) = triton_call.triton_call(
        triton_depth.bin_kernel,
        projected.depths,
        projected.counts,
        projected.bins,
        projected.places,
        starts,
        outputs=(shaped((images, total, 4), jnp.int32),),
        grid=(cdiv(total, _BIN_BLOCK), images),
        scalars={"total": total, "samples": samples},
        constants={"BLOCK": _BIN_BLOCK},
    )
    return Binned(binned, starts, before, needed)


class Emission(NamedTuple):
    """What the emission makes of I images; see `Residuals` for what is not here.

    Attributes:
        keys, first_slots, emitted: the residuals, with one leading axis.
        slots: (I, capacity) int32, the slots' own numbers; (1,) where there will be no backward
            pass.
        slot_splats: (I, capacity) int32, the splat of each slot.
        ranges: (I, tiles, 2) int32, zeros.
    """

    keys: jax.Array
    slots: jax.Array
    slot_splats: jax.Array
    first_slots: jax.Array
    emitted: jax.Array
    ranges: jax.Array


def _emit(projected: Projected, binned: Binned, sizes: Sizes, kernel, keep: bool) -> Emission:
    images, total, capacity = sizes.images, sizes.splats, sizes.capacity
    slot, row = shaped((images, capacity), jnp.int32), shaped((images, total), jnp.int32)
    outputs = Emission(
        keys=shaped((images, capacity), sizes.key_dtype),
        slots=slot if keep else shaped((1,), jnp.int32),
        slot_splats=slot,
        first_slots=row,
        emitted=row,
        ranges=shaped((images, sizes.tiles, 2), jnp.int32),
    )
    operands = (*binned, projected.records, projected.boxes, projected.counts)
    # Programs number the slots and empty the ranges, too: that may take more than few splats do.
    filled = max(capacity, 2 * sizes.tiles)
    emission = triton_call.triton_call(
        triton_binning.emit_kernel,
        *operands,
        outputs=outputs,
        grid=(max(cdiv(total, kernel.emit_block), cdiv(filled, _FILL)), images),
        scalars={
            "total": total,
            "samples": sizes.samples,
            "capacity": capacity,
            "tiles_x": sizes.tiles_x,
            "tiles": sizes.tiles,
        },
        constants={
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "BLOCK": kernel.emit_block,
            "STEP": _EMIT_STEP,
            "FILL": _FILL,
            "LARGE": triton_sizes.LARGE,
            "NUMBER": keep,
        },
        num_warps=kernel.emit_warps,
        fp_fusion=False,  # must decide on tiles exactly as the count did
        aliases=((len(operands) - 1, outputs._fields.index("emitted")),),
    )
    return Emission(*emission)


def _lists(emission: Emission, needed, sizes: Sizes, keep: bool) -> dict[str, jax.Array]:
    """Tiles' lists, and what else of them is in `Residuals` if that is to be kept.

    The backward pass needs the slots, by which the splats are found; without one the splats are
    sorted.
    """
    images, capacity = sizes.images, sizes.capacity
    values = emission.slots if keep else emission.slot_splats
    sort_keys, values = jax.lax.sort(
        (emission.keys.reshape(-1), values.reshape(-1)), num_keys=1, is_stable=True
    )
    values = values.reshape(images, capacity)
    ranges, splats = triton_call.triton_call(
        triton_binning.range_kernel,
        sort_keys,
        values,
        emission.slot_splats,
        needed,
        emission.ranges,
        outputs=(
            shaped((images, sizes.tiles, 2), jnp.int32),
            shaped((images, capacity) if keep else (1,), jnp.int32),
        ),
        grid=(cdiv(images * capacity, _RANGE_BLOCK),),
        scalars={
            "total": images * capacity,
            "capacity": capacity,
            "tiles": sizes.tiles,
        },
        constants={"BLOCK": _RANGE_BLOCK, "LOOK_UP": keep},
        aliases=((4, 0),),
    )
    return {
        "keys": emission.keys,
        "first_slots": emission.first_slots,
        "emitted": emission.emitted,
        "splats": splats if keep else values,
        "slots": values,
        "ranges": ranges,
    }


def _blend(operands: Operands, records, lists, sizes: Sizes, config, kernel):
    """image (I, H, W, D), transmittance, depth, last (I, H, W)."""
    images, height, width = sizes.images, config.height, config.width
    block_d = kernel.block_of(sizes.channels)
    return triton_call.triton_call(
        triton_blend.blend_kernel,
        lists["ranges"],
        lists["splats"],
        records,
        operands.features,
        outputs=(
            shaped((images, height, width, sizes.channels)),
            shaped((images, height, width)),
            shaped((images, height, width)),
            shaped((images, height, width), jnp.int32),
        ),
        grid=(sizes.tiles, images, cdiv(sizes.channels, block_d)),
        scalars={
            "total": sizes.splats,
            "capacity": sizes.capacity,
            "cameras": sizes.cameras,
            "width": width,
            "height": height,
            "tiles_x": sizes.tiles_x,
            "features_lead": operands.features.shape[0],
        },
        constants={
            "CHANNELS": sizes.channels,
            "BLOCK_D": block_d,
            "MAX_ALPHA": float(config.options.max_alpha),
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "CHUNK": kernel.forward_chunk,
            "USE_DOT": kernel.use_dot,
        },
        num_warps=kernel.forward_warps,
        max_registers=kernel.forward_registers,
    )


def forward(
    operands: Operands, config: RasterizeConfig, *, keep: bool
) -> tuple[CoreOutput, Residuals]:
    """Renders S scenes from C cameras each; see `kernels.types.Operands` for the shapes.

    Args:
        operands: what to render.
        config: the static configuration.
        keep: whether a backward pass will follow; without one the residuals are not right.
    """
    kernel = triton_config.choose(config, operands.features.shape[-1])
    sizes = sizes_of(operands, config, kernel.tile)
    projected = _project(operands, *_limits(operands, sizes), config, kernel)
    binned = _bin(projected, sizes)
    emission = _emit(projected, binned, sizes, kernel, keep)
    lists = _lists(emission, binned.needed, sizes, keep)
    records = projected.records
    image, transmittance, depth, last = _blend(operands, records, lists, sizes, config, kernel)
    residuals = Residuals(records=records, transmittance=transmittance, last=last, **lists)
    output = CoreOutput(image, transmittance, depth, binned.needed)
    lead = (sizes.scenes, sizes.cameras)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), (output, residuals))
