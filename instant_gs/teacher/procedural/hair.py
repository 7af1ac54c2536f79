"""Hair of the scalp: strands grown once per identity, in world units.

Strands are chains of segments. They avoid the head through a radius map around the skull's centre,
and stay off the face.
"""

import dataclasses

import numpy as np
from scipy import spatial

from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import identity, mask, part

#: (strand count, segments) of every style.
_COUNTS = {
    "bald": (0, 1), "buzz": (8000, 1), "short": (7000, 3), "swept": (6000, 5),
    "side_part": (6000, 5), "curly": (5500, 7), "medium": (4000, 8), "long": (3600, 10),
    "tied": (5500, 6),
}  # fmt: skip

STRAND_WIDTH = 0.0042  # world units, about 1.7 mm: a strand stands for a lock of hairs


@dataclasses.dataclass
class Hair:
    """Strands of the scalp.

    Attributes:
        points: (N, K + 1, 3) world; colors: (N, K, 3) albedo.
        alpha: (N, K) opacity; lit: (N, K, 3) diffuse light, filled by `illuminate`.
        key_share: (N, K) key light that arrives.
        caster_points, caster_weight: What shadows see.
    """

    points: np.ndarray
    colors: np.ndarray
    alpha: np.ndarray
    lit: np.ndarray
    key_share: np.ndarray
    caster_points: np.ndarray
    caster_weight: float


def scalp_cover(who):
    """How much hair colour the scalp itself shows (V,)."""
    model = head_model.load()
    if who.hair_style == "bald":
        return np.zeros(len(model.rest), np.float32)
    above = mask.hairline(model.rest, who.recede)
    above = np.where(model.masks["skin"] > 0, above, -9)
    strength = 0.75 if who.hair_style == "buzz" else 0.93
    soft = mask.smooth(above, 0.0, 0.16) * strength
    return (soft * (1 - model.masks["ears"])).astype(np.float32)


def scalp_color(who):
    """Colour (3,) of hairy scalp, linear RGB."""
    return (np.array(who.hair_color) * 0.55).astype(np.float32)


def _empty():
    none = np.zeros((0, 1, 3), np.float32)
    return Hair(
        np.zeros((0, 2, 3), np.float32), none, none[..., 0], none.copy(), none[..., 0].copy(),
        np.zeros((0, 3), np.float32), 0.0,
    )  # fmt: skip


class Skull:
    """Radius of a head around its centre, by direction: what strands must not enter."""

    def __init__(self, rest, scale):
        model = head_model.load()
        keep = (model.masks["skin"] > 0) & (model.masks["inner"] < 0.5)
        keep = keep & (model.masks["ears"] < 0.05)
        crown = rest[keep & (model.masks["hairline"] > 0.2)]
        low, high = crown.min(axis=0), crown.max(axis=0)
        # Between the ears, in the middle of the brain case.
        self.centre = np.array([0.0, high[1] - 1.05 * scale, 0.5 * (low[2] + high[2])], np.float32)
        offset = rest[keep] - self.centre
        radius = np.linalg.norm(offset, axis=1)
        rows, columns = 48, 96
        polar = (np.arange(rows) + 0.5) / rows * np.pi
        turn = (np.arange(columns) + 0.5) / columns * 2 * np.pi - np.pi
        p, t = np.meshgrid(polar, turn, indexing="ij")
        grid = np.stack([np.sin(p) * np.sin(t), np.cos(p), np.sin(p) * np.cos(t)], axis=-1)
        # Below the chin only the neck counts: shoulders would push hair outwards.
        offset, radius = offset[rest[keep][:, 1] > -0.26], radius[rest[keep][:, 1] > -0.26]
        tree = spatial.cKDTree(offset / radius[:, None])
        _, near = tree.query(grid.reshape(-1, 3), k=3)
        self.radius = radius[near].mean(axis=1).reshape(rows, columns).astype(np.float32)

    def at(self, points):
        """Radius (n,) of the head towards world points (n, 3)."""
        d = points - self.centre
        length = np.maximum(np.linalg.norm(d, axis=1), 1e-6)
        rows, columns = self.radius.shape
        v = np.clip(
            np.arccos(np.clip(d[:, 1] / length, -1, 1)) / np.pi * rows - 0.5, 0, rows - 1.01
        )
        u = (np.arctan2(d[:, 0], d[:, 2]) + np.pi) / (2 * np.pi) * columns - 0.5
        iv, iu = v.astype(int), np.floor(u).astype(int)
        fv, fu = v - iv, u - iu
        a, b = iu % columns, (iu + 1) % columns
        top = self.radius[iv, a] * (1 - fu) + self.radius[iv, b] * fu
        low = self.radius[iv + 1, a] * (1 - fu) + self.radius[iv + 1, b] * fu
        return top * (1 - fv) + low * fv, length


