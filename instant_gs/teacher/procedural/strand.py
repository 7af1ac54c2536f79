"""Light on strands and their place in a picture."""

import numba
import numpy as np

from instant_gs.teacher.procedural import fuzz as fuzz_model
from instant_gs.teacher.procedural import hair as hair_model
from instant_gs.teacher.procedural import light, raster

#: How fast light fades inside hair, per world unit.
ABSORPTION = 16.0


@numba.njit(cache=True, fastmath=True)
def _reach(points, axes, extent, solid, hair_depth, absorb, bias, out):
    """Share of light that reaches points inside hair: Beer's law in depth below the outer hair."""
    size = solid.shape[0]
    scale = 0.5 * size / extent
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u = int((axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) * scale + 0.5 * size)
        v = int((axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) * scale + 0.5 * size)
        d = -(axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z)
        out[i] = 1.0
        if 0 <= u < size and 0 <= v < size:
            if solid[v, u] < d - bias:
                out[i] = 0.0
            elif hair_depth[v, u] < d:
                out[i] = np.exp(-(d - hair_depth[v, u]) * absorb)


def illuminate(grown, lights, rest, model):
    """Lights the strands once: hair does not move with the expression."""
    if len(grown.points) == 0:
        return
    points = 0.5 * (grown.points[:, 1:] + grown.points[:, :-1])
    flat = np.ascontiguousarray(points.reshape(-1, 3))
    tangent = hair_model.unit(grown.points[:, 1:] - grown.points[:, :-1]).reshape(-1, 3)
    centre = rest[model.masks["hairline"] > 0.3].mean(axis=0) - [0, 0.1, 0]
    outward = hair_model.unit(flat - centre)
    total = np.zeros_like(flat)
    share = np.zeros(len(flat), np.float32)
    reach = np.empty(len(flat), np.float32)
    for n in range(len(lights.axes)):
        hair_depth, _ = lights.hair[n]
        solid = np.full_like(hair_depth, light.FAR)
        raster.depth_map(rest, model.coarse, lights.axes[n], light.EXTENT, solid)
        _reach(flat, lights.axes[n], light.EXTENT, solid, hair_depth, ABSORPTION, 0.012, reach)
        towards = lights.axes[n, 2]
        along = tangent @ towards
        strand = np.sqrt(np.maximum(1 - along * along, 0))
        wrapped = np.clip(outward @ towards * 0.75 + 0.25, 0, 1)
        total += (reach * strand * wrapped)[:, None] * lights.radiance[n]
        if n < light.KEY_SAMPLES:
            share += reach / light.KEY_SAMPLES
    grown.lit = np.ascontiguousarray(total.reshape(points.shape).astype(np.float32))
    grown.key_share = np.ascontiguousarray(share.reshape(points.shape[:2]))


@numba.njit(cache=True, fastmath=True)
def _gloss(points, lit, colors, share, camera, key, key_radiance, out):
    """Adds Kajiya-Kay highlights to diffuse strands: (N, K, 3)."""
    for i in range(points.shape[0]):
        for k in range(colors.shape[1]):
            tx = points[i, k + 1, 0] - points[i, k, 0]
            ty = points[i, k + 1, 1] - points[i, k, 1]
            tz = points[i, k + 1, 2] - points[i, k, 2]
            t = 1.0 / (np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9)
            vx = camera[0] - points[i, k, 0]
            vy = camera[1] - points[i, k, 1]
            vz = camera[2] - points[i, k, 2]
            v = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
            hx, hy, hz = key[0] + vx * v, key[1] + vy * v, key[2] + vz * v
            h = 1.0 / (np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
            d = (tx * hx + ty * hy + tz * hz) * t * h
            shifted = d + 0.08
            sine = np.sqrt(max(0.0, 1 - shifted * shifted))
            second = np.sqrt(max(0.0, 1 - (d - 0.12) ** 2))
            white = 0.032 * sine**60 * share[i, k]
            tinted = 0.35 * second**18 * share[i, k]
            for c in range(3):
                out[i, k, c] = (
                    colors[i, k, c] * (lit[i, k, c] * 1.5 + tinted * key_radiance[c])
                    + white * key_radiance[c]
                )


def draw(hair, short, moved, lights, world2cam, lens, camera, depth, image, cover, kinds):
    """Blends all strands over a picture; see raster.strands for the buffers."""
    ends, colors = [moved.fuzz_ends], [moved.fuzz_colors]
    lash_count = len(short.lash_alpha)
    alphas = [short.alpha, short.lash_alpha]
    widths = [short.width, np.full(lash_count, 0.0018, np.float32)]
    kind = [short.kind, np.full(lash_count, fuzz_model.LASH, np.int64)]
    if len(hair.points):
        shaded = np.empty_like(hair.colors)
        _gloss(
            hair.points, hair.lit, hair.colors, hair.key_share, camera, lights.key,
            lights.key_radiance, shaded,
        )  # fmt: skip
        seen = hair.alpha.reshape(-1) > 0
        pairs = np.stack([hair.points[:, :-1], hair.points[:, 1:]], axis=2).reshape(-1, 2, 3)
        ends.append(pairs[seen])
        colors.append(shaded.reshape(-1, 3)[seen])
        alphas.append(hair.alpha.reshape(-1)[seen])
        widths.append(np.full(int(seen.sum()), hair_model.STRAND_WIDTH, np.float32))
        kind.append(np.zeros(int(seen.sum()), np.int64))
    ends = np.concatenate(ends)
    screen = np.empty((len(ends) * 2, 3), np.float32)
    raster.project(np.ascontiguousarray(ends.reshape(-1, 3)), world2cam, *lens, screen)
    screen = screen.reshape(-1, 2, 3)
    distance = screen[:, :, 2].mean(axis=1)
    # Radix sort of 16-bit depths (0.05 mm steps) is ten times as fast as sorting floats.
    order = np.argsort((65535 - distance * 13000).astype(np.uint16), kind="stable")
    pixels = np.concatenate(widths) * np.float32(lens[0]) / distance
    raster.strands(
        order, screen, np.concatenate(colors), np.concatenate(alphas).astype(np.float32),
        pixels.astype(np.float32), np.concatenate(kind), depth, np.float32(0.004), image, cover,
        kinds,
    )  # fmt: skip
