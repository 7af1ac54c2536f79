"""The tiled backend in plain XLA operations: static shapes, any platform, made for CPU and TPU.

Forward: project, build depth-sorted tile lists (`binning`), then blend tiles in blocks. A block is
a set of tiles with lists of similar length; its splats are blended a chunk at a time until the
lists end or every pixel is opaque, so the work follows the scene although all shapes are static.

Backward: the same blocks in reverse order, closed-form gradients of the blending accumulated per
splat, then the vector-Jacobian product of the projection. Nothing is sorted again.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import device
from kernels.rasterize import binning, projection, xla_blend
from kernels.types import CoreOutput, Operands, RasterizeConfig


class Residuals(NamedTuple):
    """Kept for the backward pass; everything leads with (S, C)."""

    splats: jax.Array  # (S, C, capacity) int32
    starts: jax.Array  # (S, C, tiles + 1) int32
    transmittance: jax.Array  # (S, C, tiles, pixels of a tile)
    passed: jax.Array  # (S, C, tiles, pixels of a tile) int32: list entries before the stop


def choose_tile_size(config: RasterizeConfig) -> tuple[int, int]:
    """Tile (height, width): the option, or what was fastest for splats of a few pixels."""
    return config.options.tile_size or (8, 8)


def _refuse_atomics(config: RasterizeConfig) -> None:
    """XLA adds in a fixed order on CPU and TPU, and with atomics on GPUs."""
    if config.options.deterministic and device.platform() not in ("cpu", "tpu"):
        raise NotImplementedError(
            "options.deterministic: the xla backend adds gradients with atomics on this platform; "
            "use implementation='triton'"
        )


def _refuse_large(operands: Operands, config: RasterizeConfig) -> None:
    scenes, cameras = operands.viewmats.shape[:2]
    largest = scenes * cameras * max(operands.means.shape[1], config.capacity)
    if largest >= 1 << 31:
        raise NotImplementedError(
            "implementation 'xla' has 32-bit indices: images x splats (or capacity) must stay "
            f"below 2^31, got {largest}; use fewer images a call or a smaller options.capacity"
        )


def _grid(config: RasterizeConfig) -> binning.TileGrid:
    return binning.TileGrid(config.height, config.width, *choose_tile_size(config))


def _scene_rows(array: jax.Array, scenes: int) -> jax.Array:
    """Gaussian array (L, ...) with one row per scene (S, ...)."""
    if array.shape[0] == scenes:
        return array
    return jnp.tile(array, (scenes // array.shape[0],) + (1,) * (array.ndim - 1))


def _project(means, quats, scales, opacities, features, viewmats, intrinsics, config):
    """Projects S scenes; splats with non-finite features are dropped like all non-finite ones."""
    projected, visible = projection.project(
        means, quats, scales, opacities, viewmats, intrinsics, config
    )
    finite = jnp.all(jnp.isfinite(features), axis=-1)
    return projected, visible & _scene_rows(finite, visible.shape[0])[:, None]


def _geometry_table(projected: projection.Projected, visible: jax.Array) -> jax.Array:
    """(S C N, 8): centre x, y, conic a, b, c, log opacity, depth, variance in y.

    What blending reads per splat. The variance follows from the conic: gradients go to that.
    """
    # Of what is not drawn nothing is left that overflows: its gradients are zero, times this.
    log_opacity = jnp.log(jnp.where(visible, projected.opacity, 1.0))
    centre = (jnp.where(visible, place, 0.0) for place in projected[:2])
    variance = jax.lax.stop_gradient(projected.conic_a * projected.det)
    fields = [*centre, *projected[2:5], log_opacity, projected.depth, variance]
    return jnp.stack(fields, axis=-1).reshape(-1, 8)


def _to_tiles(images: jax.Array, grid: binning.TileGrid) -> jax.Array:
    """(I, H, W, d) -> (I tiles, d, P); pixels outside the image are 0."""
    count, _, _, channels = images.shape
    rows, columns = grid.rows, grid.columns
    pad_y, pad_x = rows * grid.tile_height - grid.height, columns * grid.tile_width - grid.width
    padded = jnp.pad(images, [(0, 0), (0, pad_y), (0, pad_x), (0, 0)])
    split = padded.reshape(count, rows, grid.tile_height, columns, grid.tile_width, channels)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(count * grid.count, channels, grid.pixels)


def _from_tiles(tiles: jax.Array, images: int, grid: binning.TileGrid) -> jax.Array:
    """(I tiles, d, P) -> (I, H, W, d)."""
    rows, columns, channels = grid.rows, grid.columns, tiles.shape[1]
    split = tiles.reshape(images, rows, columns, channels, grid.tile_height, grid.tile_width)
    joined = split.transpose(0, 1, 4, 2, 5, 3).reshape(
        images, rows * grid.tile_height, columns * grid.tile_width, channels
    )
    return joined[:, : grid.height, : grid.width]


def _in_work_order(values: jax.Array, work: xla_blend.Work) -> jax.Array:
    """(I tiles, ...) -> (blocks, B, ...)."""
    blocks, block_tiles = work.count.shape
    out = jnp.zeros((blocks * block_tiles, *values.shape[1:]), values.dtype)
    return out.at[work.inverse].set(values).reshape(blocks, block_tiles, *values.shape[1:])


def _from_work_order(values: jax.Array, work: xla_blend.Work) -> jax.Array:
    """(blocks, B, ...) -> (I tiles, ...)."""
    return values.reshape(-1, *values.shape[2:])[work.inverse]


def _tables(operands: Operands, geometry: jax.Array, splats: jax.Array) -> xla_blend.Tables:
    features = operands.features
    # Where a list ends within a chunk, any splat is read and weighs zero: none may be NaN.
    features = jnp.where(jnp.isfinite(features), features, 0.0)
    return xla_blend.Tables(
        geometry=geometry,
        features=features.reshape(-1, features.shape[-1]),
        splats=splats.reshape(-1),
        num_splats=features.shape[1],
        cameras=operands.viewmats.shape[1],
        feature_rows=features.shape[0],
    )


def _scene_operands(operands: Operands) -> list[jax.Array]:
    scenes = operands.viewmats.shape[0]
    return [_scene_rows(array, scenes) for array in operands[:4]]


def forward(
    operands: Operands, config: RasterizeConfig, *, keep: bool
) -> tuple[CoreOutput, Residuals]:
    """Renders S scenes from C cameras each; see `kernels.types.Operands` for the shapes."""
    del keep  # the compiler drops residuals that nothing reads
    _refuse_atomics(config)
    _refuse_large(operands, config)
    grid = _grid(config)
    scenes, cameras = operands.viewmats.shape[:2]
    images = scenes * cameras
    projected, visible = _project(
        *_scene_operands(operands),
        operands.features,
        operands.viewmats,
        operands.intrinsics,
        config,
    )
    flat = projection.Projected(*(field.reshape(images, -1) for field in projected))
    lists = binning.build(flat, visible.reshape(images, -1), grid, config.capacity)
    tables = _tables(operands, _geometry_table(projected, visible), lists.splats)
    counts = lists.starts[:, 1:] - lists.starts[:, :-1]
    work = xla_blend.plan(lists.starts[:, :-1], counts, grid, config.capacity)
    values, final, passed = (
        _from_work_order(result, work) for result in xla_blend.blend(tables, work, grid, config)
    )
    pixels = _from_tiles(jnp.concatenate([values, final[:, None]], axis=1), images, grid)
    pixels = pixels.reshape(scenes, cameras, *pixels.shape[1:])
    output = CoreOutput(
        image=pixels[..., :-2],
        transmittance=pixels[..., -1],
        depth=pixels[..., -2],
        num_intersections=lists.num_intersections.reshape(scenes, cameras),
    )
    lead = (scenes, cameras)
    residuals = Residuals(
        splats=lists.splats.reshape(*lead, -1),
        starts=lists.starts.reshape(*lead, -1),
        transmittance=final.reshape(*lead, grid.count, grid.pixels),
        passed=passed.reshape(*lead, grid.count, grid.pixels),
    )
    return output, residuals


def backward(
    operands: Operands,
    residuals: Residuals,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
    config: RasterizeConfig,
) -> Operands:
    """Gradients of sum(cotangent * output), per scene: Gaussian arrays lead with S, not L.

    Args:
        operands: the forward pass's.
        residuals: the forward pass's.
        cotangents: of image (S, C, H, W, D), transmittance and depth (S, C, H, W).
        config: the forward pass's.
    """
    grid = _grid(config)
    scenes, cameras = operands.viewmats.shape[:2]
    images = scenes * cameras

    def geometry_of(means, quats, scales, opacities, viewmats, intrinsics):
        projected, visible = _project(
            means, quats, scales, opacities, operands.features, viewmats, intrinsics, config
        )
        return _geometry_table(projected, visible)

    geometry, pull_back = jax.vjp(
        geometry_of, *_scene_operands(operands), operands.viewmats, operands.intrinsics
    )
    features = operands.features
    tables = _tables(operands, geometry, residuals.splats)
    tile_shape = (images * grid.count, grid.pixels)
    final, passed = (array.reshape(tile_shape) for array in residuals[2:])
    starts = residuals.starts.reshape(images, -1)
    counts = starts[:, 1:] - starts[:, :-1]
    reached = jnp.minimum(counts, jnp.max(passed, axis=-1).reshape(images, -1))
    work = xla_blend.plan(starts[:, :-1], reached, grid, config.capacity)

    image_cot, transmittance_cot, depth_cot = cotangents
    stacked = jnp.concatenate(
        [image_cot, depth_cot[..., None], transmittance_cot[..., None]], axis=-1
    ).reshape(images, grid.height, grid.width, -1)
    tiles = _in_work_order(_to_tiles(stacked, grid), work)
    blended = xla_blend.Blended(
        tiles[:, :, :-1], *(_in_work_order(array, work) for array in (final, passed))
    )
    geometry_grad, feature_grad = xla_blend.blend_transposed(
        tables, work, blended, tiles[:, :, -1], grid, config, scenes
    )
    *gaussian_grads, viewmats_grad, intrinsics_grad = pull_back(geometry_grad)
    feature_grad = feature_grad.reshape(scenes, *features.shape[1:])
    return Operands(*gaussian_grads, feature_grad, viewmats_grad, intrinsics_grad)
