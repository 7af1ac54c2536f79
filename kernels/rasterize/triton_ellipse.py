"""The ellipse/tile test: one device function for the count of tiles and for their emission."""

import triton
import triton.language as tl

from kernels import constants

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
TILE_TEST_SLACK = tl.constexpr(constants.TILE_TEST_SLACK)
# Share of the terms' size by which rounding may move sigma in a long, thin ellipse: about 30 ulp.
ROUNDING = tl.constexpr(4e-6)


@triton.jit
def tile_terms(a, b, c, opacity):
    """What `tile_hit` needs of a splat beside its mean and conic, computed once per splat."""
    return -b / a, -b / c, tl.log(opacity / MIN_ALPHA)


@triton.jit
def nth_tile(index, left, top, columns):
    """Column and row of the tile with a number in a box, row by row (exact up to 2^21 tiles)."""
    inverse = 1.0 / tl.maximum(columns, 1).to(tl.float32)
    row = ((index.to(tl.float32) + 0.5) * inverse).to(tl.int32)
    return left + index - row * columns, top + row


@triton.jit
def tile_hit(
    mean_x, mean_y, a, b, c, slope_x, slope_y, limit, tile_x, tile_y,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr,
):  # fmt: skip
    """True where the ellipse alpha >= 1/255 reaches a pixel centre's box of the tile.

    The minimum of the quadratic form over the box lies at the mean if that is inside, otherwise on
    an edge that faces the mean. Counting and writing both call this, without fused multiply-adds,
    so that they decide alike.
    """
    low_x = tile_x.to(tl.float32) * TILE_W + 0.5 - mean_x
    low_y = tile_y.to(tl.float32) * TILE_H + 0.5 - mean_y
    high_x = low_x + (TILE_W - 1)
    high_y = low_y + (TILE_H - 1)
    near_x = tl.minimum(tl.maximum(low_x, 0.0), high_x)
    near_y = tl.minimum(tl.maximum(low_y, 0.0), high_y)
    best_y = tl.minimum(tl.maximum(slope_y * near_x, low_y), high_y)
    best_x = tl.minimum(tl.maximum(slope_x * near_y, low_x), high_x)
    square_x, square_y = a * near_x * near_x, c * near_y * near_y
    sigma_x = 0.5 * (square_x + c * best_y * best_y) + b * near_x * best_y
    sigma_y = 0.5 * (a * best_x * best_x + square_y) + b * best_x * near_y
    slack = (square_x + square_y) * ROUNDING + TILE_TEST_SLACK
    return tl.minimum(sigma_x, sigma_y) <= limit + slack