def _roots(rng, count, rest, above):
    """Root positions (n, 3), normals and heights above the hairline of strands on the scalp."""
    model = head_model.load()
    triangles = model.triangles[model.material == part.SKIN]
    height = above[triangles].mean(axis=1)
    triangles, height = triangles[height > 0], height[height > 0]
    corners = rest[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1) * mask.smooth(height, 0.0, 0.12)
    chosen = rng.choice(len(triangles), size=count, p=area / area.sum())
    a, b = rng.random(count), rng.random(count)
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    weights = np.stack([1 - a - b, a, b], axis=1)
    points = (corners[chosen] * weights[..., None]).sum(axis=1)
    normals = cross[chosen] / np.linalg.norm(cross[chosen], axis=1, keepdims=True)
    rest_points = (model.rest[triangles[chosen]] * weights[..., None]).sum(axis=1)
    return points, normals, height[chosen], rest_points


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _comb(style, points, skull, roots, part, scale):
    """Direction (n, 3) in which hair of a style lies at world points."""
    local = (points - skull.centre) / (scale * 1.0)  # decimetres around the brain's middle
    x, _, z = local.T
    zero = np.zeros_like(x)
    side = np.sign(roots[:, 0] - part)  # which side of the parting
    if style == "short":
        # From the crown outwards, forwards on top.
        return unit(np.stack([0.5 * x, -0.5 - 0.3 * np.abs(x), z + 0.25], axis=1))
    if style == "swept":
        return unit(np.stack([0.25 * x, -0.25 - 0.5 * np.abs(x), -1 + 0 * z], axis=1))
    if style == "side_part":
        down = -0.2 - 0.9 * np.abs(x)
        return unit(np.stack([side * (0.9 - 0.5 * np.abs(x)), down, zero - 0.45], axis=1))
    if style in ("medium", "long"):
        down = -0.25 - 1.3 * np.abs(x) - 0.8 * np.maximum(0, -z)
        back = -0.35 - 0.5 * np.maximum(0, z)
        return unit(np.stack([side * (0.8 - 0.3 * np.abs(x)), down, back], axis=1))
    if style == "tied":
        knot = np.array([0.0, 0.1, -1.05])
        return unit(knot - local)
    return unit(local)


_LIFT = {
    "buzz": 0.9,
    "short": 0.75,
    "swept": 0.7,
    "side_part": 0.55,
    "curly": 1.0,
    "medium": 0.25,
    "long": 0.2,
    "tied": 0.12,
}

_FALL = {
    "short": 0.1,
    "swept": 0.1,
    "side_part": 0.25,
    "curly": 0.05,
    "medium": 0.85,
    "long": 0.95,
    "tied": 0.0,
    "buzz": 0.0,
}

_LYING = ("medium", "long", "tied", "side_part")

#: Layer of hair over the skull, decimetres.
_VOLUME = {
    "short": 0.1,
    "swept": 0.14,
    "side_part": 0.12,
    "curly": 0.25,
    "medium": 0.16,
    "long": 0.16,
    "tied": 0.05,
    "buzz": 0.02,
}


