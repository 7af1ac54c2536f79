"""Triton kernel of the projection: splats to screen-space records, depths, tile counts and bins.

A block of splats per program, one splat per thread or more; see `triton_splat` for the record.
"""

import triton
import triton.language as tl

from kernels import constants
from kernels.rasterize import triton_depth, triton_ellipse, triton_splat

MIN_ALPHA = tl.constexpr(constants.MIN_ALPHA)
MAX_CONIC = tl.constexpr(constants.MAX_CONIC)
MAX_EXTENT = tl.constexpr(constants.MAX_EXTENT)
RECORD = triton_splat.RECORD
clamped_ratio = triton_splat.clamped_ratio
cross = triton_splat.cross
depth_key = triton_depth.depth_key
ellipse_terms = triton_ellipse.ellipse_terms
join_bin = triton_depth.join_bin
load_camera = triton_splat.load_camera
load_splat = triton_splat.load_splat
rotate = triton_splat.rotate
row_span = triton_ellipse.row_span
store_record = triton_splat.store_record


@triton.jit
def _has_finite_features(
    features, row, live, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr
):
    zeros = tl.zeros([BLOCK], tl.float32)
    if CHANNELS <= 4:  # a matrix would spread over the threads in a way that repeats all else
        for channel in tl.static_range(CHANNELS):
            zeros += tl.load(features + row * CHANNELS + channel, mask=live, other=0.0) * 0.0
    else:  # not unrolled: hundreds of channels would compile for minutes
        for first in range(0, CHANNELS, BLOCK_D):
            channel = first + tl.arange(0, BLOCK_D)[None, :]
            mask = live[:, None] & (channel < CHANNELS)
            value = tl.load(features + row[:, None] * CHANNELS + channel, mask=mask, other=0.0)
            zeros += tl.sum(value * 0.0, axis=1)
    return zeros == 0.0


