"""Launch parameters of the Triton kernels: a table per GPU, made by `python -m kernels.tune`.

Nothing is tuned at run time: JAX would run an autotuner before the operations that feed it. The
table is `triton_tuned.json` beside this file. An entry with "measured": false is a choice made from
instruction counts and register use, not from timings.
"""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path

from kernels import triton_call
from kernels.types import RasterizeConfig

TABLE = Path(__file__).with_name("triton_tuned.json")
# The table has an entry for at most this many channels, depth included.
CHANNEL_CLASSES = (4, 64)
# From here on sums over channels and splats are matrix products for the tensor cores.
MIN_DOT_CHANNELS = 8
# Coordinates about a tile's centre, squared, are quarters that tf32 holds exactly up to this side.
MAX_TILE_SIDE = 32


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """Launch parameters; none of them changes a result beyond rounding.

    Attributes:
        tile: tile (height, width) in pixels, powers of two up to 32, at least 16 pixels.
        forward_chunk, backward_chunk: splats blended at a time, powers of two from 16 on (the least
            inner dimension of a tensor-core product).
        forward_warps, backward_warps: warps of a tile's program.
        feature_warps: warps of the program for feature gradients of more than three channels.
        channel_block: most channels that one program blends, a power of two, depth not counted.
        forward_registers: registers a thread of blending may use; None leaves it to ptxas, which
            spills a few to fit one more program.
        project_block, project_warps: splats and warps of a projection program.
        project_registers: registers a thread of the projection's gradient may use.
        emit_block, emit_warps: splats and warps of an emission program.
        measured: True when timings on this GPU chose the numbers.
    """

    tile: tuple[int, int] = (8, 8)
    forward_chunk: int = 16
    forward_warps: int = 1
    backward_chunk: int = 16
    backward_warps: int = 1
    feature_warps: int = 2
    channel_block: int = 4
    forward_registers: int | None = None
    project_block: int = 32
    project_warps: int = 1
    project_registers: int = 128
    emit_block: int = 32
    emit_warps: int = 1
    measured: bool = False

    def block_of(self, channels: int) -> int:
        """Channels that each program blends: no more than there are, up to the next power of 2."""
        return min(self.channel_block, max(16, 1 << (channels - 1).bit_length()))

    @property
    def use_dot(self) -> bool:
        """Whether sums over channels and splats are matrix products."""
        return self.channel_block >= MIN_DOT_CHANNELS


def channel_class(channels: int) -> int:
    """The table's class for a number of feature channels (depth comes on top)."""
    return next((size for size in CHANNEL_CLASSES if channels + 1 <= size), CHANNEL_CLASSES[-1])


@functools.cache
def _read_table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def lookup(capability: int, channels: int) -> KernelConfig:
    """Table entry for a compute capability and a number of channels.

    A GPU without entries of its own takes those of the nearest older one.
    """
    table = _read_table()["entries"]
    known = sorted(int(name.removeprefix("sm_")) for name in table)
    name = f"sm_{max((cc for cc in known if cc <= capability), default=known[0])}"
    entry = dict(table[name][str(channel_class(channels))])
    entry["tile"] = tuple(entry["tile"])
    if name != f"sm_{capability}":
        entry["measured"] = False
    return KernelConfig(**entry)


_overrides: list[KernelConfig] = []


@contextlib.contextmanager
def override(kernel: KernelConfig):
    """Every call uses `kernel`: for tuning. Functions jitted before stay as they are."""
    _overrides.append(kernel)
    try:
        yield
    finally:
        _overrides.pop()


def choose(config: RasterizeConfig, channels: int) -> KernelConfig:
    """Launch parameters of a call: the table's, with the tile size that the options ask for.

    Raises:
        NotImplementedError: the tile size asked for is not one that kernels have.
    """
    if _overrides:
        return _overrides[-1]
    chosen = lookup(triton_call.cuda_capability(), channels)
    tile = config.options.tile_size
    if tile is None or tile == chosen.tile:
        return chosen
    pixels = tile[0] * tile[1]
    if pixels & (pixels - 1) or pixels < 16 or max(tile) > MAX_TILE_SIDE:
        raise NotImplementedError(
            "options.tile_size: implementation 'triton' takes powers of two up to "
            f"{MAX_TILE_SIDE} with at least 16 pixels in a tile, got {tile}; use (8, 8), (8, 16), "
            "or None"
        )
    # Two pixels a thread, as in the table, up to eight warps; backwards, which would spill, one.
    forward, backward = (min(8, max(1, pixels // share)) for share in (64, 32))
    return dataclasses.replace(chosen, tile=tile, forward_warps=forward, backward_warps=backward)
