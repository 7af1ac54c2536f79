"""Deferred shading of one view: skin, eyes, teeth, cloth. Numba, one pass over the pixels."""

import math

import numba
import numpy as np

from instant_gs.teacher.procedural import part

IRIS_ANGLE = part.IRIS_ANGLE
PUPIL_ANGLE = 0.16
SKIN, EYES, MOUTH, BROWS, HAIR, NECK_EARS, CLOTHES = range(1, 8)  # data.format.REGIONS
SKIN_OR_CLOTH, EYEBALL, TEETH, GUMS, TONGUE = part.SKIN, part.EYE, part.TEETH, part.GUM, part.TONGUE


@numba.njit(cache=True, fastmath=True)
def _hash(x):
    value = math.sin(x * 127.1) * 43758.5453
    return value - math.floor(value)


@numba.njit(cache=True, fastmath=True)
def _ggx(n_l, n_v, n_h, v_h, roughness, f0):
    a = roughness * roughness
    a2 = a * a
    d = n_h * n_h * (a2 - 1) + 1
    distribution = a2 / (math.pi * d * d + 1e-9)
    k = 0.5 * a
    shadow = 1.0 / ((n_l * (1 - k) + k) * (n_v * (1 - k) + k) + 1e-9) * 0.25
    fresnel = f0 + (1 - f0) * (1 - v_h) ** 5
    return distribution * shadow * fresnel


@numba.njit(cache=True, fastmath=True)
def _iris(angle, around, iris, out):
    """Colour of the eyeball at `angle` from the gaze axis, `around` it."""
    if angle < PUPIL_ANGLE:
        for c in range(3):
            out[c] = 0.004
        return
    if angle < IRIS_ANGLE:
        t = (angle - PUPIL_ANGLE) / (IRIS_ANGLE - PUPIL_ANGLE)
        spoke = 0.75 + 0.5 * _hash(math.floor(around * 13.0) * 0.317 + 1.7)
        spoke = spoke * (0.85 + 0.3 * math.sin(around * 31.0) * (1 - t))
        limbus = min(1.0, max(0.0, (1 - t) / 0.22))
        ring = 0.25 + 0.75 * limbus
        pupil_edge = min(1.0, t / 0.12)
        for c in range(3):
            out[c] = iris[c] * spoke * ring * (0.4 + 0.6 * pupil_edge) * (1.7 - 0.4 * t)
        return
    edge = min(1.0, (angle - IRIS_ANGLE) / 0.07)
    pink = min(1.0, max(0.0, (angle - 0.6) / 0.6))
    out[0] = (0.30 + 0.44 * edge) * (1 - 0.10 * pink)
    out[1] = (0.27 + 0.42 * edge) * (1 - 0.24 * pink)
    out[2] = (0.25 + 0.40 * edge) * (1 - 0.24 * pink)


@numba.njit(cache=True, fastmath=True)
def _eyeball(p, eye, out):
    """Colour of the nearer eyeball at world point `p`; `eye` as in `shade`."""
    k = 0
    best = 1e9
    for q in range(2):
        d = 0.0
        for j in range(3):
            d += (p[j] - eye[q, j]) ** 2
        if d < best:
            best, k = d, q
    dx, dy, dz = p[0] - eye[k, 0], p[1] - eye[k, 1], p[2] - eye[k, 2]
    length = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    cosine = (dx * eye[k, 3] + dy * eye[k, 4] + dz * eye[k, 5]) * length
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    around = math.atan2(dy * length - eye[k, 4] * cosine, dx * length - eye[k, 3] * cosine)
    _iris(angle, around, eye[k, 6:9], out)


