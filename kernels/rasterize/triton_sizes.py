"""What both passes of the Triton backend know of a call: its sizes, and what is kept between."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.rasterize import triton_splat
from kernels.types import Operands, RasterizeConfig

LARGE = 256  # tiles; of a splat with more, all threads of a program may take care
_SAMPLED = 64  # splats, of which one is a limit between bins
_INT32_MAX = 2**31 - 1
_MAX_TILES_A_SIDE = 2**15 - 1  # `boxes` holds two in one int32
_MAX_IMAGES = 65_535  # programs along a CUDA grid's second axis


class Residuals(NamedTuple):
    """What the backward pass needs beside the operands; leads with (S, C).

    Splats, slots and entries are numbered within each image. Only keys know its number, that of
    the forward pass: a vmap of the backward pass alone repeats them.

    A slot is a pair of splat and tile in the order of emission (splats from near to far); an entry
    is a pair in the order of the sorted lists.

    Attributes:
        records: (S, C, N, 8), see triton_splat.
        keys: (S, C, capacity) uint16 or uint32, the tile of each slot, and the tiles of all images
            before.
        first_slots, emitted: (S, C, N) int32, first slot of each splat, junk for one without any,
            and how many it has.
        splats: (S, C, capacity) int32, the tiles' lists.
        slots: (S, C, capacity) int32, the slot of each list entry.
        ranges: (S, C, tiles, 2) int32, first entry of each list and the one after its last.
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
        return min(cdiv(self.splats, _SAMPLED), math.ceil(self.splats ** (2 / 3)))

    @property
    def key_dtype(self):
        return jnp.uint16 if self.images * self.tiles <= 1 << 16 else jnp.uint32


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
        cdiv(config.width, tile[1]),
        cdiv(config.height, tile[0]),
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
        2 * sizes.tiles,
    )
    if largest > _INT32_MAX:
        raise NotImplementedError(
            "implementation 'triton' has 32-bit indices: images x splats (or capacity) x channels "
            f"must stay below 2^31, got {largest}; use fewer images a call or a smaller capacity"
        )
    return sizes


def leads(operands: Operands, names: tuple[str, ...]) -> dict[str, int]:
    """Scalars of kernels: how many scenes these arrays have, all or one that all share."""
    return {f"{name}_lead": getattr(operands, name).shape[0] for name in names}


def cdiv(numerator: int, denominator: int) -> int:
    """The quotient, rounded up."""
    return -(-numerator // denominator)


def shaped(shape: tuple[int, ...], dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    """An output of a kernel."""
    return jax.ShapeDtypeStruct(shape, dtype)