@triton.jit
def project_kernel(
    means, quats, scales, opacities, features, viewmats, intrinsics, limits, _tallies,
    records, depths, counts, boxes, bins, places, tallies,
    total, samples, half, cameras, width, height, tiles_x, tiles_y,
    means_lead, quats_lead, scales_lead, opacities_lead, features_lead,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr,
    NEAR: tl.constexpr, FAR: tl.constexpr, EPS2D: tl.constexpr, RADIUS_CLIP: tl.constexpr,
    ANTIALIASED: tl.constexpr, MIN_COMPENSATION: tl.constexpr,
    TILE_W: tl.constexpr, TILE_H: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, images): records, depths, exact tile counts, tile boxes and bins."""
    image = tl.program_id(1)
    splat = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = splat < total
    x0, y0, z0, qw, qx, qy, qz, sx, sy, sz, o, finite = load_splat(
        means, quats, scales, opacities, splat, live, image // cameras, total,
        means_lead, quats_lead, scales_lead, opacities_lead,
    )  # fmt: skip
    feature_row = ((image // cameras) % features_lead) * total + splat
    finite &= _has_finite_features(features, feature_row, live, CHANNELS, BLOCK_D, BLOCK)
    w00, w01, w02, t0, w10, w11, w12, t1, w20, w21, w22, t2, k00, k01, k02, k10, k11, k12 = (
        load_camera(viewmats, intrinsics, image)
    )
    x = w00 * x0 + w01 * y0 + w02 * z0 + t0
    y = w10 * x0 + w11 * y0 + w12 * z0 + t1
    z = w20 * x0 + w21 * y0 + w22 * z0 + t2
    in_depth = finite & (z >= NEAR) & (z <= FAR)
    x, y, z = tl.where(in_depth, x, 0.0), tl.where(in_depth, y, 0.0), tl.where(in_depth, z, 1.0)
    ratio_x, ratio_y = x / z, y / z
    mean_x = k00 * ratio_x + k01 * ratio_y + k02
    mean_y = k10 * ratio_x + k11 * ratio_y + k12

    _, _, _, _, _, r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotate(qw, qx, qy, qz)
    clamped_x, _ = clamped_ratio(ratio_x, k00, k02, width)
    clamped_y, _ = clamped_ratio(ratio_y, k11, k12, height)
    jx, jy = k00 / z, k11 / z
    # Rows of J W of the camera, times the splat's rotation and scales: a root of the covariance.
    u0, u1, u2 = (
        jx * (w00 - clamped_x * w20),
        jx * (w01 - clamped_x * w21),
        jx * (w02 - clamped_x * w22),
    )
    v0, v1, v2 = (
        jy * (w10 - clamped_y * w20),
        jy * (w11 - clamped_y * w21),
        jy * (w12 - clamped_y * w22),
    )
    ux = (u0 * r00 + u1 * r10 + u2 * r20) * sx
    uy = (u0 * r01 + u1 * r11 + u2 * r21) * sy
    uz = (u0 * r02 + u1 * r12 + u2 * r22) * sz
    vx = (v0 * r00 + v1 * r10 + v2 * r20) * sx
    vy = (v0 * r01 + v1 * r11 + v2 * r21) * sy
    vz = (v0 * r02 + v1 * r12 + v2 * r22) * sz
    xx, yy = ux * ux + uy * uy + uz * uz + EPS2D, vx * vx + vy * vy + vz * vz + EPS2D
    cov_xy = ux * vx + uy * vy + uz * vz
    nx, ny, nz = cross(ux, uy, uz, vx, vy, vz)
    det_0 = nx * nx + ny * ny + nz * nz
    det = det_0 + EPS2D * (xx + yy - EPS2D)
    has_area = (det > 0.0) & (det < float("inf"))
    has_area &= tl.maximum(tl.maximum(xx, yy), 1.0) / det < MAX_CONIC
    det = tl.where(has_area, det, 1.0)
    if ANTIALIASED:
        ratio = det_0 / det
        above = ratio > MIN_COMPENSATION * MIN_COMPENSATION
        o = o * tl.where(above, tl.sqrt_rn(tl.where(above, ratio, 1.0)), MIN_COMPENSATION)

    extent = tl.sqrt_rn(2.0 * tl.maximum(tl.log(tl.maximum(o, MIN_ALPHA) / MIN_ALPHA), 0.0))
    extent = tl.minimum(extent, MAX_EXTENT)
    radius_x, radius_y = tl.ceil(extent * tl.sqrt_rn(xx)), tl.ceil(extent * tl.sqrt_rn(yy))
    visible = in_depth & has_area & (o >= MIN_ALPHA)
    visible &= (radius_x > RADIUS_CLIP) | (radius_y > RADIUS_CLIP)
    visible &= (mean_x + radius_x > 0.0) & (mean_x - radius_x < width)
    visible &= (mean_y + radius_y > 0.0) & (mean_y - radius_y < height)
    a, b, c = yy / det, -cov_xy / det, xx / det

    # The box of tiles that holds the ellipse, and those in it that the ellipse touches.
    left = tl.minimum(tl.maximum(tl.floor((mean_x - radius_x) / TILE_W), 0.0), tiles_x)
    right = tl.minimum(tl.maximum(tl.ceil((mean_x + radius_x) / TILE_W), 0.0), tiles_x)
    top = tl.minimum(tl.maximum(tl.floor((mean_y - radius_y) / TILE_H), 0.0), tiles_y)
    bottom = tl.minimum(tl.maximum(tl.ceil((mean_y + radius_y) / TILE_H), 0.0), tiles_y)
    top = tl.where(visible, top, 0.0).to(tl.int32)
    rows = tl.where(visible, bottom, 0.0).to(tl.int32) - top
    level_a, inverse_a, slope, inverse_det, half_height, height_of_right = ellipse_terms(
        a, b, c, o, det
    )
    count = tl.zeros([BLOCK], tl.int32)
    most_rows = tl.max(rows)
    row = 0
    while row < most_rows:
        _first, columns = row_span(
            mean_x, mean_y, level_a, inverse_a, slope, inverse_det, half_height, height_of_right,
            left, right, (top + row).to(tl.float32), TILE_W, TILE_H,
        )  # fmt: skip
        count += tl.where(row < rows, columns, 0)
        row += 1

    out = image * total + splat
    store_record(records, out, mean_x, mean_y, a, b, c, o, z, det, live)
    tl.store(depths + out, z, mask=live)
    tl.store(counts + out, count, mask=live)
    box = tl.join(top | (rows << 16), left.to(tl.int32) | (right.to(tl.int32) << 16))
    tl.store(boxes + out[:, None] * 2 + tl.arange(0, 2)[None, :], box, mask=live[:, None])
    bin_id, place = join_bin(limits, tallies, image, depth_key(z, splat), count, samples, half)
    tl.store(bins + out, bin_id, mask=live)
    tl.store(places + out, place, mask=live)