def grow(who, index, rest, scale):
    """Strands of a person.

    Args:
        who: identity.Attributes.
        index: Identity index (seeds the strands).
        rest: (V, 3) world positions at rest.
        scale: World units per decimetre.

    Returns:
        Hair, not lit yet.
    """
    style = who.hair_style
    count, segments = _COUNTS[style]
    if count == 0:
        return _empty()
    rng = identity.generator(who.seed, index, "hair")
    model = head_model.load()
    above = mask.hairline(model.rest, who.recede)
    above = np.where((model.masks["skin"] > 0) & (model.masks["ears"] < 0.2), above, -9)
    skull = Skull(rest, scale)
    roots, normals, height, rest_roots = _roots(rng, count, rest, above)
    part = scale * (
        rng.choice([-1, 1]) * rng.uniform(0.25, 0.4)
        if style == "side_part"
        else rng.normal(0, 0.06)
    )
    length = _lengths(style, who, rng, count, height, rest_roots) * scale
    points = _march(style, who, rng, skull, roots, normals, length, segments, part, scale)
    alpha = _face_guard(points, skull, scale, rest)
    return _finish(who, rng, points, alpha)


def _lengths(style, who, rng, count, height, rest_roots):
    """Length (n,) of every strand, decimetres."""
    length = who.hair_length * rng.uniform(0.75, 1.15, count)
    # Shorter towards the hairline, and short sides below long tops.
    length *= 0.35 + 0.65 * mask.smooth(height, 0.0, 0.35)
    if style in ("short", "swept", "side_part"):
        top = mask.smooth(rest_roots[:, 1], 7.5, 8.15)
        length *= 0.3 + 0.7 * top
    if style == "curly":
        length *= 0.6 + 0.4 * mask.smooth(rest_roots[:, 1], 7.0, 7.9)
    if style == "tied":
        length = np.full(count, 1.0) * rng.uniform(0.9, 1.1, count)
    if style in ("medium", "long"):
        length = who.hair_length * rng.uniform(0.8, 1.08, count)
        # Low roots hang as far down as high ones.
        length -= np.clip(8.3 - rest_roots[:, 1], 0, 2) * 0.35
        length = np.maximum(length, 0.3 * who.hair_length)
    return length


def _march(style, who, rng, skull, roots, normals, length, segments, part, scale):
    """Grows the strands step by step: (n, segments + 1, 3)."""
    count = len(roots)
    step = (length / segments)[:, None]
    points = np.zeros((count, segments + 1, 3), np.float32)
    points[:, 0] = roots + normals * 0.01 * scale
    lift = _LIFT[style]
    flow = _comb(style, roots, skull, roots, part, scale)
    direction = unit(lift * normals + (1 - 0.6 * lift) * flow + rng.normal(0, 0.12, (count, 3)))
    curl = {"curly": 0.95, "medium": 0.12, "long": 0.12, "swept": 0.12}.get(style, 0.08)
    if who.ancestry[1] > 0.5 and style != "tied":
        curl *= 1.6
    clump = rng.normal(0, 1, (count, 3)) * 0.15
    volume = _VOLUME[style] * scale * rng.uniform(0.15, 1.0, count)
    down = np.array([0.0, -1.0, 0.0])
    phase, pitch = rng.uniform(0, 2 * np.pi, count), rng.uniform(1.0, 1.8, count)
    frame_a = unit(np.cross(normals, rng.normal(size=(count, 3))))
    frame_b = np.cross(normals, frame_a)
    for n in range(segments):
        here = points[:, n]
        flow = _comb(style, here, skull, roots, part, scale)
        fall = _FALL[style] * min(1.0, (n + 1) / (0.4 * segments))
        outward = unit(here - skull.centre)
        wanted = (1 - fall) * flow + fall * down + clump
        if style == "curly":
            turn = (phase + n * pitch)[:, None]
            wanted = 0.55 * outward + np.cos(turn) * frame_a + np.sin(turn) * frame_b
        if style in _LYING:
            # Lying hair follows the head: nothing of its flow leads away from it.
            on_head = mask.smooth(outward[:, 1:2], -0.75, -0.35)
            leaving = np.maximum((wanted * outward).sum(axis=1, keepdims=True), 0)
            wanted = wanted - on_head * leaving * outward
            leaving = np.maximum((direction * outward).sum(axis=1, keepdims=True), 0)
            direction = direction - 0.8 * on_head * leaving * outward
        direction = unit(0.5 * direction + 0.5 * wanted + curl * 0.6 * rng.normal(size=(count, 3)))
        following = here + direction * step
        if style in ("medium", "long"):
            following = _hang(following, skull, volume, scale)
        surface, distance = skull.at(following)
        layer = surface + volume * min(1.0, (n + 1) / 2)
        if style in ("medium", "long"):
            layer = layer + 0.05 * scale
        push = np.maximum(layer - distance, 0)[:, None]
        following = following + push * unit(following - skull.centre)
        points[:, n + 1] = following
        direction = unit(following - here)
    return points


