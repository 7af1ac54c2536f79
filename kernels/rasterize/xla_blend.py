"""Blending of the `xla` backend: tiles in blocks, forwards, and backwards with gradients.

A block is a set of tiles with lists of similar length. Its splats are blended a chunk at a time
until the lists end or every pixel is opaque; the backward pass walks the same lists from the back.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import constants, manual_axes
from kernels.rasterize import binning
from kernels.types import RasterizeConfig

# Splats blended per step and pixels per block: a block's arrays (chunk x pixels floats) stay near a
# core's cache while a step still outweighs its overhead.
_CHUNK = 16
_BLOCK_PIXELS = 8192
# Steps of the running product written out in the loop's body.
_UNROLL = 4
# Up to this many channels a sum of products is faster than a batch of tiny matrix products.
_MAX_SUMMED_CHANNELS = 8
# In float32 also where the default rounds factors to 10 bits (GPUs, TPUs).
_einsum = functools.partial(jnp.einsum, precision="highest")


class Work(NamedTuple):
    """Tiles of all images, longest lists first, cut into blocks (blocks, tiles of a block)."""

    image: jax.Array
    tile: jax.Array
    start: jax.Array  # into the flat slots
    count: jax.Array
    num_blocks: jax.Array  # scalar: blocks with anything to do
    inverse: jax.Array  # (S C tiles,) position of each tile in the order


def plan(starts: jax.Array, counts: jax.Array, grid: binning.TileGrid, capacity: int) -> Work:
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

    return Work(
        image=blocked(order // tiles),
        tile=blocked(order % tiles),
        start=blocked(flat_starts.reshape(-1)[order]),
        count=blocked(counts.reshape(-1)[order]),
        num_blocks=-(-jnp.sum(counts > 0, dtype=jnp.int32) // block),
        inverse=inverse,
    )


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
    """Log alpha of splats as polynomials (..., 6) in the tile's own pixel coordinates.

    From squares, 2 sigma = a (x + b/a y)^2 + y^2 / variance: far along a long, thin splat the
    conic's own three terms are large and differ by rounding errors.
    """
    mean_x, mean_y, a, b, c, log_opacity, _, variance = (geometry[..., i] for i in range(8))
    mean_x, mean_y = mean_x - centre_x, mean_y - centre_y
    across = mean_x + b / a * mean_y
    linear_x, linear_y = a * across, b * across + mean_y / variance
    constant = log_opacity - 0.5 * (linear_x * across + mean_y * mean_y / variance)
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
    _, x, y, xx, xy, yy = (row.reshape((1,) * (coefficients.ndim - 1) + (-1,)) for row in basis)
    return jnp.exp(c[0] + c[1] * x + c[2] * y + c[3] * xx + c[4] * xy + c[5] * yy)


class Tables(NamedTuple):
    """What the blending loops gather from, and the sizes to index it."""

    geometry: jax.Array  # (S C N, 8)
    features: jax.Array  # (L N, D)
    splats: jax.Array  # (S C capacity,)
    num_splats: int
    cameras: int
    feature_rows: int  # L


class _Chunk(NamedTuple):
    """One chunk of K splats of each of the B tiles of a block: (B, K, ...)."""

    geometry_row: jax.Array
    scene_row: jax.Array
    in_list: jax.Array
    geometry: jax.Array
    features: jax.Array  # (B, K, D + 1), depth last
    coefficients: jax.Array
    centre_x: jax.Array
    centre_y: jax.Array


def _load_chunk(tables: Tables, work: Work, block, step, grid: binning.TileGrid) -> _Chunk:
    image, tile = work.image[block][:, None], work.tile[block][:, None]
    position = step * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)[None]
    in_list = position < work.count[block][:, None]
    slot = jnp.where(in_list, work.start[block][:, None] + position, 0)
    splat = tables.splats[slot]
    n = tables.num_splats
    geometry_row, scene = image * n + splat, image // tables.cameras
    feature_row = scene % tables.feature_rows * n + splat
    geometry = tables.geometry[geometry_row]
    features = jnp.concatenate([tables.features[feature_row], geometry[..., 6:7]], axis=-1)
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


def _weighted_sum(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Sum over splats: weights (B, K, P), features (B, K, d) -> (B, d, P)."""
    channels = features.shape[-1]
    if channels > _MAX_SUMMED_CHANNELS:
        return _einsum("bkp,bkd->bdp", weights, features)
    sums = [jnp.sum(weights * features[..., d, None], axis=1) for d in range(channels)]
    return jnp.stack(sums, axis=1)


