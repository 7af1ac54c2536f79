"""Forward pass of the Triton backend: projection, binning, blending.

    sample, limits -> project -> tally, bin, first slots -> emit -> sort by tile (XLA) -> ranges
        -> blend

`triton_depth` says how slots are handed out from near to far. The sort takes XLA's radix path on
GPUs: two operands, unsigned keys of 16 or 32 bits, all images flattened into one array.
"""

import math
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
    triton_splat,
)
from kernels.types import CoreOutput, Operands, RasterizeConfig

_SAMPLED = 64  # splats, of which one is a limit between bins
_SAMPLE_BLOCK = 128  # samples of a program that finds their depths
_LIMITS_BLOCK, _LIMITS_STEP = 16, 512  # samples of a program, and others that it compares at a time
_TALLY_BLOCK = 2048  # bins added up at a time
_BIN_BLOCK = 128  # splats of a program that puts them into bins
_SLOTS_BLOCK, _SLOTS_STEP = 32, 16  # splats of a program, and others that it compares at a time
_FILL = 256  # slots that a program of the emission numbers
_RANGE_BLOCK = 128
_INT32_MAX = 2**31 - 1
_MAX_TILES_A_SIDE = 2**15 - 1  # `boxes` holds two in one int32
_MAX_IMAGES = 65_535  # programs along a CUDA grid's second axis


class Residuals(NamedTuple):
    """What the backward pass needs beside the operands; leads with (S, C), numbered per image.

    A slot is a pair of splat and tile in the order of emission (splats from near to far); an entry
    is a pair in the order of the sorted lists.

    Attributes:
        records: (S, C, N, 8), see triton_splat.
        keys: (S, C, capacity) uint16 or uint32, the tile of each slot.
        first_slots, emitted: (S, C, N) int32, first slot of each splat, junk for one without any,
            and how many it has.
        splats: (S, C, capacity) int32, the tiles' lists.
        slots: (S, C, capacity) int32, the slot of each list entry.
        ranges: (S, C, 1 + tiles, 2) int32, first entry and end of each list; the first is junk.
        transmittance: (S, C, H, W) float32.
        last: (S, C, H, W) int32, the entry after the last one blended.
    """

    records: jax.Array
    keys: jax.Array
    first_slots: jax.Array
    emitted: jax.Array
    splats: jax.Array
    slots: jax.Array
    ranges: jax.Array
    transmittance: jax.Array
    last: jax.Array


class Sizes(NamedTuple):
    """Static sizes of one call."""

    scenes: int
    cameras: int
    splats: int
    channels: int
    tiles_x: int
    tiles_y: int
    capacity: int

    @property
    def images(self) -> int:
        return self.scenes * self.cameras

    @property
    def tiles(self) -> int:
        return self.tiles_x * self.tiles_y

    @property
    def samples(self) -> int:
        """Limits between bins of an image.

        Of more than 262,144 splats it is fewer than one in 64: comparing the samples takes their
        square, comparing splats within bins that of the splats over the samples, and this keeps the
        two in balance.
        """
        return min(_cdiv(self.splats, _SAMPLED), math.ceil(self.splats ** (2 / 3)))

    @property
    def keys_per_image(self) -> int:
        return self.tiles + 1

    @property
    def key_dtype(self):
        return jnp.uint16 if self.images * self.keys_per_image <= 1 << 16 else jnp.uint32