def _hang(points, skull, volume, scale):
    """Keeps hanging hair beside and behind the neck: within a column, not in front."""
    local = (points - skull.centre) / scale
    below = mask.smooth(-local[:, 1], 0.0, 0.9)
    radius = np.hypot(local[:, 0], local[:, 2])
    widest = 0.74 + 0.02 * below + 0.7 * volume / scale
    shrink = np.where(radius > widest, 1 - below * (1 - widest / np.maximum(radius, 1e-6)), 1.0)
    local = local * np.stack([shrink, np.ones_like(shrink), shrink], axis=1)
    # Lower than the ears it may not come before the cheeks.
    local[:, 2] = np.minimum(local[:, 2], 0.55 - 0.35 * below)
    return skull.centre + local * scale


def _face_guard(points, skull, scale, rest):
    """Opacity (n, K) of the segments: 0 from where a strand would cover the face."""
    model = head_model.load()
    local = (points - skull.centre) / scale
    azimuth = np.degrees(np.abs(np.arctan2(local[..., 0], local[..., 2] + 0.05)))
    brow = rest[(model.masks["forehead"] > 0.6)][:, 1].mean()
    brow = (brow - skull.centre[1]) / scale
    # The free region is a window: the forehead from its middle down, narrowing to the cheeks.
    limit = np.interp(local[..., 1], [-1.6, -0.9, -0.3, brow, brow + 0.3], [62, 66, 66, 52, 0])
    bad = (azimuth < limit) & (local[..., 2] > 0)
    bad = bad | (np.cumsum(bad, axis=1) > 0)
    alpha = np.where(bad[:, 1:], 0.0, 1.0)
    return alpha.astype(np.float32)


def _finish(who, rng, points, alpha):
    """Colours, taper and shadow casters."""
    count, segments = alpha.shape
    tone = np.exp(rng.normal(0, 0.22, (count, 1, 1)))
    warm = rng.normal(0, 0.06, (count, 1, 1)) * np.array([1.0, 0.0, -1.0])
    along = np.linspace(0.8, 1.2, segments)[None, :, None]
    colors = np.array(who.hair_color) * tone * (1 + warm) * along
    grey = rng.random((count, 1, 1)) < 0.5 * who.hair_grey * (who.hair_grey < 0.8)
    colors = np.where(grey, np.array([0.42, 0.41, 0.4]) * tone, colors)
    tip = np.linspace(1.0, 0.55, segments)[None]
    middle = 0.5 * (points[:, 1:] + points[:, :-1])
    visible = alpha > 0
    lengths = np.linalg.norm(points[:, 1:] - points[:, :-1], axis=-1)
    weight = float(lengths[visible].mean() * STRAND_WIDTH * 0.8) if visible.any() else 0.0
    return Hair(
        points=np.ascontiguousarray(points.astype(np.float32)),
        colors=np.ascontiguousarray(np.clip(colors, 0.002, 0.9).astype(np.float32)),
        alpha=np.ascontiguousarray((alpha * tip * 0.9).astype(np.float32)),
        lit=np.zeros((count, segments, 3), np.float32),
        key_share=np.zeros((count, segments), np.float32),
        caster_points=np.ascontiguousarray(middle[visible].astype(np.float32)),
        caster_weight=weight,
    )
