"""Forward pass of the Triton backend: projection, binning, blending.

    project -> depth sort (XLA) -> prefix sums -> emit -> sort by tile (XLA) -> ranges -> blend

Both sorts take XLA's radix path on GPUs: two operands, unsigned keys of 16 or 32 bits, all images
flattened into one array. Float keys would not: JAX compares floats in a total order of its own, and
XLA knows a radix sort of pairs only by the plain "less than" of integers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import triton_call
from kernels.rasterize import (
    triton_binning,
    triton_blend,
    triton_config,
    triton_projection,
    triton_splat,
)
from kernels.types import CoreOutput, Operands, RasterizeConfig

_PREFIX_BLOCK = 512  # splats of a prefix sum; more could overflow 32 bits
_SUM_CHUNK = 256  # their sums that the emission adds at a time
_FILL = 8  # slots that a thread numbers
_RANGE_BLOCK = 1024
_INT32_MAX = 2**31 - 1
_MAX_TILES = 2**21  # what nth_tile can number
_MAX_TILES_A_SIDE = 2**15 - 1  # `boxes` holds two in one int32
_MAX_IMAGES = 65_535  # programs along a CUDA grid's second axis


class Residuals(NamedTuple):
    """What the backward pass needs beside the operands; leads with (S, C), numbered per image.

    A slot is a pair of splat and tile in the order of emission (splats from near to far); an entry
    is a pair in the order of the sorted lists.

    Attributes:
        records: (S, C, N, 8), see triton_splat.
        keys: (S, C, capacity) uint16 or uint32, the tile of each slot.
        first_slots, emitted: (S, C, N) int32, first slot of each splat, and how many it has.
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
    if sizes.tiles > _MAX_TILES or max(sizes.tiles_x, sizes.tiles_y) > _MAX_TILES_A_SIDE:
        raise NotImplementedError(
            f"implementation 'triton' cuts an image into at most {_MAX_TILES} tiles, "
            f"{_MAX_TILES_A_SIDE} along a side, got {sizes.tiles_y} x {sizes.tiles_x}; use a "
            "larger options.tile_size, or implementation='xla'"
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


def _project(operands: Operands, config: RasterizeConfig, kernel: triton_config.KernelConfig):
    """records (I, N, 8), depths, counts, numbers (I, N), boxes (I, N, 2).

    `numbers` are 0, 1, ... through all images: what the depth sort carries along.
    """
    sizes, options = sizes_of(operands, config, kernel.tile), config.options
    images, total = sizes.images, sizes.splats
    return triton_call.triton_call(
        triton_projection.project_kernel,
        *operands,
        outputs=(
            _shape((images, total, 8)),
            _shape((images, total)),
            _shape((images, total), jnp.int32),
            _shape((images, total), jnp.int32),
            _shape((images, total, 2), jnp.int32),
        ),
        grid=(_cdiv(total, kernel.project_block), images),
        scalars={
            "total": total,
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
            "STEP": kernel.emit_step,
        },
        num_warps=kernel.project_warps,
        fp_fusion=False,  # must decide on tiles exactly as the emission does
    )


def _depth_order(depths: jax.Array, numbers: jax.Array) -> jax.Array:
    """Flat indices (I * N) of all splats: image by image, nearest first, ties by index."""
    images, total = depths.shape
    # Depths are positive, or infinite where nothing is visible: they sort like their bits.
    bits = jax.lax.bitcast_convert_type(depths.reshape(-1), jnp.uint32)
    _, order = jax.lax.sort((bits, numbers.reshape(-1)), num_keys=1, is_stable=True)
    if images > 1:
        # Least significant key first: a stable sort by image keeps the order within each image.
        # A sort along rows would leave the radix path.
        dtype = jnp.uint16 if images <= 1 << 16 else jnp.uint32
        _, order = jax.lax.sort(((order // total).astype(dtype), order), num_keys=1, is_stable=True)
    return order


def _saturated_sum(sums: jax.Array) -> jax.Array:
    """Sum of int32 (I, blocks) along the blocks, at most 2^31 - 1."""

    # No pair of numbers below 2^31 exceeds 32 bits, and saturated numbers add up in any order.
    def add(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.minimum(one + other, jnp.uint32(_INT32_MAX))

    total = jax.lax.reduce(sums.astype(jnp.uint32), jnp.uint32(0), add, (1,))
    return total.astype(jnp.int32)


def _emit(order, records, counts, boxes, sizes: Sizes, kernel):
    """Sums (I, blocks), then keys, slots, slot_splats (I, capacity), first, number (I, N)."""
    images, total, capacity = sizes.images, sizes.splats, sizes.capacity
    blocks = _cdiv(total, _PREFIX_BLOCK)
    before, sums = triton_call.triton_call(
        triton_binning.prefix_kernel,
        order,
        counts,
        outputs=(_shape((images, total), jnp.int32), _shape((images, blocks), jnp.int32)),
        grid=(blocks, images),
        scalars={"total": total},
        constants={"BLOCK": _PREFIX_BLOCK},
    )
    emission = triton_call.triton_call(
        triton_binning.emit_kernel,
        order,
        counts,
        records,
        boxes,
        before,
        sums,
        outputs=(
            _shape((images, capacity), sizes.key_dtype),
            _shape((images, capacity), jnp.int32),
            _shape((images, capacity), jnp.int32),
            _shape((images, total), jnp.int32),
            _shape((images, total), jnp.int32),
        ),
        # Programs number the slots, too: a large capacity takes more of them than few splats do.
        grid=(_cdiv(max(total, capacity // _FILL), kernel.emit_block), images),
        scalars={
            "total": total,
            "capacity": capacity,
            "tiles_x": sizes.tiles_x,
            "tiles_per_image": sizes.tiles,
            "blocks": blocks,
        },
        constants={
            "TILE_W": kernel.tile[1],
            "TILE_H": kernel.tile[0],
            "BLOCK": kernel.emit_block,
            "STEP": kernel.emit_step,
            "PREFIX": _PREFIX_BLOCK,
            "SUMS": _SUM_CHUNK,
        },
        num_warps=kernel.emit_warps,
        fp_fusion=False,  # must decide on tiles exactly as the count did
    )
    return sums, emission


def _bin(records, depths, counts, numbers, boxes, sizes: Sizes, kernel):
    """Tile lists: (splats, slots, ranges) and the rest of their `Residuals`; the need (I,)."""
    images, capacity, keys_per_image = sizes.images, sizes.capacity, sizes.keys_per_image
    order = _depth_order(depths, numbers)
    sums, emission = _emit(order, records, counts, boxes, sizes, kernel)
    keys, slots, slot_splats, first_slots, emitted = emission
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
    return lists, _saturated_sum(sums)


def _blend(operands: Operands, records, lists, sizes: Sizes, config, kernel):
    """image (I, H, W, D), transmittance, depth, last (I, H, W)."""
    images, height, width = sizes.images, config.height, config.width
    block_d = min(kernel.channel_block, triton_config.MAX_CHANNEL_BLOCK)
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
        grid=(sizes.tiles, images, _cdiv(sizes.channels + 1, block_d)),
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
    projected = _project(operands, config, kernel)
    records = projected[0]
    lists, needed = _bin(*projected, sizes, kernel)
    image, transmittance, depth, last = _blend(operands, records, lists, sizes, config, kernel)
    residuals = Residuals(records=records, transmittance=transmittance, last=last, **lists)
    output = CoreOutput(image, transmittance, depth, needed)
    lead = (sizes.scenes, sizes.cameras)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), (output, residuals))
