"""Splats and cameras as the projection kernels load them, and the record they turn into.

A record is what blending needs of one splat in one image, eight float32 (one 32-byte sector):
mean x, mean y, conic A, B, C, opacity, depth, determinant of the covariance. Formulas and their
gradients are those of `docs/kernels.md`, section "numerics"; small matrices are spelled out, one
register per entry.
"""

import triton
import triton.language as tl

from kernels import constants

JACOBIAN_MARGIN = tl.constexpr(constants.JACOBIAN_MARGIN)
MIN_QUAT_NORM2 = tl.constexpr(constants.MIN_QUAT_NORM**2)
RECORD = tl.constexpr(8)


@triton.jit
def _load3(pointer, row, live):
    first = tl.load(pointer + row * 3, mask=live, other=0.0)
    second = tl.load(pointer + row * 3 + 1, mask=live, other=0.0)
    third = tl.load(pointer + row * 3 + 2, mask=live, other=0.0)
    return first, second, third


@triton.jit
def _load4(pointer, row, live):
    first = tl.load(pointer + row * 4, mask=live, other=0.0)
    second = tl.load(pointer + row * 4 + 1, mask=live, other=0.0)
    third = tl.load(pointer + row * 4 + 2, mask=live, other=0.0)
    fourth = tl.load(pointer + row * 4 + 3, mask=live, other=0.0)
    return first, second, third, fourth


@triton.jit
def load_splat(
    means,
    quats,
    scales,
    opacities,
    splat,
    live,
    set_id,
    total,
    means_lead,
    quats_lead,
    scales_lead,
    opacities_lead,
):
    """One splat per element; numbers of splats that are not finite are replaced by zeros.

    A lead is the number of scenes an array has: all, or one that all scenes share.
    """
    x, y, z = _load3(means, (set_id % means_lead) * total + splat, live)
    qw, qx, qy, qz = _load4(quats, (set_id % quats_lead) * total + splat, live)
    sx, sy, sz = _load3(scales, (set_id % scales_lead) * total + splat, live)
    o = tl.load(opacities + (set_id % opacities_lead) * total + splat, mask=live, other=0.0)
    zeros = x * 0.0 + y * 0.0 + z * 0.0 + qw * 0.0 + qx * 0.0 + qy * 0.0 + qz * 0.0
    zeros += sx * 0.0 + sy * 0.0 + sz * 0.0 + o * 0.0
    finite = live & (zeros == 0.0)
    x, y, z = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0), tl.where(finite, z, 0.0)
    qw, qx = tl.where(finite, qw, 0.0), tl.where(finite, qx, 0.0)
    qy, qz = tl.where(finite, qy, 0.0), tl.where(finite, qz, 0.0)
    sx, sy, sz = tl.where(finite, sx, 0.0), tl.where(finite, sy, 0.0), tl.where(finite, sz, 0.0)
    o = tl.where(finite, o, 0.0)
    return x, y, z, qw, qx, qy, qz, sx, sy, sz, o, finite


@triton.jit
def load_camera(viewmats, intrinsics, image):
    """Rotation rows, translation, and the two upper rows of K, as scalars."""
    view = viewmats + image * 16
    k = intrinsics + image * 9
    return (
        tl.load(view), tl.load(view + 1), tl.load(view + 2), tl.load(view + 3),
        tl.load(view + 4), tl.load(view + 5), tl.load(view + 6), tl.load(view + 7),
        tl.load(view + 8), tl.load(view + 9), tl.load(view + 10), tl.load(view + 11),
        tl.load(k), tl.load(k + 1), tl.load(k + 2), tl.load(k + 3), tl.load(k + 4), tl.load(k + 5),
    )  # fmt: skip


@triton.jit
def rotate(qw, qx, qy, qz):
    """Normalised quaternion, its inverse length, and the rotation matrix; zero is the identity."""
    squared = qw * qw + qx * qx + qy * qy + qz * qz
    is_zero = squared < MIN_QUAT_NORM2
    inverse = tl.where(is_zero, 0.0, 1.0 / tl.sqrt_rn(tl.where(is_zero, 1.0, squared)))
    w, x, y, z = qw * inverse, qx * inverse, qy * inverse, qz * inverse
    return (
        w, x, y, z, inverse,
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@triton.jit
def clamped_ratio(ratio, focal, centre, size):
    """The ratio inside the limits of the Jacobian, and whether it was inside already.

    A focal length of 0 sets no limits: they are infinite, or NaN where the centre is at an edge,
    which minimum and maximum pass over.
    """
    margin = JACOBIAN_MARGIN * 0.5 * size / focal
    low = -(centre / focal + margin)
    high = (size - centre) / focal + margin
    clamped = tl.minimum(tl.maximum(ratio, low), high)
    return clamped, clamped == ratio


@triton.jit
def cross(ux, uy, uz, vx, vy, vz):
    """u x v. Its square is the determinant of the matrix of products of u and v.

    For a long, thin splat that determinant spelled out, uu vv - uv uv, would be rounding errors.
    """
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@triton.jit
def store_record(records, index, mean_x, mean_y, a, b, c, opacity, depth, det, live):
    """Writes records, whole ones: eight stores of one number each would be eight times the work."""
    # A join puts its second argument beside its first; the last one's pairs lie next to each other.
    even = tl.join(tl.join(mean_x, c), tl.join(a, depth))
    odd = tl.join(tl.join(mean_y, opacity), tl.join(b, det))
    record = tl.reshape(tl.join(even, odd), [index.shape[0], RECORD])
    target = records + index[:, None] * RECORD + tl.arange(0, RECORD)[None, :]
    tl.store(target, record, mask=live[:, None])
