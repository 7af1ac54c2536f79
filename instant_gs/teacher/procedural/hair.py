"""Hair: strands grown on the scalp, and the short hair of brows, lashes and beards.

Strands are chains of segments in world units, grown once per identity. They avoid the head through
a radius map around the skull's centre, and stay off the face.
"""

import dataclasses

import numba
import numpy as np
from scipy import spatial

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import identity, light, raster

HAIR, BROW, LASH, BEARD = range(4)
#: (strand count, segments) of every style.
_COUNTS = {
    "bald": (0, 1), "buzz": (8000, 1), "short": (7000, 3), "swept": (6000, 5),
    "side_part": (6000, 5), "curly": (5500, 7), "medium": (4000, 8), "long": (3600, 10),
    "tied": (5500, 6),
}  # fmt: skip
#: Of the lower and the upper lashes: share of the asset's length, opacity.
LASH_LENGTH, LASH_ALPHA = (0.5, 0.8), (0.25, 0.7)
STRAND_WIDTH = 0.0042  # world units, about 1.7 mm: a strand stands for a lock of hairs


@dataclasses.dataclass
class Hair:
    """Strands of the scalp.

    Attributes:
        points: (N, K + 1, 3) world; colors: (N, K, 3) albedo.
        ends_alpha: (N, K) opacity; lit: (N, K, 3) diffuse light, filled by `illuminate`.
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


@dataclasses.dataclass
class Fuzz:
    """Short hairs rooted in the moving skin.

    Attributes:
        vertices: (N, 3) skin vertices; weights: (N, 3) of a root.
        offsets: (N, 2, 3) of the two segment ends from the root, world units at rest.
        colors: (N, 3); alpha: (N,); width: (N,) world units; kind: (N,).
        lash_rest: (L, 2, 3) root and tip; lash_units: (52, L, 2, 3).
        lash_alpha: (L,).
    """

    vertices: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    colors: np.ndarray
    alpha: np.ndarray
    width: np.ndarray
    kind: np.ndarray
    lash_rest: np.ndarray
    lash_units: np.ndarray
    lash_alpha: np.ndarray


def scalp_cover(who):
    """How much hair colour the scalp itself shows (V,)."""
    model = head_model.load()
    if who.hair_style == "bald":
        return np.zeros(len(model.rest), np.float32)
    above = head_model.hairline(model.rest, who.recede)
    above = np.where(model.masks["skin"] > 0, above, -9)
    strength = 0.75 if who.hair_style == "buzz" else 0.93
    soft = head_model._smooth(above, 0.0, 0.16) * strength
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
    triangles = model.triangles[model.material == head_model.SKIN]
    height = above[triangles].mean(axis=1)
    triangles, height = triangles[height > 0], height[height > 0]
    corners = rest[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1) * head_model._smooth(height, 0.0, 0.12)
    chosen = rng.choice(len(triangles), size=count, p=area / area.sum())
    a, b = rng.random(count), rng.random(count)
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    weights = np.stack([1 - a - b, a, b], axis=1)
    points = (corners[chosen] * weights[..., None]).sum(axis=1)
    normals = cross[chosen] / np.linalg.norm(cross[chosen], axis=1, keepdims=True)
    rest_points = (model.rest[triangles[chosen]] * weights[..., None]).sum(axis=1)
    return points, normals, height[chosen], rest_points


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _comb(style, points, skull, roots, part, scale):
    """Direction (n, 3) in which hair of a style lies at world points."""
    local = (points - skull.centre) / (scale * 1.0)  # decimetres around the brain's middle
    x, y, z = local.T
    zero = np.zeros_like(x)
    side = np.sign(roots[:, 0] - part)  # which side of the parting
    if style == "short":
        # From the crown outwards, forwards on top.
        return _unit(np.stack([0.5 * x, -0.5 - 0.3 * np.abs(x), z + 0.25], axis=1))
    if style == "swept":
        return _unit(np.stack([0.25 * x, -0.25 - 0.5 * np.abs(x), -1 + 0 * z], axis=1))
    if style == "side_part":
        down = -0.2 - 0.9 * np.abs(x)
        return _unit(np.stack([side * (0.9 - 0.5 * np.abs(x)), down, zero - 0.45], axis=1))
    if style in ("medium", "long"):
        down = -0.25 - 1.3 * np.abs(x) - 0.8 * np.maximum(0, -z)
        back = -0.35 - 0.5 * np.maximum(0, z)
        return _unit(np.stack([side * (0.8 - 0.3 * np.abs(x)), down, back], axis=1))
    if style == "tied":
        knot = np.array([0.0, 0.1, -1.05])
        return _unit(knot - local)
    return _unit(local)


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
    above = head_model.hairline(model.rest, who.recede)
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
    return _finish(who, rng, points, alpha, skull)


def _lengths(style, who, rng, count, height, rest_roots):
    """Length (n,) of every strand, decimetres."""
    length = who.hair_length * rng.uniform(0.75, 1.15, count)
    # Shorter towards the hairline, and short sides below long tops.
    length *= 0.35 + 0.65 * head_model._smooth(height, 0.0, 0.35)
    if style in ("short", "swept", "side_part"):
        top = head_model._smooth(rest_roots[:, 1], 7.5, 8.15)
        length *= 0.3 + 0.7 * top
    if style == "curly":
        length *= 0.6 + 0.4 * head_model._smooth(rest_roots[:, 1], 7.0, 7.9)
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
    direction = _unit(lift * normals + (1 - 0.6 * lift) * flow + rng.normal(0, 0.12, (count, 3)))
    curl = {"curly": 0.95, "medium": 0.12, "long": 0.12, "swept": 0.12}.get(style, 0.08)
    if who.ancestry[1] > 0.5 and style != "tied":
        curl *= 1.6
    clump = rng.normal(0, 1, (count, 3)) * 0.15
    volume = _VOLUME[style] * scale * rng.uniform(0.15, 1.0, count)
    down = np.array([0.0, -1.0, 0.0])
    phase, pitch = rng.uniform(0, 2 * np.pi, count), rng.uniform(1.0, 1.8, count)
    frame_a = _unit(np.cross(normals, rng.normal(size=(count, 3))))
    frame_b = np.cross(normals, frame_a)
    for n in range(segments):
        here = points[:, n]
        flow = _comb(style, here, skull, roots, part, scale)
        fall = _FALL[style] * min(1.0, (n + 1) / (0.4 * segments))
        outward = _unit(here - skull.centre)
        wanted = (1 - fall) * flow + fall * down + clump
        if style == "curly":
            turn = (phase + n * pitch)[:, None]
            wanted = 0.55 * outward + np.cos(turn) * frame_a + np.sin(turn) * frame_b
        if style in _LYING:
            # Lying hair follows the head: nothing of its flow leads away from it.
            on_head = head_model._smooth(outward[:, 1:2], -0.75, -0.35)
            leaving = np.maximum((wanted * outward).sum(axis=1, keepdims=True), 0)
            wanted = wanted - on_head * leaving * outward
            leaving = np.maximum((direction * outward).sum(axis=1, keepdims=True), 0)
            direction = direction - 0.8 * on_head * leaving * outward
        direction = _unit(0.5 * direction + 0.5 * wanted + curl * 0.6 * rng.normal(size=(count, 3)))
        following = here + direction * step
        if style in ("medium", "long"):
            following = _hang(following, skull, volume, scale)
        surface, distance = skull.at(following)
        layer = surface + volume * min(1.0, (n + 1) / 2)
        if style in ("medium", "long"):
            layer = layer + 0.05 * scale
        push = np.maximum(layer - distance, 0)[:, None]
        following = following + push * _unit(following - skull.centre)
        points[:, n + 1] = following
        direction = _unit(following - here)
    return points


def _hang(points, skull, volume, scale):
    """Keeps hanging hair beside and behind the neck: within a column, not in front."""
    local = (points - skull.centre) / scale
    below = head_model._smooth(-local[:, 1], 0.0, 0.9)
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


def _finish(who, rng, points, alpha, skull):
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


#: How fast light fades inside hair, per world unit.
ABSORPTION = 16.0


def illuminate(grown, lights, rest, model):
    """Lights the strands once: hair does not move with the expression."""
    if len(grown.points) == 0:
        return
    points = 0.5 * (grown.points[:, 1:] + grown.points[:, :-1])
    flat = np.ascontiguousarray(points.reshape(-1, 3))
    tangent = _unit(grown.points[:, 1:] - grown.points[:, :-1]).reshape(-1, 3)
    centre = rest[model.masks["hairline"] > 0.3].mean(axis=0) - [0, 0.1, 0]
    outward = _unit(flat - centre)
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


def _attach(points_rest, model, rest):
    """Skin vertices (n, 3) and weights near rest points, and the world root at rest."""
    front = np.flatnonzero((model.masks["skin"] > 0) & (model.masks["inner"] < 0.5))
    tree = spatial.cKDTree(model.rest[front])
    distance, near = tree.query(points_rest, k=3)
    weights = 1.0 / (distance + 0.01)
    weights /= weights.sum(axis=1, keepdims=True)
    return front[near], weights


def _brow_strands(rng, who):
    """Rest roots (n, 2) x and y, directions (n, 3) and lengths of both brows, decimetres."""
    count = int(260 * who.brow_density)
    t = rng.beta(1.15, 1.25, count)
    thick = 0.045 * (1 - 0.8 * t**1.4) * (1.15 if who.male > 0.5 else 0.75)
    across = rng.uniform(-1, 1, count)
    x = 0.1 + 0.42 * t
    arch = 0.035 if who.male > 0.5 else 0.055
    y = 7.468 + arch * np.sin(np.pi * np.clip(t * 0.95, 0, 1) ** 1.3) - 0.05 * t**3
    y = y + across * thick
    lean = np.interp(t, [0, 0.25, 0.6, 1], [1.25, 0.7, 0.15, -0.35]) - 0.35 * across
    lean = lean + rng.normal(0, 0.15, count)
    direction = np.stack([np.cos(lean), np.sin(lean), -0.35 * t], axis=1)
    length = 0.06 * rng.uniform(0.7, 1.2, count)
    return x, y, direction, length


def fuzz(who, index, rest, normals, shape, origin, scale):
    """Brows, lashes and beard of a person."""
    rng = identity.generator(who.seed, index, "fuzz")
    model = head_model.load()
    roots, offsets, colors, alphas, widths, kinds = [], [], [], [], [], []
    hair = np.array(who.hair_color)
    brow_color = hair * (0.6 if who.hair_grey < 0.5 else 0.75)
    front = model.rest[(model.masks["skin"] > 0) & (model.rest[:, 2] > 0.9)]
    depth = spatial.cKDTree(front[:, :2])
    for side in (1, -1):
        x, y, direction, length = _brow_strands(rng, who)
        x = x * side
        direction = direction * [side, 1, 1]
        _, near = depth.query(np.stack([x, y], axis=1))
        roots.append(np.stack([x, y, front[near, 2]], axis=1))
        start = rng.normal(0, 0.006, (len(x), 3))
        offsets.append(np.stack([start, start + direction * length[:, None]], axis=1))
        colors.append(brow_color * np.exp(rng.normal(0, 0.2, (len(x), 1))))
        alphas.append(np.full(len(x), 0.5 * min(1.0, who.brow_density)))
        widths.append(np.full(len(x), 0.0026))
        kinds.append(np.full(len(x), BROW))
    if who.beard > 0:
        spots, lengths = _beard_roots(rng, who, model)
        roots.append(spots)
        start = rng.normal(0, 0.004, (len(spots), 3))
        direction = _unit(np.array([0, -0.9, 0.25]) + rng.normal(0, 0.35, (len(spots), 3)))
        offsets.append(np.stack([start, start + direction * lengths[:, None]], axis=1))
        colors.append(hair * np.exp(rng.normal(0, 0.15, (len(spots), 1))))
        alphas.append(np.full(len(spots), 0.5))
        widths.append(np.full(len(spots), 0.0018))
        kinds.append(np.full(len(spots), BEARD))
    vertices, weights = _attach(np.concatenate(roots), model, rest)
    lash_rest, lash_units, lash_alpha = _lashes(who, model, shape, origin, scale)
    return Fuzz(
        vertices,
        weights.astype(np.float32),
        (np.concatenate(offsets) * scale).astype(np.float32),
        np.concatenate(colors).astype(np.float32),
        np.concatenate(alphas).astype(np.float32),
        np.concatenate(widths).astype(np.float32),
        np.concatenate(kinds).astype(np.int64),
        lash_rest,
        lash_units,
        lash_alpha,
    )


def _beard_roots(rng, who, model):
    """Rest roots (n, 3) and lengths (n,) of a beard, decimetres."""
    triangles = model.triangles[model.material == head_model.SKIN]
    cover = model.masks["beard"] * (1 - np.clip(model.masks["lips"] * 3, 0, 1))
    cover = cover * (model.masks["ears"] < 0.05) * (model.rest[:, 2] > 0.5)
    weight = cover[triangles].mean(axis=1)
    corners = model.rest[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1) * weight
    count = int(4000 + 3500 * who.beard)
    chosen = rng.choice(len(triangles), size=count, p=area / area.sum())
    bary = rng.dirichlet(np.ones(3), count)
    points = (corners[chosen] * bary[..., None]).sum(axis=1)
    length = (0.03 + 0.14 * who.beard) * rng.uniform(0.5, 1.2, count)
    # The moustache stays short, so that it does not hang over the mouth.
    length *= np.where(points[:, 1] > 6.64, 0.4, 1.0)
    return points, length


def _lashes(who, model, shape, origin, scale):
    """Lash ends at rest (L, 2, 3), their moves (52, L, 2, 3), world units, and opacity (L,)."""
    rests, moves, strengths = [], [], []
    for root, tip in model.lashes:
        pairs = np.stack([root, tip], axis=1)
        unit = np.zeros((len(pack_format.COEFFICIENT_NAMES), *pairs.shape, 3), np.float32)
        for row, name in enumerate(pack_format.COEFFICIENT_NAMES):
            index, move = model.targets["unit/" + name]
            full = np.zeros((len(model.base), 3), np.float32)
            full[index] = move
            unit[row] = full[pairs] * scale
        world = (shape[pairs] - origin) * scale
        upper = int(model.base[tip, 1].mean() > model.base[root, 1].mean())
        # Twice as many lashes as the strip has columns; straight ones, a little shorter.
        world = np.concatenate([world, 0.5 * (world[1:] + world[:-1])])
        unit = np.concatenate([unit, 0.5 * (unit[:, 1:] + unit[:, :-1])], axis=1)
        keep = LASH_LENGTH[upper]
        world[:, 1] = world[:, 0] + keep * (world[:, 1] - world[:, 0])
        unit[:, :, 1] = unit[:, :, 0] + keep * (unit[:, :, 1] - unit[:, :, 0])
        rests.append(world)
        moves.append(unit)
        strengths.append(np.full(len(world), LASH_ALPHA[upper]))
    return (
        np.concatenate(rests).astype(np.float32),
        np.ascontiguousarray(np.concatenate(moves, axis=1)),
        np.concatenate(strengths).astype(np.float32),
    )


def place_fuzz(short, positions, normals, diffuse, activation):
    """Segment ends (S, 2, 3) and colours (S, 3) of the short hair in one frame."""
    w = short.weights[..., None]
    root = (positions[short.vertices] * w).sum(axis=1)
    normal = (normals[short.vertices] * w).sum(axis=1)
    lit = (diffuse[short.vertices] * w).sum(axis=1)
    base = root + normal * 0.0022
    ends = base[:, None] + short.offsets
    colors = short.colors * (lit * 1.05 + 0.01)
    lash = short.lash_rest.copy()
    for row in np.flatnonzero(activation):
        lash += np.float32(activation[row]) * short.lash_units[row]
    lash_colors = np.full((len(lash), 3), 0.012, np.float32)
    return (
        np.ascontiguousarray(np.concatenate([ends, lash]).astype(np.float32)),
        np.ascontiguousarray(np.concatenate([colors, lash_colors]).astype(np.float32)),
    )


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
    kind = [short.kind, np.full(lash_count, LASH, np.int64)]
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
        widths.append(np.full(int(seen.sum()), STRAND_WIDTH, np.float32))
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