@numba.njit(cache=True, fastmath=True)
def _detail(texture, u, v, out):
    """Multiplies `out` by the bilinear sample of the texture at chart coordinates in [0, 1]."""
    height, width = texture.shape[0], texture.shape[1]
    x, y = u * width, v * height
    ix = min(width - 2, max(0, int(x - 0.5)))
    iy = min(height - 2, max(0, int(y - 0.5)))
    fx = min(1.0, max(0.0, x - 0.5 - ix))
    fy = min(1.0, max(0.0, y - 0.5 - iy))
    for j in range(3):
        top = texture[iy, ix, j] * (1 - fx) + texture[iy, ix + 1, j] * fx
        low = texture[iy + 1, ix, j] * (1 - fx) + texture[iy + 1, ix + 1, j] * fx
        out[j] *= top * (1 - fy) + low * fy


@numba.njit(cache=True, fastmath=True)
def _skin_label(s, hairy):
    """Region of a skin pixel; what expressions move comes first."""
    if s[1] > 0.5:
        return MOUTH
    if s[2] > 0.5:
        return EYES
    if hairy > 0.5:
        return HAIR
    return NECK_EARS if s[3] > 0.5 else SKIN


@numba.njit(cache=True, fastmath=True)
def _cloth(p, s, colors, base):
    """Colour `base` of the shirt at world point `p`: weave, and a trim at the neck."""
    trim = 1 if s[0] < 0.07 else 0
    weave = 0.92 + 0.16 * _hash(math.floor(p[0] * 640) + 57 * math.floor(p[1] * 640))
    edge = 0.75 if abs(s[0] - 0.07) < 0.012 else 1.0
    for j in range(3):
        base[j] = colors[trim, j] * weave * edge


@numba.njit(cache=True, fastmath=True)
def _surface(kind, p, s, sky, shine, roughness, eye, scalp, colors, base, e):
    """What a pixel's material makes of its colour `base` and the light `e` on it, both changed.

    Returns:
        Roughness, reflectance at normal incidence, strength of the highlight, region label.
    """
    if kind == EYEBALL:
        _eyeball(p, eye, base)
        # Lids shade the ball softly; the sky map is too coarse for it.
        for j in range(3):
            e[j] = e[j] * (0.5 + 0.5 * sky) * 1.2
        return 0.1, 0.04, 1.3, EYES
    if kind == TEETH:
        depth_in = min(1.0, max(0.0, 0.35 + 1.6 * sky))
        base[0], base[1], base[2] = 0.76, 0.69, 0.54
        for j in range(3):
            e[j] = (e[j] * 1.15 + 0.06) * depth_in
        return 0.25, 0.04, 0.6, MOUTH
    if kind == GUMS:
        base[0], base[1], base[2] = 0.36, 0.10, 0.095
        return 0.3, 0.028, 0.5, MOUTH
    if kind == TONGUE:
        for j in range(3):
            e[j] = e[j] * 1.1 + 0.015
        return 0.35, 0.028, 0.7, MOUTH
    if s[0] > 0:
        _cloth(p, s, colors, base)
        return 0.7, 0.03, 0.3, CLOTHES
    hairy = min(1.0, max(0.0, s[4]))
    if hairy > 0:
        for j in range(3):
            base[j] = base[j] * (1 - hairy) + scalp[j] * hairy
        shine *= 1 - 0.85 * hairy
    return roughness, 0.028, shine, _skin_label(s, hairy)


@numba.njit(cache=True, fastmath=True)
def _highlight(n, key, vx, vy, vz, n_l, n_v, rough, f0, kind):
    """Reflected share of the key light; skin adds a wide lobe."""
    hx, hy, hz = key[0] + vx, key[1] + vy, key[2] + vz
    inverse = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz)
    n_h = max(0.0, (n[0] * hx + n[1] * hy + n[2] * hz) * inverse)
    v_h = max(0.0, (vx * hx + vy * hy + vz * hz) * inverse)
    lobe = _ggx(n_l, n_v, n_h, v_h, rough, f0)
    if kind == SKIN_OR_CLOTH:
        lobe = 0.4 * lobe + 0.6 * _ggx(n_l, n_v, n_h, v_h, min(1.0, rough * 1.8), f0)
    return lobe * n_l


