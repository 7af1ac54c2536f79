"""Numba kernels: depth maps, visibility, normals, soft strands. One thread, deterministic."""

import math

import numba
import numpy as np

_FAR = np.float32(1e9)


@numba.njit(cache=True, fastmath=True)
def vertex_normals(positions, triangles):
    """Area-weighted unit normals (V, 3)."""
    normals = np.zeros_like(positions)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = positions[b, 0] - positions[a, 0]
        uy = positions[b, 1] - positions[a, 1]
        uz = positions[b, 2] - positions[a, 2]
        vx = positions[c, 0] - positions[a, 0]
        vy = positions[c, 1] - positions[a, 1]
        vz = positions[c, 2] - positions[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(normals.shape[0]):
        length = math.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-20
        for j in range(3):
            normals[i, j] /= length
    return normals


@numba.njit(cache=True, fastmath=True)
def depth_map(points, triangles, axes, extent, out):
    """Orthographic depth (smallest wins) of triangles from outside, into `out` (N, N).

    Args:
        points: (V, 3) world.
        triangles: (T, 3).
        axes: (3, 3) rows right, up, towards the light.
        extent: Half width of the square map, world units.
        out: (N, N) float32, already holding other casters or a far value.
    """
    size = out.shape[0]
    scale = 0.5 * size / extent
    count = points.shape[0]
    u = np.empty(count, np.float32)
    v = np.empty(count, np.float32)
    d = np.empty(count, np.float32)
    for i in range(count):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u[i] = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * scale + 0.5 * size
        v[i] = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * scale + 0.5 * size
        d[i] = -(axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = (u[b] - u[a]) * (v[c] - v[a]) - (v[b] - v[a]) * (u[c] - u[a])
        if abs(area) < 1e-9:
            continue
        x0 = max(0, math.ceil(min(u[a], u[b], u[c]) - 0.5))
        x1 = min(size - 1, math.floor(max(u[a], u[b], u[c]) - 0.5))
        y0 = max(0, math.ceil(min(v[a], v[b], v[c]) - 0.5))
        y1 = min(size - 1, math.floor(max(v[a], v[b], v[c]) - 0.5))
        if x0 > x1 or y0 > y1:
            continue
        inverse = 1.0 / area
        for py in range(y0, y1 + 1):
            cy = py + 0.5
            for px in range(x0, x1 + 1):
                cx = px + 0.5
                w1 = ((cx - u[a]) * (v[c] - v[a]) - (cy - v[a]) * (u[c] - u[a])) * inverse
                w2 = ((u[b] - u[a]) * (cy - v[a]) - (v[b] - v[a]) * (cx - u[a])) * inverse
                w0 = 1.0 - w1 - w2
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    depth = w0 * d[a] + w1 * d[b] + w2 * d[c]
                    if depth < out[py, px]:
                        out[py, px] = depth


@numba.njit(cache=True, fastmath=True)
def splat_density(points, weight, axes, extent, out_depth, out_density):
    """Adds points to a map of nearest depth and of summed weight: hair as a soft caster."""
    size = out_depth.shape[0]
    scale = 0.5 * size / extent
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u = int((axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * scale + 0.5 * size)
        v = int((axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * scale + 0.5 * size)
        if 0 <= u < size and 0 <= v < size:
            d = -(axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z)
            out_density[v, u] += weight
            if d < out_depth[v, u]:
                out_depth[v, u] = d


@numba.njit(cache=True, fastmath=True)
def lookup(points, normals, axes, extent, depth, hair_depth, hair_density, bias, out):
    """Share of light (V,) that reaches points: percentage-closer over 2x2 texels times hair."""
    size = depth.shape[0]
    scale = 0.5 * size / extent
    for i in range(points.shape[0]):
        facing = (
            axes[2, 0] * normals[i, 0] + axes[2, 1] * normals[i, 1] + axes[2, 2] * normals[i, 2]
        )
        if facing <= 0:
            out[i] = 0.0
            continue
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * scale + 0.5 * size - 0.5
        v = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * scale + 0.5 * size - 0.5
        d = -(axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z) - bias * (2.0 - facing)
        iu, iv = math.floor(u), math.floor(v)
        if iu < 0 or iv < 0 or iu >= size - 1 or iv >= size - 1:
            out[i] = 1.0
            continue
        fu, fv = u - iu, v - iv
        light = 0.0
        for dv in range(2):
            for du in range(2):
                w = (fu if du else 1 - fu) * (fv if dv else 1 - fv)
                if depth[iv + dv, iu + du] >= d:
                    if hair_density[iv + dv, iu + du] > 0 and hair_depth[iv + dv, iu + du] < d:
                        light += w * math.exp(-hair_density[iv + dv, iu + du])
                    else:
                        light += w
        out[i] = light


@numba.njit(cache=True, fastmath=True)
def project(points, world2cam, focal_x, focal_y, centre_x, centre_y, out):
    """Pixel x, pixel y and depth (V, 3) of world points; pixel i covers [i, i + 1)."""
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        cx = world2cam[0, 0] * x + world2cam[0, 1] * y + world2cam[0, 2] * z + world2cam[0, 3]
        cy = world2cam[1, 0] * x + world2cam[1, 1] * y + world2cam[1, 2] * z + world2cam[1, 3]
        cz = world2cam[2, 0] * x + world2cam[2, 1] * y + world2cam[2, 2] * z + world2cam[2, 3]
        out[i, 0] = focal_x * cx / cz + centre_x
        out[i, 1] = focal_y * cy / cz + centre_y
        out[i, 2] = cz


@numba.njit(cache=True, fastmath=True)
def visibility(screen, triangles, double_sided, height, width):
    """Nearest triangle, its perspective-correct corner weights and depth at every pixel centre.

    Args:
        screen: (V, 3) from `project`.
        triangles: (T, 3), front faces counter-clockwise in the world.
        double_sided: (T,) uint8; others show only their front.

    Returns:
        (H, W) int32 index or -1, (H, W, 2) weights of corners 1 and 2, (H, W) depth.
    """
    index = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    depth = np.full((height, width), _FAR, np.float32)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = screen[a, 0], screen[a, 1], screen[a, 2]
        bx, by, bz = screen[b, 0], screen[b, 1], screen[b, 2]
        cx, cy, cz = screen[c, 0], screen[c, 1], screen[c, 2]
        if az < 0.1 or bz < 0.1 or cz < 0.1:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # y points down on the screen, so counter-clockwise faces have a negative area.
        if area >= 0 and double_sided[t] == 0:
            continue
        if abs(area) < 1e-9:
            continue
        x0 = max(0, math.ceil(min(ax, bx, cx) - 0.5))
        x1 = min(width - 1, math.floor(max(ax, bx, cx) - 0.5))
        y0 = max(0, math.ceil(min(ay, by, cy) - 0.5))
        y1 = min(height - 1, math.floor(max(ay, by, cy) - 0.5))
        inverse = 1.0 / area
        for py in range(y0, y1 + 1):
            sy = py + 0.5
            for px in range(x0, x1 + 1):
                sx = px + 0.5
                w1 = ((sx - ax) * (cy - ay) - (sy - ay) * (cx - ax)) * inverse
                w2 = ((bx - ax) * (sy - ay) - (by - ay) * (sx - ax)) * inverse
                w0 = 1.0 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = 1.0 / (w0 / az + w1 / bz + w2 / cz)
                if z < depth[py, px]:
                    depth[py, px] = z
                    index[py, px] = t
                    weights[py, px, 0] = w1 * z / bz
                    weights[py, px, 1] = w2 * z / cz
    return index, weights, depth


@numba.njit(cache=True, fastmath=True)
def strands(order, ends, colors, alphas, widths, kinds, depth, bias, image, cover, kind_cover):
    """Blends line segments, far to near, over `image` where nothing solid is nearer.

    Args:
        order: (S,) segment indices from far to near.
        ends: (S, 2, 3) screen positions (pixel x, pixel y, depth).
        colors: (S, 3); alphas: (S,); widths: (S,) in pixels; kinds: (S,) row of `kind_cover`.
        depth: (H, W) of the solid surfaces.
        bias: How far behind the surface a strand still shows.
        image: (H, W, 3) premultiplied, updated. cover: (H, W) alpha, updated.
        kind_cover: (K, H, W) cover of every kind of strand, updated.
    """
    height, width = depth.shape
    for n in range(order.shape[0]):
        s = order[n]
        ax, ay, az = ends[s, 0, 0], ends[s, 0, 1], ends[s, 0, 2]
        bx, by, bz = ends[s, 1, 0], ends[s, 1, 1], ends[s, 1, 2]
        half = 0.5 * widths[s]
        # Thinner than a pixel: keep one pixel's footprint, lower the opacity instead.
        strength = alphas[s]
        if half < 0.5:
            strength *= half * 2.0
            half = 0.5
        reach = half + 0.5
        x_low, x_high = min(ax, bx) - reach, max(ax, bx) + reach
        y0 = max(0, math.floor(min(ay, by) - reach))
        y1 = min(height - 1, math.floor(max(ay, by) + reach))
        if x_high < 0 or x_low >= width:
            continue
        dx, dy = bx - ax, by - ay
        squared = dx * dx + dy * dy
        inverse = 1.0 / squared if squared > 1e-8 else 0.0
        k = kinds[s]
        # Only the part of a row that the segment's band crosses.
        steep = abs(dy) > 1e-3
        slope = dx / dy if steep else 0.0
        band = reach * math.sqrt(1.0 + slope * slope) + 0.5 if steep else 1e9
        for py in range(y0, y1 + 1):
            sy = py + 0.5 - ay
            low, high = x_low, x_high
            if steep:
                low = max(low, ax + sy * slope - band)
                high = min(high, ax + sy * slope + band)
            x0 = max(0, math.floor(low))
            x1 = min(width - 1, math.floor(high))
            for px in range(x0, x1 + 1):
                sx = px + 0.5 - ax
                t = (sx * dx + sy * dy) * inverse
                t = 0.0 if t < 0 else (1.0 if t > 1 else t)
                ex, ey = sx - t * dx, sy - t * dy
                reach2 = ex * ex + ey * ey
                if reach2 >= reach * reach:
                    continue
                z = az + t * (bz - az)
                if z > depth[py, px] + bias:
                    continue
                a = min(1.0, reach - math.sqrt(reach2)) * strength
                rest = 1.0 - a
                image[py, px, 0] = image[py, px, 0] * rest + colors[s, 0] * a
                image[py, px, 1] = image[py, px, 1] * rest + colors[s, 1] * a
                image[py, px, 2] = image[py, px, 2] * rest + colors[s, 2] * a
                cover[py, px] = cover[py, px] * rest + a
                kind_cover[k, py, px] = kind_cover[k, py, px] * rest + a
