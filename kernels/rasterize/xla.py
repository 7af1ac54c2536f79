"""The tiled backend in plain XLA operations: static shapes, any platform, made for CPU and TPU.

Forward: project, build depth-sorted tile lists (`binning`), then blend tiles in blocks. A block is a
set of tiles with lists of similar length; its splats are blended a chunk at a time until the lists
end or every pixel is opaque, so the work follows the scene although all shapes are static.

Backward: the same blocks in reverse order, closed-form gradients of the blending accumulated per
splat, then the vector-Jacobian product of the projection. Nothing is sorted again.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import constants
from kernels.rasterize import binning, projection
from kernels.types import CoreOutput, Operands, RasterizeConfig

# Splats blended per step and pixels per block: a block's arrays (chunk x pixels floats) stay within
# a core's cache while a step still outweighs its overhead.
_CHUNK = 16
_BLOCK_PIXELS = 4096


class Residuals(NamedTuple):
    """Kept for the backward pass; everything leads with (S, C)."""

    splats: jax.Array  # (S, C, capacity) int32
    starts: jax.Array  # (S, C, tiles + 1) int32
    transmittance: jax.Array  # (S, C, tiles, pixels of a tile)
    passed: jax.Array  # (S, C, tiles, pixels of a tile) int32: list entries before the stop


class _Work(NamedTuple):
    """Tiles of all images, longest lists first, cut into blocks (blocks, tiles of a block)."""

    image: jax.Array
    tile: jax.Array
    start: jax.Array  # into the flat slots
    count: jax.Array
    num_blocks: jax.Array  # scalar: blocks with anything to do
    inverse: jax.Array  # (S C tiles,) position of each tile in the order


def choose_tile_size(config: RasterizeConfig) -> tuple[int, int]:
    """Tile (height, width): the option, or what was fastest for splats of a few pixels."""
    return config.options.tile_size or (8, 8)


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
    """(S C N, 7): centre x, y, conic a, b, c, log opacity, depth; what blending reads per splat."""
    log_opacity = jnp.log(jnp.where(visible, projected.opacity, 1.0))
    fields = [*projected[:5], log_opacity, projected.depth]
    return jnp.stack(fields, axis=-1).reshape(-1, 7)


def _feature_table(features: jax.Array) -> jax.Array:
    """(L N, D), non-finite rows zeroed (their splats are never listed, but 0 * nan is nan)."""
    return features.reshape(-1, features.shape[-1])


def _pixel_basis(grid: binning.TileGrid, dtype) -> jax.Array:
    """Monomials 1, x, y, x^2, x y, y^2 of the pixel centres around the tile's centre, (6, P)."""
    y, x = jnp.meshgrid(
        jnp.arange(grid.tile_height, dtype=dtype) + 0.5 - grid.tile_height / 2,
        jnp.arange(grid.tile_width, dtype=dtype) + 0.5 - grid.tile_width / 2,
        indexing="ij",
    )
    x, y = x.ravel(), y.ravel()
    return jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y])


def _coefficients(geometry: jax.Array, centre_x: jax.Array, centre_y: jax.Array) -> jax.Array:
    """Log alpha of splats as polynomials (..., 6) in the tile's own pixel coordinates."""
    mean_x, mean_y, a, b, c, log_opacity = (geometry[..., i] for i in range(6))
    mean_x, mean_y = mean_x - centre_x, mean_y - centre_y
    linear_x, linear_y = a * mean_x + b * mean_y, c * mean_y + b * mean_x
    constant = log_opacity - 0.5 * (linear_x * mean_x + linear_y * mean_y)
    return jnp.stack([constant, linear_x, linear_y, -0.5 * a, -b, -0.5 * c], axis=-1)


def _coefficients_transposed(
    moments: jax.Array, geometry: jax.Array, centre_x: jax.Array, centre_y: jax.Array
) -> list[jax.Array]:
    """Gradient of geometry's first six fields from the gradient (..., 6) of `_coefficients`."""
    mean_x, mean_y, a, b, c = (geometry[..., i] for i in range(5))
    mean_x, mean_y = mean_x - centre_x, mean_y - centre_y
    g1, gx, gy, gxx, gxy, gyy = (moments[..., i] for i in range(6))
    return [
        a * (gx - mean_x * g1) + b * (gy - mean_y * g1),
        c * (gy - mean_y * g1) + b * (gx - mean_x * g1),
        mean_x * gx - 0.5 * (mean_x * mean_x * g1 + gxx),
        mean_y * gx + mean_x * gy - mean_x * mean_y * g1 - gxy,
        mean_y * gy - 0.5 * (mean_y * mean_y * g1 + gyy),
        g1,
    ]