def sizes_of(operands: Operands, config: RasterizeConfig, tile: tuple[int, int]) -> Sizes:
    """Sizes of a call.

    Raises:
        NotImplementedError: not float32, or so large that kernels' 32-bit indices would overflow.
    """
    scenes, cameras = operands.viewmats.shape[:2]
    sizes = Sizes(
        scenes,
        cameras,
        operands.means.shape[1],
        operands.features.shape[-1],
        -(-config.width // tile[1]),
        -(-config.height // tile[0]),
        config.capacity,
    )
    if operands.means.dtype != jnp.float32:
        raise NotImplementedError(
            f"implementation 'triton' computes in float32, got {operands.means.dtype}; cast the "
            "arrays, or use implementation='xla'"
        )
    if max(sizes.tiles_x, sizes.tiles_y) > _MAX_TILES_A_SIDE:
        raise NotImplementedError(
            f"implementation 'triton' cuts an image into at most {_MAX_TILES_A_SIDE} tiles along a "
            f"side, got {sizes.tiles_y} x {sizes.tiles_x}; use a larger options.tile_size, or "
            "implementation='xla'"
        )
    if sizes.images > _MAX_IMAGES:
        raise NotImplementedError(
            f"implementation 'triton' renders at most {_MAX_IMAGES} images a call, got "
            f"{sizes.images} ({scenes} scenes x {cameras} cameras); split the batch, or use "
            "implementation='xla'"
        )
    pixels = config.height * config.width
    largest = sizes.images * max(
        sizes.splats * max(triton_splat.RECORD.value, sizes.channels + 1),
        sizes.capacity * max(triton_splat.RECORD.value, sizes.channels + 1),
        pixels * sizes.channels,
        2 * sizes.keys_per_image,
    )
    if largest > _INT32_MAX:
        raise NotImplementedError(
            "implementation 'triton' has 32-bit indices: images x splats (or capacity) x channels "
            f"must stay below 2^31, got {largest}; use fewer images a call or a smaller capacity"
        )
    return sizes


def _leads(operands: Operands) -> dict[str, int]:
    names = ("means", "quats", "scales", "opacities", "features")
    return {f"{name}_lead": getattr(operands, name).shape[0] for name in names}


def _cdiv(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _shape(shape: tuple[int, ...], dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _limits(operands: Operands, sizes: Sizes) -> jax.Array:
    """Keys between the bins of each image, (I, samples) int64 as (I, samples, 2) int32."""
    samples = sizes.samples
    shape = _shape((sizes.images, samples, 2), jnp.int32)
    (keys,) = triton_call.triton_call(
        triton_depth.sample_kernel,
        operands.means,
        operands.viewmats,
        outputs=(shape,),
        grid=(_cdiv(samples, _SAMPLE_BLOCK), sizes.images),
        scalars={
            "total": sizes.splats,
            "cameras": sizes.cameras,
            "samples": samples,
            "means_lead": operands.means.shape[0],
        },
        constants={"BLOCK": _SAMPLE_BLOCK},
        fp_fusion=False,  # must find the depths that the projection finds
    )
    (limits,) = triton_call.triton_call(
        triton_depth.limits_kernel,
        keys,
        outputs=(shape,),
        grid=(_cdiv(samples, _LIMITS_BLOCK), sizes.images),
        scalars={"samples": samples},
        constants={"BLOCK": _LIMITS_BLOCK, "STEP": _LIMITS_STEP},
    )
    return limits


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
    operands: Operands, limits, config: RasterizeConfig, kernel: triton_config.KernelConfig
) -> Projected:
    sizes, options = sizes_of(operands, config, kernel.tile), config.options
    images, total = sizes.images, sizes.splats
    row = _shape((images, total), jnp.int32)
    outputs = Projected(
        records=_shape((images, total, 8)),
        depths=_shape((images, total)),
        counts=row,
        boxes=_shape((images, total, 2), jnp.int32),
        bins=row,
        places=row,
        tallies=_shape((images, sizes.samples + 1, 4), jnp.int32),
    )
    projected = triton_call.triton_call(
        triton_projection.project_kernel,
        *operands,
        limits,
        outputs=outputs,
        grid=(_cdiv(total, kernel.project_block), images),
        scalars={
            "total": total,
            "samples": sizes.samples,
            "half": 1 << (sizes.samples.bit_length() - 1) if sizes.samples else 0,
            "cameras": sizes.cameras,
            "width": config.width,
            "height": config.height,
            "tiles_x": sizes.tiles_x,
            "tiles_y": sizes.tiles_y,
            **_leads(operands),
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
        zeroed=(outputs._fields.index("tallies"),),
    )
    return Projected(*projected)


def _first_slots(projected: Projected, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """First slot of each splat (I, N), and the intersections of each image (I,), int32."""
    images, total, samples = sizes.images, sizes.splats, sizes.samples
    ends = _shape((images, samples + 2), jnp.int32)
    starts, before, needed = triton_call.triton_call(
        triton_depth.tally_kernel,
        projected.tallies,
        outputs=(ends, ends, _shape((images,), jnp.int32)),
        grid=(images,),
        scalars={"bins": samples + 1},
        constants={"BLOCK": _TALLY_BLOCK},
        num_warps=8,
    )
    (binned,) = triton_call.triton_call(
        triton_depth.bin_kernel,
        projected.depths,
        projected.counts,
        projected.bins,
        projected.places,
        starts,
        outputs=(_shape((images, total, 4), jnp.int32),),
        grid=(_cdiv(total, _BIN_BLOCK), images),
        scalars={"total": total, "samples": samples},
        constants={"BLOCK": _BIN_BLOCK},
    )
    (first_slots,) = triton_call.triton_call(
        triton_depth.first_slots_kernel,
        binned,
        starts,
        before,
        outputs=(_shape((images, total), jnp.int32),),
        grid=(_cdiv(total, _SLOTS_BLOCK), images),
        scalars={"total": total, "samples": samples, "capacity": sizes.capacity},
        constants={"BLOCK": _SLOTS_BLOCK, "STEP": _SLOTS_STEP},
        num_warps=1,
    )
    return first_slots, needed


def _emit(projected: Projected, first_slots, needed, sizes: Sizes, kernel):
    """keys, slots, slot_splats (I, capacity), emitted (I, N)."""
    images, total, capacity = sizes.images, sizes.splats, sizes.capacity
    return triton_call.triton_call(
        triton_binning.emit_kernel,
        projected.counts,
        first_slots,
        needed,
        projected.records,
        projected.boxes,
        outputs=(
            _shape((images, capacity), sizes.key_dtype),
            _shape((images, capacity), jnp.int32),
            _shape((images, capacity), jnp.int32),
            _shape((images, total), jnp.int32),
        ),
        # Programs number the slots, too: a large capacity takes more of them than few splats do.
        grid=(max(_cdiv(total, kernel.emit_block), _cdiv(capacity, _FILL)), images),
        scalars={
            "total": total,
            "capacity": capacity,
            "tiles_x": sizes.tiles_x,
            "tiles_per_image": sizes.tiles,
        },
        constants={
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "BLOCK": kernel.emit_block,
            "FILL": _FILL,
        },
        num_warps=kernel.emit_warps,
        fp_fusion=False,  # must decide on tiles exactly as the count did
    )


def _bin(projected: Projected, sizes: Sizes, kernel):
    """Tile lists: (splats, slots, ranges) and the rest of their `Residuals`; the need (I,)."""
    images, capacity, keys_per_image = sizes.images, sizes.capacity, sizes.keys_per_image
    first_slots, needed = _first_slots(projected, sizes)
    keys, slots, slot_splats, emitted = _emit(projected, first_slots, needed, sizes, kernel)
    sort_keys, slots = jax.lax.sort(
        (keys.reshape(-1), slots.reshape(-1)), num_keys=1, is_stable=True
    )
    ranges, splats = triton_call.triton_call(
        triton_binning.range_kernel,
        sort_keys,
        slots,
        slot_splats,
        outputs=(
            _shape((images, keys_per_image, 2), jnp.int32),
            _shape((images, capacity), jnp.int32),
        ),
        grid=(_cdiv(images * capacity, _RANGE_BLOCK),),
        scalars={
            "total": images * capacity,
            "capacity": capacity,
            "keys_per_image": keys_per_image,
        },
        constants={"BLOCK": _RANGE_BLOCK},
        zeroed=(0,),
    )
    lists = {
        "keys": keys,
        "first_slots": first_slots,
        "emitted": emitted,
        "splats": splats,
        "slots": slots.reshape(images, capacity),
        "ranges": ranges,
    }
    return lists, needed


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
            _shape((images, height, width, sizes.channels)),
            _shape((images, height, width)),
            _shape((images, height, width)),
            _shape((images, height, width), jnp.int32),
        ),
        grid=(sizes.tiles, images, _cdiv(sizes.channels, block_d)),
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


def forward(operands: Operands, config: RasterizeConfig) -> tuple[CoreOutput, Residuals]:
    """Renders S scenes from C cameras each; see `kernels.types.Operands` for the shapes."""
    kernel = triton_config.choose(config, operands.features.shape[-1])
    sizes = sizes_of(operands, config, kernel.tile)
    projected = _project(operands, _limits(operands, sizes), config, kernel)
    lists, needed = _bin(projected, sizes, kernel)
    records = projected.records
    image, transmittance, depth, last = _blend(operands, records, lists, sizes, config, kernel)
    residuals = Residuals(records=records, transmittance=transmittance, last=last, **lists)
    output = CoreOutput(image, transmittance, depth, needed)
    lead = (sizes.scenes, sizes.cameras)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), (output, residuals))