def _channel_dot(features: jax.Array, values: jax.Array) -> jax.Array:
    """Sum over channels: features (B, K, d), values (B, d, P) -> (B, K, P)."""
    channels = features.shape[-1]
    if channels > _MAX_SUMMED_CHANNELS:
        return _einsum("bkd,bdp->bkp", features, values)
    return sum(features[..., d, None] * values[:, None, d] for d in range(channels))


def _running_product(start: jax.Array, factors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Products before each factor along axis 1 of (B, K, P), times start (B, P); and after all."""

    def step(k, state):
        running, before = state
        factor = jax.lax.dynamic_index_in_dim(factors, k, 1, keepdims=False)
        return running * factor, jax.lax.dynamic_update_index_in_dim(before, running, k, 1)

    state = manual_axes.vary_like((start, jnp.zeros_like(factors)), factors)
    after, before = jax.lax.fori_loop(0, factors.shape[1], step, state, unroll=_UNROLL)
    return before, after


def _running_sum_behind(start: jax.Array, terms: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums of what comes after each term along axis 1 of (B, K, P), plus start; and of all."""
    count = terms.shape[1]

    def step(index, state):
        running, behind = state
        k = count - 1 - index
        term = jax.lax.dynamic_index_in_dim(terms, k, 1, keepdims=False)
        return running + term, jax.lax.dynamic_update_index_in_dim(behind, running, k, 1)

    state = manual_axes.vary_like((start, jnp.zeros_like(terms)), terms)
    total, behind = jax.lax.fori_loop(0, count, step, state, unroll=_UNROLL)
    return behind, total


class Blended(NamedTuple):
    """Blended tiles in work order, leading with (blocks, B)."""

    values: jax.Array  # (., ., D + 1, P)
    transmittance: jax.Array  # (., ., P)
    passed: jax.Array  # (., ., P) int32, list entries before the stop


def blend(tables: Tables, work: Work, grid: binning.TileGrid, config: RasterizeConfig) -> Blended:
    """Blends all tiles front to back."""
    dtype = tables.geometry.dtype
    blocks, block_tiles = work.count.shape
    channels = tables.features.shape[-1] + 1
    basis = _pixel_basis(grid, dtype)
    shape = (block_tiles, grid.pixels)

    def blend_block(block, outputs):
        longest = jnp.max(work.count[block])

        def unfinished(state):
            step, running, _ = state
            return (step * _CHUNK < longest) & jnp.any(running > constants.MIN_TRANSMITTANCE)

        def blend_chunk(state):
            step, running, blended = state
            chunk = _load_chunk(tables, work, block, step, grid)
            raw = _raw_alpha(chunk.coefficients, basis)
            alpha = _chunk_alpha(raw, chunk.in_list[..., None], config.options.max_alpha)
            # `running` never stops; as it only falls, a splat is blended exactly if it is above
            # the stop threshold after that splat.
            before, running = _running_product(running, 1.0 - alpha)
            after = before * (1.0 - alpha)
            goes_on = after > constants.MIN_TRANSMITTANCE
            weights = jnp.where(goes_on, before * alpha, 0.0)
            lowest = jnp.min(jnp.where(goes_on, after, 1.0), axis=1)
            blended = Blended(
                values=blended.values + _weighted_sum(weights, chunk.features),
                transmittance=jnp.minimum(blended.transmittance, lowest),
                passed=blended.passed + jnp.sum(goes_on, axis=1, dtype=jnp.int32),
            )
            return step + 1, running, blended

        one = jnp.ones(shape, dtype)
        nothing = Blended(
            jnp.zeros((block_tiles, channels, grid.pixels), dtype), one, jnp.zeros(shape, jnp.int32)
        )
        state = manual_axes.vary_like((one, nothing), tables)
        _, _, blended = jax.lax.while_loop(unfinished, blend_chunk, (0, *state))
        return jax.tree.map(
            lambda output, result: jax.lax.dynamic_update_index_in_dim(output, result, block, 0),
            outputs,
            blended,
        )

    outputs = Blended(
        jnp.zeros((blocks, block_tiles, channels, grid.pixels), dtype),
        jnp.ones((blocks, *shape), dtype),
        jnp.zeros((blocks, *shape), jnp.int32),
    )
    outputs = manual_axes.vary_like(outputs, tables)
    return jax.lax.fori_loop(0, work.num_blocks, blend_block, outputs)


def blend_transposed(
    tables: Tables,
    work: Work,
    blended: Blended,
    transmittance_cotangent: jax.Array,
    grid: binning.TileGrid,
    config: RasterizeConfig,
    num_scenes: int,
) -> tuple[jax.Array, jax.Array]:
    """Gradients of geometry (S C N, 8) and of features per scene (S N, D).

    Per pixel, back to front, with T the transmittance before splat k, q the dot product of its
    values with their cotangent, and R what lies behind it (weight times q, summed, plus the final
    transmittance times its cotangent): d alpha_k = T q_k - R / (1 - alpha_k).

    Args:
        tables, work, grid, config: as in `blend`.
        blended: the forward pass's, with the cotangents of its values in place of the values.
        transmittance_cotangent: of the final transmittance, (blocks, B, P).
        num_scenes: S.
    """
    basis = _pixel_basis(grid, tables.geometry.dtype)
    num_features = tables.features.shape[-1]
    max_alpha = config.options.max_alpha
    position = jnp.arange(_CHUNK, dtype=jnp.int32)[None, :, None]

    def add_block(block, gradients):
        cotangent, final, passed = (array[block] for array in blended)
        num_chunks = -(-jnp.max(work.count[block]) // _CHUNK)

        def add_chunk(index, state):
            after, behind, (geometry_grad, feature_grad) = state
            step = num_chunks - 1 - index
            chunk = _load_chunk(tables, work, block, step, grid)
            raw = _raw_alpha(chunk.coefficients, basis)
            reached = (step * _CHUNK + position < passed[:, None]) & chunk.in_list[..., None]
            alpha = _chunk_alpha(raw, reached, max_alpha)
            inverse = 1.0 / (1.0 - alpha)
            # Transmittance before each splat, by division, from the back.
            after_each, after = _running_product(after, inverse[:, ::-1])
            before = after_each[:, ::-1] * inverse
            weights = before * alpha
            values = _channel_dot(chunk.features, cotangent)
            behind_each, behind = _running_sum_behind(behind, weights * values)
            alpha_grad = before * values - behind_each * inverse
            exponent_grad = jnp.where(raw > max_alpha, 0.0, alpha * alpha_grad)
            moments = _einsum("bkp,mp->bkm", exponent_grad, basis)
            value_grad = _einsum("bkp,bdp->bkd", weights, cotangent)
            fields = _coefficients_transposed(
                moments, chunk.geometry, chunk.centre_x, chunk.centre_y
            )
            depth_grad = value_grad[..., num_features]
            rows = jnp.stack([*fields, depth_grad, jnp.zeros_like(depth_grad)], axis=-1)
            geometry_grad = geometry_grad.at[chunk.geometry_row].add(rows)
            feature_grad = feature_grad.at[chunk.scene_row].add(value_grad[..., :num_features])
            return after, behind, (geometry_grad, feature_grad)

        state = (final, final * transmittance_cotangent[block], gradients)
        return jax.lax.fori_loop(0, num_chunks, add_chunk, state)[-1]

    zeros = (
        jnp.zeros_like(tables.geometry),
        jnp.zeros((num_scenes * tables.num_splats, num_features), tables.features.dtype),
    )
    zeros = manual_axes.vary_like(zeros, tables)
    return jax.lax.fori_loop(0, work.num_blocks, add_block, zeros)