@numba.njit(cache=True, fastmath=True)
def shade(
    index, weights, triangles, material, uv, positions, normals, light, key_share, open_sky,
    albedo, gloss, scalars, texture, scalp, eye, camera, key, key_radiance, colors, roughness,
):  # fmt: skip
    """Colours, cover and region labels of the visible surface.

    Args:
        index, weights: From raster.visibility.
        triangles (T, 3), material (T,), uv (T, 3, 2): The mesh.
        positions, normals, light (V, 3); key_share, open_sky (V,): This frame.
        albedo (V, 3), gloss (V,): This person.
        scalars: (V, 5) cloth, mouth, eyes, neck and ears, scalp hair.
        texture: (H, W, 3) detail of the head chart.
        scalp: (3,) colour under the hair.
        eye: (2, 9) centre, gaze axis, iris colour of the left and the right eye.
        camera: (3,) position. key, key_radiance: (3,) direction and radiance.
        colors: (2, 3) shirt colour and its trim.
        roughness: Of the skin.

    Returns:
        image (H, W, 3) linear, label (H, W) uint8 (index in data.format.REGIONS).
    """
    height, width = index.shape
    image = np.zeros((height, width, 3), np.float32)
    label = np.zeros((height, width), np.uint8)
    p = np.zeros(3, np.float32)
    n = np.zeros(3, np.float32)
    e = np.zeros(3, np.float32)
    base = np.zeros(3, np.float32)
    s = np.zeros(5, np.float32)
    for py in range(height):
        for px in range(width):
            t = index[py, px]
            if t < 0:
                continue
            w1, w2 = weights[py, px, 0], weights[py, px, 1]
            w0 = 1 - w1 - w2
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for j in range(3):
                p[j] = w0 * positions[a, j] + w1 * positions[b, j] + w2 * positions[c, j]
                n[j] = w0 * normals[a, j] + w1 * normals[b, j] + w2 * normals[c, j]
                e[j] = w0 * light[a, j] + w1 * light[b, j] + w2 * light[c, j]
                base[j] = w0 * albedo[a, j] + w1 * albedo[b, j] + w2 * albedo[c, j]
            for j in range(5):
                s[j] = w0 * scalars[a, j] + w1 * scalars[b, j] + w2 * scalars[c, j]
            share = w0 * key_share[a] + w1 * key_share[b] + w2 * key_share[c]
            sky = w0 * open_sky[a] + w1 * open_sky[b] + w2 * open_sky[c]
            shine = w0 * gloss[a] + w1 * gloss[b] + w2 * gloss[c]
            norm = 1.0 / (math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + 1e-12)
            vx, vy, vz = camera[0] - p[0], camera[1] - p[1], camera[2] - p[2]
            inverse = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
            for j in range(3):
                n[j] *= norm
            n_v = n[0] * vx + n[1] * vy + n[2] * vz
            n_l = n[0] * key[0] + n[1] * key[1] + n[2] * key[2]
            kind = material[t]
            if kind == SKIN_OR_CLOTH and uv[t, 0, 0] >= 0:
                u = w0 * uv[t, 0, 0] + w1 * uv[t, 1, 0] + w2 * uv[t, 2, 0]
                v = w0 * uv[t, 0, 1] + w1 * uv[t, 1, 1] + w2 * uv[t, 2, 1]
                _detail(texture, u, v, base)
            rough, f0, shine, label[py, px] = _surface(
                kind, p, s, sky, shine, roughness, eye, scalp, colors, base, e
            )
            spec = 0.0
            if n_l > 0 and n_v > 0:
                spec = shine * share * _highlight(n, key, vx, vy, vz, n_l, n_v, rough, f0, kind)
                spec = min(spec, 4.0)
            # A broad reflection of the surroundings, stronger at grazing angles.
            grazing = (1 - max(0.0, n_v)) ** 5
            around_light = (
                (f0 + 0.22 * grazing * (1 - rough)) * sky * sky * (0.35 + 0.5 * max(0.0, n[1]))
            )
            if kind == EYEBALL:
                around_light = 0.05 * sky
            for j in range(3):
                value = base[j] * e[j] + spec * key_radiance[j] + around_light * shine * 0.6
                image[py, px, j] = value
    return image, label
