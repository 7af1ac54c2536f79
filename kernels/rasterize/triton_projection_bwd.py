"""Triton kernel of the projection's gradient: of records to those of splats and cameras."""

import triton
import triton.language as tl

from kernels.rasterize import triton_splat

RECORD = triton_splat.RECORD
CAMERA_GRADS = tl.constexpr(32)  # floats kept per block and image: 12 of the pose, 6 intrinsics
clamped_ratio = triton_splat.clamped_ratio
cross = triton_splat.cross
load_camera = triton_splat.load_camera
load_splat = triton_splat.load_splat
rotate = triton_splat.rotate


@triton.jit
def _sum_seen(values, seen):
    """Sum over the splats seen, the same bits in every thread.

    The choice keeps a product among `values` from being fused with the first addition, where each
    thread would round its neighbour's product and not its own: all threads of a warp write the sum,
    and which of two would stay is not defined.
    """
    return tl.sum(tl.where(seen, values, 0.0))


@triton.jit
def project_backward_kernel(
    means, quats, scales, opacities, viewmats, intrinsics, emitted, record_grads,
    mean_grads, quat_grads, scale_grads, opacity_grads, camera_grads,
    total, images_per_set, width, height,
    means_lead, quats_lead, scales_lead, opacities_lead,
    EPS2D: tl.constexpr, ANTIALIASED: tl.constexpr, MIN_COMPENSATION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of splats, sets of images that see the same splats).

    A program walks over the images of its set, so that shared splats need no atomics; camera
    gradients are written as one partial sum per block.
    """
    block = tl.program_id(0)
    set_id = tl.program_id(1)
    blocks = tl.num_programs(0)
    splat = block * BLOCK + tl.arange(0, BLOCK)
    live = splat < total
    x0, y0, z0, qw, qx, qy, qz, sx, sy, sz, o, _ = load_splat(
        means, quats, scales, opacities, splat, live, set_id, total,
        means_lead, quats_lead, scales_lead, opacities_lead,
    )  # fmt: skip
    nw, nx, ny, nz, inverse, r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotate(qw, qx, qy, qz)
    zero = tl.zeros([BLOCK], tl.float32)
    g_x, g_y, g_z, g_o = zero, zero, zero, zero
    # Gradient of the splat's matrix M = rotation x scales.
    h00, h01, h02, h10, h11, h12, h20, h21, h22 = (
        zero, zero, zero, zero, zero, zero, zero, zero, zero,
    )  # fmt: skip
    step = 0
    while step < images_per_set:
        image = set_id * images_per_set + step
        w00, w01, w02, t0, w10, w11, w12, t1, w20, w21, w22, t2, k00, k01, k02, k10, k11, k12 = (
            load_camera(viewmats, intrinsics, image)
        )
        out = image * total + splat
        seen = live & (tl.load(emitted + out, mask=live, other=0) > 0)
        grad = record_grads + out * RECORD
        g_mean_x = tl.load(grad, mask=seen, other=0.0)
        g_mean_y = tl.load(grad + 1, mask=seen, other=0.0)
        g_a = tl.load(grad + 2, mask=seen, other=0.0)
        g_b = tl.load(grad + 3, mask=seen, other=0.0)
        g_c = tl.load(grad + 4, mask=seen, other=0.0)
        g_opacity = tl.load(grad + 5, mask=seen, other=0.0)
        g_depth = tl.load(grad + 6, mask=seen, other=0.0)

        # Forward again; for unseen splats any finite numbers do, their gradients are zero. Theirs
        # may overflow, so they become points: zero times infinity is no zero.
        shown_x = tl.where(seen, sx, 0.0)
        shown_y = tl.where(seen, sy, 0.0)
        shown_z = tl.where(seen, sz, 0.0)
        m00, m01, m02 = r00 * shown_x, r01 * shown_y, r02 * shown_z
        m10, m11, m12 = r10 * shown_x, r11 * shown_y, r12 * shown_z
        m20, m21, m22 = r20 * shown_x, r21 * shown_y, r22 * shown_z
        x = tl.where(seen, w00 * x0 + w01 * y0 + w02 * z0 + t0, 0.0)
        y = tl.where(seen, w10 * x0 + w11 * y0 + w12 * z0 + t1, 0.0)
        z = tl.where(seen, w20 * x0 + w21 * y0 + w22 * z0 + t2, 1.0)
        inverse_z = 1.0 / z
        ratio_x, ratio_y = x * inverse_z, y * inverse_z
        clamped_x, inside_x = clamped_ratio(ratio_x, k00, k02, width)
        clamped_y, inside_y = clamped_ratio(ratio_y, k11, k12, height)
        clamped_x, inside_x = tl.where(seen, clamped_x, 0.0), inside_x | (seen == 0)
        clamped_y, inside_y = tl.where(seen, clamped_y, 0.0), inside_y | (seen == 0)
        jx, jy = tl.where(seen, k00 * inverse_z, 0.0), tl.where(seen, k11 * inverse_z, 0.0)
        f00 = w00 * m00 + w01 * m10 + w02 * m20
        f01 = w00 * m01 + w01 * m11 + w02 * m21
        f02 = w00 * m02 + w01 * m12 + w02 * m22
        f10 = w10 * m00 + w11 * m10 + w12 * m20
        f11 = w10 * m01 + w11 * m11 + w12 * m21
        f12 = w10 * m02 + w11 * m12 + w12 * m22
        f20 = w20 * m00 + w21 * m10 + w22 * m20
        f21 = w20 * m01 + w21 * m11 + w22 * m21
        f22 = w20 * m02 + w21 * m12 + w22 * m22
        p0, p1, p2 = f00 - clamped_x * f20, f01 - clamped_x * f21, f02 - clamped_x * f22
        q0, q1, q2 = f10 - clamped_y * f20, f11 - clamped_y * f21, f12 - clamped_y * f22
        # Rows u = jx p and v = jy q of a root R of the covariance, n = u x v, the inverse Q.
        u0, u1, u2, v0, v1, v2 = jx * p0, jx * p1, jx * p2, jy * q0, jy * q1, jy * q2
        n0, n1, n2 = cross(u0, u1, u2, v0, v1, v2)
        det_0 = n0 * n0 + n1 * n1 + n2 * n2
        xx, yy = u0 * u0 + u1 * u1 + u2 * u2 + EPS2D, v0 * v0 + v1 * v1 + v2 * v2 + EPS2D
        det = tl.where(seen, det_0 + EPS2D * (xx + yy - EPS2D), 1.0)
        inverse_det = 1.0 / det
        a, c = yy * inverse_det, xx * inverse_det
        b = -(u0 * v0 + u1 * v1 + u2 * v2) * inverse_det

        # A gradient G of Q is one of -2 Q G (Q R) for R, rows e and d. For a long, thin
        # splat Q R multiplied out would be rounding errors; it is (v x n, n x u) / det, and a share
        # of R from the filter.
        k0, k1, k2 = cross(v0, v1, v2, n0, n1, n2)
        l0, l1, l2 = cross(n0, n1, n2, u0, u1, u2)
        share = EPS2D * inverse_det
        qu0, qv0 = k0 * inverse_det + share * u0, l0 * inverse_det + share * v0
        qu1, qv1 = k1 * inverse_det + share * u1, l1 * inverse_det + share * v1
        qu2, qv2 = k2 * inverse_det + share * u2, l2 * inverse_det + share * v2
        half_b = 0.5 * g_b
        gu0, gv0 = g_a * qu0 + half_b * qv0, half_b * qu0 + g_c * qv0
        gu1, gv1 = g_a * qu1 + half_b * qv1, half_b * qu1 + g_c * qv1
        gu2, gv2 = g_a * qu2 + half_b * qv2, half_b * qu2 + g_c * qv2
        e0, d0 = -2 * (a * gu0 + b * gv0), -2 * (b * gu0 + c * gv0)
        e1, d1 = -2 * (a * gu1 + b * gv1), -2 * (b * gu1 + c * gv1)
        e2, d2 = -2 * (a * gu2 + b * gv2), -2 * (b * gu2 + c * gv2)
        if ANTIALIASED:
            ratio = det_0 * inverse_det
            rest = share * (xx + yy - EPS2D)  # 1 - ratio
            above = seen & (ratio > MIN_COMPENSATION * MIN_COMPENSATION)
            factor = tl.where(above, tl.sqrt_rn(tl.where(above, ratio, 1.0)), MIN_COMPENSATION)
            # 2 times the gradient of the ratio of two determinants
            g_ratio = tl.where(above, g_opacity * o / tl.where(above, factor, 1.0), 0.0)
            e0, d0 = (
                e0 + g_ratio * (rest * qu0 - share * u0),
                d0 + g_ratio * (rest * qv0 - share * v0),
            )
            e1, d1 = (
                e1 + g_ratio * (rest * qu1 - share * u1),
                d1 + g_ratio * (rest * qv1 - share * v1),
            )
            e2, d2 = (
                e2 + g_ratio * (rest * qu2 - share * u2),
                d2 + g_ratio * (rest * qv2 - share * v2),
            )
            g_opacity = g_opacity * factor
        g_o += g_opacity

        g_jx = e0 * p0 + e1 * p1 + e2 * p2
        g_jy = d0 * q0 + d1 * q1 + d2 * q2
        g_clamped_x = -jx * (e0 * f20 + e1 * f21 + e2 * f22)
        g_clamped_y = -jy * (d0 * f20 + d1 * f21 + d2 * f22)
        e0, e1, e2 = jx * e0, jx * e1, jx * e2  # now the gradient of the factor's first row
        d0, d1, d2 = jy * d0, jy * d1, jy * d2
        c0, c1, c2 = (
            -clamped_x * e0 - clamped_y * d0,
            -clamped_x * e1 - clamped_y * d1,
            -clamped_x * e2 - clamped_y * d2,
        )
        # Outside the limits the ratio is (+-margin - centre) / focal: only the camera moves it.
        free_x, free_y = tl.where(inside_x, g_clamped_x, 0.0), tl.where(inside_y, g_clamped_y, 0.0)
        bound_x = tl.where(inside_x, 0.0, g_clamped_x / k00)
        bound_y = tl.where(inside_y, 0.0, g_clamped_y / k11)
        g_ratio_x = k00 * g_mean_x + k10 * g_mean_y + free_x
        g_ratio_y = k01 * g_mean_x + k11 * g_mean_y + free_y
        g_px, g_py = g_ratio_x * inverse_z, g_ratio_y * inverse_z
        g_pz = g_depth - inverse_z * (
            g_ratio_x * ratio_x + g_ratio_y * ratio_y + g_jx * jx + g_jy * jy
        )
        g_x += w00 * g_px + w10 * g_py + w20 * g_pz
        g_y += w01 * g_px + w11 * g_py + w21 * g_pz
        g_z += w02 * g_px + w12 * g_py + w22 * g_pz
        h00 += w00 * e0 + w10 * d0 + w20 * c0
        h01 += w00 * e1 + w10 * d1 + w20 * c1
        h02 += w00 * e2 + w10 * d2 + w20 * c2
        h10 += w01 * e0 + w11 * d0 + w21 * c0
        h11 += w01 * e1 + w11 * d1 + w21 * c1
        h12 += w01 * e2 + w11 * d2 + w21 * c2
        h20 += w02 * e0 + w12 * d0 + w22 * c0
        h21 += w02 * e1 + w12 * d1 + w22 * c1
        h22 += w02 * e2 + w12 * d2 + w22 * c2

        partial = camera_grads + (image * blocks + block) * CAMERA_GRADS
        tl.store(partial, _sum_seen(g_px * x0 + e0 * m00 + e1 * m01 + e2 * m02, seen))
        tl.store(partial + 1, _sum_seen(g_px * y0 + e0 * m10 + e1 * m11 + e2 * m12, seen))
        tl.store(partial + 2, _sum_seen(g_px * z0 + e0 * m20 + e1 * m21 + e2 * m22, seen))
        tl.store(partial + 3, _sum_seen(g_px, seen))
        tl.store(partial + 4, _sum_seen(g_py * x0 + d0 * m00 + d1 * m01 + d2 * m02, seen))
        tl.store(partial + 5, _sum_seen(g_py * y0 + d0 * m10 + d1 * m11 + d2 * m12, seen))
        tl.store(partial + 6, _sum_seen(g_py * z0 + d0 * m20 + d1 * m21 + d2 * m22, seen))
        tl.store(partial + 7, _sum_seen(g_py, seen))
        tl.store(partial + 8, _sum_seen(g_pz * x0 + c0 * m00 + c1 * m01 + c2 * m02, seen))
        tl.store(partial + 9, _sum_seen(g_pz * y0 + c0 * m10 + c1 * m11 + c2 * m12, seen))
        tl.store(partial + 10, _sum_seen(g_pz * z0 + c0 * m20 + c1 * m21 + c2 * m22, seen))
        tl.store(partial + 11, _sum_seen(g_pz, seen))
        tl.store(
            partial + 12,
            _sum_seen(g_mean_x * ratio_x + g_jx * inverse_z - bound_x * clamped_x, seen),
        )
        tl.store(partial + 13, _sum_seen(g_mean_x * ratio_y, seen))
        tl.store(partial + 14, _sum_seen(g_mean_x - bound_x, seen))
        tl.store(partial + 15, _sum_seen(g_mean_y * ratio_x, seen))
        tl.store(
            partial + 16,
            _sum_seen(g_mean_y * ratio_y + g_jy * inverse_z - bound_y * clamped_y, seen),
        )
        tl.store(partial + 17, _sum_seen(g_mean_y - bound_y, seen))
        step += 1

    row = set_id * total + splat
    tl.store(mean_grads + row * 3, g_x, mask=live)
    tl.store(mean_grads + row * 3 + 1, g_y, mask=live)
    tl.store(mean_grads + row * 3 + 2, g_z, mask=live)
    tl.store(scale_grads + row * 3, h00 * r00 + h10 * r10 + h20 * r20, mask=live)
    tl.store(scale_grads + row * 3 + 1, h01 * r01 + h11 * r11 + h21 * r21, mask=live)
    tl.store(scale_grads + row * 3 + 2, h02 * r02 + h12 * r12 + h22 * r22, mask=live)
    tl.store(opacity_grads + row, g_o, mask=live)
    v00, v01, v02 = h00 * sx, h01 * sy, h02 * sz
    v10, v11, v12 = h10 * sx, h11 * sy, h12 * sz
    v20, v21, v22 = h20 * sx, h21 * sy, h22 * sz
    g_nw = 2 * (nx * (v21 - v12) + ny * (v02 - v20) + nz * (v10 - v01))
    g_nx = 2 * (ny * (v01 + v10) + nz * (v02 + v20) + nw * (v21 - v12)) - 4 * nx * (v11 + v22)
    g_ny = 2 * (nx * (v01 + v10) + nz * (v12 + v21) + nw * (v02 - v20)) - 4 * ny * (v00 + v22)
    g_nz = 2 * (nx * (v02 + v20) + ny * (v12 + v21) + nw * (v10 - v01)) - 4 * nz * (v00 + v11)
    along = nw * g_nw + nx * g_nx + ny * g_ny + nz * g_nz
    tl.store(quat_grads + row * 4, (g_nw - nw * along) * inverse, mask=live)
    tl.store(quat_grads + row * 4 + 1, (g_nx - nx * along) * inverse, mask=live)
    tl.store(quat_grads + row * 4 + 2, (g_ny - ny * along) * inverse, mask=live)
    tl.store(quat_grads + row * 4 + 3, (g_nz - nz * along) * inverse, mask=live)
