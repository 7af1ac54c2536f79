"""Which tiles an ellipse touches: one device function for their count and for their emission.

Row by row of tiles and in closed form: between two heights the left and the right boundary of an
ellipse are farthest out where the whole ellipse is, or at the height nearest to that.
"""

import triton
import triton.language as tl

from kernels import constants

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
TILE_TEST_SLACK = tl.constexpr(constants.TILE_TEST_SLACK)
# Share of the terms' size by which rounding may move sigma in a long, thin ellipse: about 30 ulp.
ROUNDING = tl.constexpr(4e-6)
MARGIN = tl.constexpr(1e-3)  # pixels by which rounding may move a boundary, far from the origin


@triton.jit
def ellipse_terms(a, b, c, opacity, det):
    """What `row_span` needs of a splat, computed once: conic, opacity, determinant of the
    covariance (which the conic's own would give less exactly)."""
    # The terms of the quadratic form grow up to twice a c det as large as the form itself.
    rounding = 1.0 + 4.0 * ROUNDING * (a * c * det)
    level = 2.0 * (tl.log(opacity / MIN_ALPHA) + TILE_TEST_SLACK) * rounding
    half_height = tl.sqrt(level * a * det)
    height_of_right = -(b / c) * tl.sqrt(level * c * det)
    return level * a, 1.0 / a, -b / a, 1.0 / det, half_height, height_of_right


@triton.jit
def _reach(y, level_a, inverse_a, inverse_det):
    """Half the width at the height y."""
    return tl.sqrt(tl.maximum(level_a - inverse_det * y * y, 0.0)) * inverse_a


@triton.jit
def row_span(
    mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
    left, right, tile_y, TILE_W: tl.constexpr, TILE_H: tl.constexpr,
):  # fmt: skip
    """First tile and number of tiles, of those from `left` up to `right`, in one row of tiles.

    A tile is touched where the ellipse alpha >= 1/255 reaches the box of its pixels' centres.
    Counting and writing both call this, without fused multiply-adds, so that they decide alike.
    """
    low = tile_y * TILE_H + 0.5 - mean_y
    high = low + (TILE_H - 1)
    touches = (low <= half_height) & (high >= -half_height)
    low, high = tl.maximum(low, -half_height), tl.minimum(high, half_height)
    y_right = tl.minimum(tl.maximum(height_of_right, low), high)
    y_left = tl.minimum(tl.maximum(-height_of_right, low), high)
    end_x = mean_x + slope * y_right + _reach(y_right, level_a, inverse_a, inverse_det)
    begin_x = mean_x + slope * y_left - _reach(y_left, level_a, inverse_a, inverse_det)
    # Centres of pixels lie half a pixel inside of a tile's edges.
    first = tl.ceil((begin_x - (TILE_W - 0.5 + MARGIN)) * (1.0 / TILE_W))
    end = tl.floor((end_x - (0.5 - MARGIN)) * (1.0 / TILE_W)) + 1.0
    first = tl.minimum(tl.maximum(first, left), right)
    end = tl.minimum(tl.maximum(end, first), right)
    return first.to(tl.int32), tl.where(touches, end - first, 0.0).to(tl.int32)
