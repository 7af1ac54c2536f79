"""Short hair rooted in the moving skin: brows, lashes and beards."""

import dataclasses

import numpy as np
from scipy import spatial

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import hair as hair_model
from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import identity, part

HAIR, BROW, LASH, BEARD = range(4)

#: Of the lower and the upper lashes: share of the asset's length, opacity.
LASH_LENGTH, LASH_ALPHA = (0.5, 0.8), (0.25, 0.7)


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


def _attach(points_rest, model):
    """Skin vertices (n, 3) near rest points (n, 3), decimetres, and their weights (n, 3)."""
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


def grow(who, index, shape, origin, scale):
    """Brows, lashes and beard of a person.

    Args:
        who: identity.Attributes.
        index: Identity index (seeds the hairs).
        shape: (A, 3) asset vertices of this person, decimetres.
        origin: (3,) the world's origin, decimetres.
        scale: World units per decimetre.
    """
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
        direction = hair_model.unit(
            np.array([0, -0.9, 0.25]) + rng.normal(0, 0.35, (len(spots), 3))
        )
        offsets.append(np.stack([start, start + direction * lengths[:, None]], axis=1))
        colors.append(hair * np.exp(rng.normal(0, 0.15, (len(spots), 1))))
        alphas.append(np.full(len(spots), 0.5))
        widths.append(np.full(len(spots), 0.0018))
        kinds.append(np.full(len(spots), BEARD))
    vertices, weights = _attach(np.concatenate(roots), model)
    lash_rest, lash_units, lash_alpha = _lashes(model, shape, origin, scale)
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
    triangles = model.triangles[model.material == part.SKIN]
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


def _lashes(model, shape, origin, scale):
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


def place(short, positions, normals, diffuse, activation):
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
