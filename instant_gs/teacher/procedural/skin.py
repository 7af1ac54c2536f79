"""Colour of the skin: tone from melanin and blood, lips, brows' ground, freckles, stubble."""

import functools

import cv2
import numpy as np

from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import identity, mask, raster

TEXTURE_SIZE = (1080, 555)  # rows, columns of the head chart: about 0.5 mm a texel on the face
#: Skin tones from light to dark, 8-bit sRGB under white light.
_TONES = np.array(
    [
        [241, 205, 186],
        [229, 184, 160],
        [208, 160, 130],
        [184, 132, 100],
        [147, 98, 70],
        [108, 69, 49],
        [72, 45, 34],
    ]
)


def tone(melanin):
    """Mean skin albedo (3,) linear RGB for melanin in [0, 1]."""
    table = identity.linear(_TONES)
    at = melanin * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    return table[low] + (at - low) * (table[low + 1] - table[low])


@functools.cache
def _chart_masks():
    """The masks of the head laid out in the texture: name -> (H, W) float32."""
    model = head_model.load()
    height, width = TEXTURE_SIZE
    inside = (model.uv[:, :, 0] >= 0).all(axis=1)
    corners = model.uv[inside] * [width, height]
    screen = np.concatenate([corners.reshape(-1, 2), np.ones((corners.size // 2, 1))], axis=1)
    triangles = np.arange(len(screen), dtype=np.int32).reshape(-1, 3)
    index, weights, _ = raster.visibility(
        screen.astype(np.float32), triangles, np.ones(len(triangles), np.uint8), height, width
    )
    source = model.triangles[inside][np.maximum(index, 0)]
    b1, b2 = weights[..., 0], weights[..., 1]
    b0 = 1 - b1 - b2
    result = {}
    for name in ("lips", "cheeks", "nose", "beard", "hairline", "forehead", "under_eyes", "lids"):
        value = model.masks[name][source]
        laid = b0 * value[..., 0] + b1 * value[..., 1] + b2 * value[..., 2]
        result[name] = np.where(index >= 0, laid, 0).astype(np.float32)
    return result


def _noise(rng, cell):
    """Smooth noise (H, W), zero mean, about unit deviation, `cell` texels coarse."""
    height, width = TEXTURE_SIZE
    grid = rng.normal(size=(height // cell + 3, width // cell + 3)).astype(np.float32)
    large = cv2.resize(grid, (width + 2 * cell, height + 2 * cell), interpolation=cv2.INTER_CUBIC)
    return large[cell : cell + height, cell : cell + width]


def texture(person, index):
    """Detail of the head chart: multiplies the vertex colours.

    Args:
        person: identity.Attributes.
        index: Identity index (seeds the noise).

    Returns:
        (H, W, 3) float32 around 1.
    """
    rng = identity.generator(person.seed, index, "texture")
    masks = _chart_masks()
    old = np.clip((person.age - 30) / 45, 0, 1)
    mottle = 0.5 * _noise(rng, 48) + 0.5 * _noise(rng, 18)
    pores = 0.6 * _noise(rng, 4) + 0.4 * rng.normal(size=TEXTURE_SIZE).astype(np.float32)
    light = 1 + 0.028 * (1 + old) * mottle + 0.03 * pores
    blood = 0.035 * (_noise(rng, 30) + 0.5 * _noise(rng, 9))
    detail = np.stack([light + 0.3 * blood, light - blood, light - 0.8 * blood], axis=-1)
    # Lip lines and their colour's unevenness.
    lips = masks["lips"][..., None]
    detail *= 1 - lips * 0.1 * np.clip(_noise(rng, 3), -1, 1)[..., None]
    spots = person.freckles + 0.6 * old * (1 - person.melanin)
    if spots > 0.05:
        cover = np.clip(_noise(rng, 5) - 2.0 + 0.55 * min(spots, 1.6), 0, 0.7)
        place = np.clip(masks["cheeks"] + masks["nose"] + 0.35 * masks["forehead"] + 0.12, 0, 1)
        detail *= 1 - (cover * place)[..., None] * np.array([0.35, 0.55, 0.65], np.float32)
    growth = max(person.stubble * 0.8, min(1.0, 0.75 + 0.4 * person.beard) if person.beard else 0)
    if growth > 0.05:
        dots = np.clip(0.55 + 0.45 * rng.normal(size=TEXTURE_SIZE), 0, 1.3).astype(np.float32)
        dots = cv2.GaussianBlur(dots, (3, 3), 0.7)
        strength = 0.5 * growth * masks["beard"] * dots
        tint = 1 - strength[..., None] * (1 - np.array([0.32, 0.36, 0.42], np.float32))
        detail *= tint
    return np.ascontiguousarray(np.clip(detail, 0.05, 2).astype(np.float32))


def vertex_color(person):
    """Albedo (V, 3) linear RGB and gloss (V,) of the render mesh.

    Teeth, gums, tongue and eyes get theirs from the shader.
    """
    model = head_model.load()
    m = model.masks
    base = tone(person.melanin)
    count = len(model.rest)
    albedo = np.broadcast_to(base, (count, 3)).astype(np.float64).copy()
    fair = 1 - 0.75 * person.melanin
    blood = (0.22 + 0.5 * person.redness) * fair
    red = np.clip(0.8 * m["cheeks"] + 0.8 * m["nose"] + 0.35 * m["chin"] + 0.5 * m["ears"], 0, 1)
    albedo *= 1 - (red * blood)[:, None] * np.array([0.02, 0.32, 0.3])
    albedo *= 1 + 0.05 * m["forehead"][:, None]
    shade = m["under_eyes"] * (0.12 + 0.12 * np.clip((person.age - 30) / 40, 0, 1))
    albedo *= 1 - shade[:, None] * np.array([0.8, 1.1, 0.9])
    rim = np.clip(m["lids"], 0, 1)[:, None]
    albedo *= 1 - rim * np.array([0.18, 0.3, 0.28])
    lip = _lip_color(person, base)
    lips = mask.smooth(m["lips"], 0.25, 0.75)[:, None]
    albedo = albedo * (1 - 0.85 * lips) + lip * 0.85 * lips
    inner = m["inner"][:, None]
    albedo = albedo * (1 - inner) + np.array([0.22, 0.045, 0.04]) * inner
    tongue = m["tongue"][:, None]
    albedo = albedo * (1 - tongue) + np.array([0.42, 0.13, 0.12]) * tongue
    gloss = 0.75 + 0.5 * m["nose"] + 0.3 * m["forehead"] + 0.9 * m["lips"] + 0.4 * m["inner"]
    return np.ascontiguousarray(albedo.astype(np.float32)), gloss.astype(np.float32)


def _lip_color(person, base):
    natural = base * np.array([0.88, 0.52, 0.52])
    if person.male > 0.5:
        return natural * (1 - 0.15 * person.lip_color) + base * 0.15 * person.lip_color
    paints = identity.linear([[176, 74, 78], [150, 40, 52], [190, 104, 98]])
    painted = paints[int(person.lip_color * 2.99)]
    share = 0.55 * max(0.0, person.lip_color * 1.6 - 0.5) * (1 - 0.4 * person.melanin)
    return natural * (1 - share) + painted * share
