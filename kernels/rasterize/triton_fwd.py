"""Forward pass of the Triton backend: projection, binning, blending.

    project -> depth sort (XLA) -> block sums -> emit -> sort by tile (XLA) -> ranges -> blend

Both sorts take XLA's radix path on GPUs: one or two operands, 16- or 32-bit keys, all images
flattened into one array.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import triton_call
from kernels.rasterize import triton_config, triton_kernels, triton_projection
from kernels.types import CoreOutput, Operands, RasterizeConfig

_SUM_CHUNK = 256  # block sums that the emission adds at a time
_RANGE_BLOCK = 1024
_INT32_MAX = 2**31 - 1


class Residuals(NamedTuple):
    """What the backward pass needs beside the operands; leads with (S, C), numbered per image.

    Attributes:
        records: (S, C, N, 8), see triton_projection.
        counts: (S, C, N) int32, tiles that each splat touches.
        splats: (S, C, capacity) int32, the tiles' lists.
        ranges: (S, C, 1 + tiles, 2) int32, first slot and end of each list; the first is junk.
        transmittance: (S, C, H, W) float32.
        last: (S, C, H, W) int32, the slot after the last one blended.
        slots: (S, C, capacity) int32, where each list entry was emitted; deterministic mode only.
        first_slots, emitted: (S, C, N) int32, where each splat's entries were emitted, and how
            many; deterministic mode only.
    """

    records: jax.Array
    counts: jax.Array
    splats: jax.Array
    ranges: jax.Array
    transmittance: jax.Array
    last: jax.Array
    slots: jax.Array | None
    first_slots: jax.Array | None
    emitted: jax.Array | None


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
    pixels = config.height * config.width
    largest = sizes.images * max(
        sizes.splats * max(triton_projection.RECORD.value, sizes.channels),
        sizes.capacity * max(triton_projection.RECORD.value, sizes.channels),
        pixels * sizes.channels,
    )
    if largest > _INT32_MAX:
        raise NotImplementedError(
            "implementation 'triton' indexes with 32 bits: images x splats (or capacity) x channels "
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
    """records (I, N, 8), depths (I, N), counts (I, N), boxes (I, N, 2)."""
    sizes, options = sizes_of(operands, config, kernel.tile), config.options
    images, total = sizes.images, sizes.splats
    return triton_call.triton_call(
        triton_projection.project_kernel,
        *operands,
        outputs=(
            _shape((images, total, 8)),
            _shape((images, total)),
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


def _depth_order(depths: jax.Array) -> jax.Array:
    """Flat indices (I * N) of all splats: image by image, nearest first, ties by index."""
    images, total = depths.shape
    index = jax.lax.iota(jnp.int32, images * total)
    _, order = jax.lax.sort((depths.reshape(-1), index), num_keys=1, is_stable=True)
    if images > 1:
        # Least significant key first: a stable sort by image keeps the order within each image.
        # A sort along rows would leave the radix path.
        dtype = jnp.uint16 if images <= 1 << 16 else jnp.uint32
        _, order = jax.lax.sort(((order // total).astype(dtype), order), num_keys=1, is_stable=True)
    return order


def _saturated_sum(sums: jax.Array) -> jax.Array:
    """Sum of int32 (I, blocks) along the blocks, at most 2^31 - 1."""
    high, low = jnp.sum(sums >> 16, axis=-1), jnp.sum(sums & 0xFFFF, axis=-1)
    high, low = high + (low >> 16), low & 0xFFFF
    return jnp.where(high >= 1 << 15, _INT32_MAX, (high << 16) | low)


def _bin(records, depths, counts, boxes, sizes: Sizes, kernel, deterministic: bool):
    """Tile lists: sorted splats, ranges, needed intersections, and the deterministic extras."""
    images, total, capacity = sizes.images, sizes.splats, sizes.capacity
    order = _depth_order(depths)
    blocks = _cdiv(total, kernel.emit_block)
    (sums,) = triton_call.triton_call(
        triton_kernels.block_sum_kernel,
        order,
        counts,
        outputs=(_shape((images, blocks), jnp.int32),),
        grid=(blocks, images),
        scalars={"total": total},
        constants={"BLOCK": kernel.emit_block},
        num_warps=max(1, min(4, kernel.emit_block // 32)),
    )
    keys_per_image = sizes.tiles + 1
    key_dtype = jnp.uint16 if images * keys_per_image <= 1 << 16 else jnp.uint32
    per_slot = (images, capacity) if deterministic else (1,)
    per_splat = (images, total) if deterministic else (1,)
    keys, values, slot_splats, first_slots, emitted = triton_call.triton_call(
        triton_kernels.emit_kernel,
        order,
        counts,
        records,
        boxes,
        sums,
        outputs=(
            _shape((images, capacity), key_dtype),
            _shape((images, capacity), jnp.int32),
            _shape(per_slot, jnp.int32),
            _shape(per_splat, jnp.int32),
            _shape(per_splat, jnp.int32),
        ),
        grid=(blocks, images),
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
            "STEP": kernel.emit_step,
            "SUMS": _SUM_CHUNK,
            "DETERMINISTIC": deterministic,
        },
        num_warps=kernel.emit_warps,
        fp_fusion=False,
        # Untouched slots: key 0, and a splat that exists.
        zeroed=(0, 1, 2),
    )
    if images > 1:  # untouched slots stay with their image, so that its lists stay in its slots
        junk = (jnp.arange(images, dtype=key_dtype) * keys_per_image)[:, None]
        keys = jnp.maximum(keys, jnp.broadcast_to(junk, keys.shape))
    keys, values = jax.lax.sort((keys.reshape(-1), values.reshape(-1)), num_keys=1, is_stable=True)
    (ranges,) = triton_call.triton_call(
        triton_kernels.range_kernel,
        keys,
        outputs=(_shape((images, keys_per_image, 2), jnp.int32),),
        grid=(_cdiv(images * capacity, _RANGE_BLOCK),),
        scalars={
            "total": images * capacity,
            "capacity": capacity,
            "keys_per_image": keys_per_image,
        },
        constants={"BLOCK": _RANGE_BLOCK},
        zeroed=(0,),
    )
    values = values.reshape(images, capacity)
    needed = _saturated_sum(sums)
    if not deterministic:
        return values, ranges, needed, None
    splats = jnp.take_along_axis(slot_splats, values, axis=1, mode="clip")
    return splats, ranges, needed, (values, first_slots, emitted)


def _blend(operands: Operands, records, splats, ranges, sizes: Sizes, config, kernel):
    """image (I, H, W, D), transmittance, depth, last (I, H, W)."""
    images, height, width = sizes.images, config.height, config.width
    block_d = min(kernel.channel_block, triton_config.MAX_CHANNEL_BLOCK)
    return triton_call.triton_call(
        triton_kernels.blend_kernel,
        ranges,
        splats,
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
    )


def forward(operands: Operands, config: RasterizeConfig) -> tuple[CoreOutput, Residuals]:
    """Renders S scenes from C cameras each; see `kernels.types.Operands` for the shapes."""
    kernel = triton_config.choose(config, operands.features.shape[-1])
    sizes = sizes_of(operands, config, kernel.tile)
    records, depths, counts, boxes = _project(operands, config, kernel)
    splats, ranges, needed, extras = _bin(
        records, depths, counts, boxes, sizes, kernel, config.options.deterministic
    )
    image, transmittance, depth, last = _blend(
        operands, records, splats, ranges, sizes, config, kernel
    )
    slots, first_slots, emitted = extras or (None, None, None)
    residuals = Residuals(
        records, counts, splats, ranges, transmittance, last, slots, first_slots, emitted
    )
    output = CoreOutput(image, transmittance, depth, needed)
    lead = (sizes.scenes, sizes.cameras)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), (output, residuals))