def _raw_alpha(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """o exp(-sigma), (..., P), for coefficients (..., 6) at the pixels of basis (6, P)."""
    c = [coefficients[..., i : i + 1] for i in range(6)]
    _, x, y, xx, xy, yy = basis
    return jnp.exp(c[0] + c[1] * x + c[2] * y + c[3] * xx + c[4] * xy + c[5] * yy)


def _plan(starts: jax.Array, counts: jax.Array, grid: binning.TileGrid, capacity: int) -> _Work:
    """Orders the tiles of all images by list length.

    Args:
        starts: (I, tiles) first slot within the image.
        counts: (I, tiles) list lengths.
        grid: the tiles.
        capacity: slots per image.
    """
    images, tiles = counts.shape
    total = images * tiles
    block = max(1, min(_BLOCK_PIXELS // grid.pixels, total))
    blocks = -(-total // block)
    chunks = -(-counts.reshape(-1) // _CHUNK)
    most = -(-capacity // _CHUNK)
    order = binning.stable_argsort((most - chunks)[None], most.bit_length())[0]
    inverse = jnp.zeros(total, jnp.int32).at[order].set(jnp.arange(total, dtype=jnp.int32))
    flat_starts = starts + capacity * jnp.arange(images, dtype=jnp.int32)[:, None]
    pad = [(0, blocks * block - total)]

    def blocked(values):
        return jnp.pad(values, pad).reshape(blocks, block)

    return _Work(
        image=blocked(order // tiles),
        tile=blocked(order % tiles),
        start=blocked(flat_starts.reshape(-1)[order]),
        count=blocked(counts.reshape(-1)[order]),
        num_blocks=-(-jnp.sum(counts > 0, dtype=jnp.int32) // block),
        inverse=inverse,
    )


class _Tables(NamedTuple):
    """What the blending loops gather from, and the sizes to index it."""

    geometry: jax.Array  # (S C N, 7)
    features: jax.Array  # (L N, D)
    splats: jax.Array  # (S C capacity,)
    num_splats: int
    cameras: int
    feature_rows: int  # L


class _Chunk(NamedTuple):
    """One chunk of splats of each tile of a block: (K, B, ...)."""

    geometry_row: jax.Array
    scene_row: jax.Array
    in_list: jax.Array
    geometry: jax.Array
    features: jax.Array  # (K, B, D + 1), depth last
    coefficients: jax.Array
    centre_x: jax.Array
    centre_y: jax.Array


def _load_chunk(tables: _Tables, work: _Work, block, step, grid: binning.TileGrid) -> _Chunk:
    image, tile = work.image[block], work.tile[block]
    position = step * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)[:, None]
    in_list = position < work.count[block]
    slot = jnp.where(in_list, work.start[block] + position, 0)
    splat = tables.splats[slot]
    n = tables.num_splats
    geometry_row, scene = image * n + splat, image // tables.cameras
    feature_row = scene % tables.feature_rows * n + splat
    geometry = tables.geometry[geometry_row]
    features = jnp.concatenate([tables.features[feature_row], geometry[..., 6:]], axis=-1)
    dtype = geometry.dtype
    centre_x = ((tile % grid.columns) * grid.tile_width).astype(dtype) + grid.tile_width / 2
    centre_y = ((tile // grid.columns) * grid.tile_height).astype(dtype) + grid.tile_height / 2
    return _Chunk(
        geometry_row=geometry_row,
        scene_row=scene * n + splat,
        in_list=in_list,
        geometry=geometry,
        features=features,
        coefficients=_coefficients(geometry, centre_x, centre_y),
        centre_x=centre_x,
        centre_y=centre_y,
    )


def _chunk_alpha(raw: jax.Array, blended: jax.Array, max_alpha: float) -> jax.Array:
    """Alpha of the blended pixels, 0 elsewhere and below MIN_ALPHA."""
    blended = blended & (raw >= constants.MIN_ALPHA)
    return jnp.where(blended, jnp.minimum(raw, max_alpha), 0.0)


def _blend(tables: _Tables, work: _Work, grid: binning.TileGrid, config: RasterizeConfig):
    """Blends all tiles; returns (tiles in work order): values (., P, D + 1), final T, passed."""
    dtype = tables.geometry.dtype
    blocks, block_tiles = work.count.shape
    channels = tables.features.shape[-1] + 1
    basis = _pixel_basis(grid, dtype)
    shape = (block_tiles, grid.pixels)

    def blend_splat(carry, alpha):
        # `running` never stops; as it only falls, a splat is blended exactly if it is above the
        # stop threshold after that splat.
        running, final, passed = carry
        after = running * (1.0 - alpha)
        goes_on = after > constants.MIN_TRANSMITTANCE
        weight = jnp.where(goes_on, running * alpha, 0.0)
        return (after, jnp.where(goes_on, after, final), passed + goes_on), weight

    def blend_block(block, outputs):
        longest = jnp.max(work.count[block])

        def unfinished(state):
            step, (running, _, _), _ = state
            return (step * _CHUNK < longest) & jnp.any(running > constants.MIN_TRANSMITTANCE)

        def blend_chunk(state):
            step, carry, values = state
            chunk = _load_chunk(tables, work, block, step, grid)
            raw = _raw_alpha(chunk.coefficients, basis)
            alpha = _chunk_alpha(raw, chunk.in_list[..., None], config.options.max_alpha)
            carry, weights = jax.lax.scan(blend_splat, carry, alpha)
            values = values + jnp.einsum("kbp,kbd->bpd", weights, chunk.features)
            return step + 1, carry, values

        one = jnp.ones(shape, dtype)
        state = (0, (one, one, jnp.zeros(shape, jnp.int32)), jnp.zeros((*shape, channels), dtype))
        _, (_, final, passed), values = jax.lax.while_loop(unfinished, blend_chunk, state)
        results = (values, final, passed)
        return tuple(
            jax.lax.dynamic_update_index_in_dim(output, result, block, 0)
            for output, result in zip(outputs, results, strict=True)
        )

    outputs = (
        jnp.zeros((blocks, *shape, channels), dtype),
        jnp.ones((blocks, *shape), dtype),
        jnp.zeros((blocks, *shape), jnp.int32),
    )
    return jax.lax.fori_loop(0, work.num_blocks, blend_block, outputs)


def _blend_transposed(
    tables: _Tables,
    work: _Work,
    cotangents: tuple[jax.Array, jax.Array],
    final: jax.Array,
    passed: jax.Array,
    grid: binning.TileGrid,
    config: RasterizeConfig,
    num_scenes: int,
):
    """Gradients of geometry (S C N, 7) and of features per scene (S N, D).

    Per pixel, from the last splat to the first, with T the transmittance before splat k, q the dot
    product of its values with the cotangent, and R what lies behind it (weight times q, summed, and
    the final transmittance times its cotangent): d alpha_k = T q_k - R / (1 - alpha_k).

    Args:
        tables, work, grid, config: as in `_blend`.
        cotangents: of the values (blocks, B, P, D + 1) and of the final T (blocks, B, P).
        final: final transmittance (blocks, B, P).
        passed: list entries before the stop (blocks, B, P).
        num_scenes: S.
    """
    basis = _pixel_basis(grid, tables.geometry.dtype)
    num_features = tables.features.shape[-1]
    max_alpha = config.options.max_alpha
    position = jnp.arange(_CHUNK, dtype=jnp.int32)[:, None, None]

    def unblend_splat(carry, splat):
        after, behind = carry
        alpha, value = splat
        inverse = 1.0 / (1.0 - alpha)
        before = after * inverse
        weight = before * alpha
        gradient = before * value - behind * inverse
        return (before, behind + weight * value), (weight, gradient)

    def add_block(block, gradients):
        value_cotangent, final_cotangent = (array[block] for array in cotangents)
        block_passed = passed[block]
        num_chunks = -(-jnp.max(work.count[block]) // _CHUNK)

        def add_chunk(index, state):
            carry, (geometry_grad, feature_grad) = state
            step = num_chunks - 1 - index
            chunk = _load_chunk(tables, work, block, step, grid)
            raw = _raw_alpha(chunk.coefficients, basis)
            blended = (step * _CHUNK + position < block_passed) & chunk.in_list[..., None]
            alpha = _chunk_alpha(raw, blended, max_alpha)
            values = jnp.einsum("kbd,bpd->kbp", chunk.features, value_cotangent)
            carry, (weights, alpha_grad) = jax.lax.scan(
                unblend_splat, carry, (alpha, values), reverse=True
            )
            exponent_grad = jnp.where(raw > max_alpha, 0.0, alpha * alpha_grad)
            moments = jnp.einsum("kbp,mp->kbm", exponent_grad, basis)
            value_grad = jnp.einsum("kbp,bpd->kbd", weights, value_cotangent)
            fields = _coefficients_transposed(
                moments, chunk.geometry, chunk.centre_x, chunk.centre_y
            )
            rows = jnp.stack([*fields, value_grad[..., num_features]], axis=-1)
            geometry_grad = geometry_grad.at[chunk.geometry_row].add(rows)
            feature_grad = feature_grad.at[chunk.scene_row].add(value_grad[..., :num_features])
            return carry, (geometry_grad, feature_grad)

        carry = (final[block], final[block] * final_cotangent)
        _, gradients = jax.lax.fori_loop(0, num_chunks, add_chunk, (carry, gradients))
        return gradients

    zeros = (
        jnp.zeros_like(tables.geometry),
        jnp.zeros((num_scenes * tables.num_splats, num_features), tables.features.dtype),
    )
    return jax.lax.fori_loop(0, work.num_blocks, add_block, zeros)


def _to_tiles(images: jax.Array, grid: binning.TileGrid) -> jax.Array:
    """(I, H, W, d) -> (I tiles, P, d); pixels outside the image are 0."""
    count, _, _, channels = images.shape
    rows, columns = grid.rows, grid.columns
    pad_y, pad_x = rows * grid.tile_height - grid.height, columns * grid.tile_width - grid.width
    padded = jnp.pad(images, [(0, 0), (0, pad_y), (0, pad_x), (0, 0)])
    split = padded.reshape(count, rows, grid.tile_height, columns, grid.tile_width, channels)
    return split.swapaxes(2, 3).reshape(count * grid.count, grid.pixels, channels)


def _from_tiles(tiles: jax.Array, images: int, grid: binning.TileGrid) -> jax.Array:
    """(I tiles, P, d) -> (I, H, W, d)."""
    split = tiles.reshape(
        images, grid.rows, grid.columns, grid.tile_height, grid.tile_width, tiles.shape[-1]
    )
    joined = split.swapaxes(2, 3).reshape(
        images, grid.rows * grid.tile_height, grid.columns * grid.tile_width, tiles.shape[-1]
    )
    return joined[:, : grid.height, : grid.width]


def _in_work_order(values: jax.Array, work: _Work) -> jax.Array:
    """(I tiles, ...) -> (blocks, B, ...)."""
    blocks, block_tiles = work.count.shape
    out = jnp.zeros((blocks * block_tiles, *values.shape[1:]), values.dtype)
    return out.at[work.inverse].set(values).reshape(blocks, block_tiles, *values.shape[1:])


def _from_work_order(values: jax.Array, work: _Work) -> jax.Array:
    """(blocks, B, ...) -> (I tiles, ...)."""
    return values.reshape(-1, *values.shape[2:])[work.inverse]


def _tables(operands: Operands, projected, visible, splats: jax.Array) -> _Tables:
    features = operands.features
    return _Tables(
        geometry=_geometry_table(projected, visible),
        features=features.reshape(-1, features.shape[-1]),
        splats=splats.reshape(-1),
        num_splats=features.shape[1],
        cameras=operands.viewmats.shape[1],
        feature_rows=features.shape[0],
    )


def _scene_operands(operands: Operands) -> list[jax.Array]:
    scenes = operands.viewmats.shape[0]
    return [_scene_rows(array, scenes) for array in operands[:4]]


def forward(operands: Operands, config: RasterizeConfig) -> tuple[CoreOutput, Residuals]:
    """Renders S scenes from C cameras each; see `kernels.types.Operands` for the shapes."""
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
    tables = _tables(operands, projected, visible, lists.splats)
    counts = lists.starts[:, 1:] - lists.starts[:, :-1]
    work = _plan(lists.starts[:, :-1], counts, grid, config.capacity)
    values, final, passed = (
        _from_work_order(result, work) for result in _blend(tables, work, grid, config)
    )
    pixels = _from_tiles(jnp.concatenate([values, final[..., None]], axis=-1), images, grid)
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
    tables = _Tables(
        geometry=geometry,
        features=features.reshape(-1, features.shape[-1]),
        splats=residuals.splats.reshape(-1),
        num_splats=features.shape[1],
        cameras=cameras,
        feature_rows=features.shape[0],
    )
    tile_shape = (images * grid.count, grid.pixels)
    final, passed = (array.reshape(tile_shape) for array in residuals[2:])
    starts = residuals.starts.reshape(images, -1)
    counts = starts[:, 1:] - starts[:, :-1]
    reached = jnp.minimum(counts, jnp.max(passed, axis=-1).reshape(images, -1))
    work = _plan(starts[:, :-1], reached, grid, config.capacity)

    image_cot, transmittance_cot, depth_cot = cotangents
    stacked = jnp.concatenate(
        [image_cot, depth_cot[..., None], transmittance_cot[..., None]], axis=-1
    ).reshape(images, grid.height, grid.width, -1)
    tiles = _in_work_order(_to_tiles(stacked, grid), work)
    geometry_grad, feature_grad = _blend_transposed(
        tables,
        work,
        (tiles[..., :-1], tiles[..., -1]),
        _in_work_order(final, work),
        _in_work_order(passed, work),
        grid,
        config,
        scenes,
    )
    *gaussian_grads, viewmats_grad, intrinsics_grad = pull_back(geometry_grad)
    feature_grad = feature_grad.reshape(scenes, *features.shape[1:])
    return Operands(*gaussian_grads, feature_grad, viewmats_grad, intrinsics_grad)
