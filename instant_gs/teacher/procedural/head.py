"""The head's topology: asset, subdivided skin, eyeballs, teeth; shape targets and face units.

Lengths are decimetres in the rest frame of the asset (y up, +z forward, +x the person's left)
until `identity` moves them into the world. Everything here is shared by all identities.
"""

import dataclasses
import functools
import json
from importlib import resources

import numpy as np
from scipy import sparse

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import subdivision

SKIN, EYE, TEETH, GUM, TONGUE = range(5)

EYE_RADIUS = 0.138  # of the asset's helper eyes, measured
IRIS_ANGLE = 0.47  # radians from the gaze axis to the limbus: iris radius 6.2 mm of 13.8
CORNEA_BULGE = 0.055  # of the radius, at the pole
EYE_RINGS, EYE_SEGMENTS = 18, 28
TOOTH_COLUMNS, TOOTH_ROWS = 5, 5
#: Widths of the teeth from the middle outwards, mm / 100 = dm, roughly anatomical.
UPPER_WIDTHS = (0.083, 0.066, 0.076, 0.07, 0.068, 0.09)
LOWER_WIDTHS = (0.054, 0.058, 0.066, 0.07, 0.07, 0.095)
#: Height of the crowns, same order.
UPPER_HEIGHTS = (0.1, 0.088, 0.096, 0.082, 0.076, 0.07)
LOWER_HEIGHTS = (0.082, 0.085, 0.092, 0.08, 0.075, 0.07)


@dataclasses.dataclass(frozen=True)
class Head:
    """Render mesh as a linear function of the asset's vertices, and labels on it.

    Attributes:
        base: (A, 3) asset vertices at rest.
        matrix: sparse (V, A): render vertices = matrix @ asset vertices.
        rest: (V, 3) render vertices at rest.
        quads: (Q, 4) render quads; `triangles` (T, 3) splits them.
        material: (T,) SKIN, EYE, TEETH, GUM or TONGUE.
        uv: (T, 3, 2) head-chart coordinates in [0, 1] (u right, v down); -1 outside the chart.
        coarse: (C, 3) triangles over the first vertices, enough to cast shadows.
        masks: name -> (V,) in [0, 1] or signed scalars, see `_masks`.
        targets: name -> (asset indices, moves (n, 3)).
        units: (52, V, 3) moves of the face units, order COEFFICIENT_NAMES.
        eyes: two (start, stop) vertex ranges, left eye first.
        lashes: list of (root, tip) asset vertex indices arrays per eyelid strip.
        neighbours: sparse (V, V) row-normalised adjacency with self.
    """

    base: np.ndarray
    matrix: sparse.csr_matrix
    rest: np.ndarray
    quads: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    uv: np.ndarray
    coarse: np.ndarray
    masks: dict
    targets: dict
    units: np.ndarray
    eyes: tuple
    lashes: list
    neighbours: sparse.csr_matrix


def _grid_quads(rows, columns, offset, closed=False):
    """Quads of a (rows, columns) vertex grid; `closed` joins the last column to the first."""
    row, column = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij"
    )
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    c, d = (row + 1) * columns + following, (row + 1) * columns + column
    return offset + np.stack([a, b, c, d], axis=-1).reshape(-1, 4)


def _eyeball(helper):
    """Vertices (n, 3) of one eyeball around its helper and its quads."""
    centre = np.array(
        [
            0.5 * (helper[:, 0].min() + helper[:, 0].max()),
            0.5 * (helper[:, 1].min() + helper[:, 1].max()),
            helper[:, 2].min() + EYE_RADIUS,
        ]
    )
    theta = np.concatenate(
        [np.linspace(0, 0.6, 9), np.linspace(0.68, np.pi, EYE_RINGS - 9)]
    )  # finer over the cornea
    phi = np.arange(EYE_SEGMENTS) * 2 * np.pi / EYE_SEGMENTS
    theta, phi = np.meshgrid(theta, phi, indexing="ij")
    bulge = CORNEA_BULGE * np.clip(1 - (theta / (IRIS_ANGLE + 0.03)) ** 2, 0, 1)
    radius = EYE_RADIUS * (1 + bulge)
    points = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    )
    vertices = (centre + radius[..., None] * points).reshape(-1, 3)
    quads = _grid_quads(EYE_RINGS, EYE_SEGMENTS, 0, closed=True)[:, ::-1]
    return vertices, quads


def _arch(helper, upper):
    """Front arch of a tooth row: biting-edge curve (n, 3) from the middle to the left."""
    side = helper[helper[:, 0] > -0.01]
    order = np.argsort(side[:, 0])
    side = side[order]
    # The outer surface's edge: lowest (upper row) or highest (lower row) point per column.
    x = np.linspace(0, 0.305, 24)
    z = np.interp(
        x,
        [0, 0.09, 0.172, 0.22, 0.255, 0.285, 0.3, 0.309],
        [1.467, 1.463, 1.413, 1.345, 1.262, 1.172, 1.1, 1.0],
    )
    if upper:
        y = np.interp(x, [0, 0.09, 0.174, 0.22, 0.284, 0.31], [6.6, 6.604, 6.62, 6.64, 6.68, 6.71])
    else:
        y = np.interp(
            x, [0, 0.09, 0.177, 0.22, 0.284, 0.31], [6.593, 6.596, 6.612, 6.631, 6.66, 6.7]
        )
        z = z - 0.03  # the lower row closes behind the upper one
    return np.stack([x, y, z], axis=-1)


def _tooth_row(helper, upper):
    """Teeth and gum of one jaw: (vertices, quads, material per quad)."""
    curve = _arch(helper, upper)
    steps = np.linalg.norm(np.diff(curve[:, [0, 2]], axis=0), axis=1)
    length = np.concatenate([[0], np.cumsum(steps)])
    sign = 1.0 if upper else -1.0
    vertices, quads, materials, count = [], [], [], 0
    widths = UPPER_WIDTHS if upper else LOWER_WIDTHS
    heights = UPPER_HEIGHTS if upper else LOWER_HEIGHTS
    begin = 0.0
    for width, height in zip(widths, heights, strict=True):
        s = np.linspace(-1, 1, TOOTH_COLUMNS)
        t = np.linspace(0, 1, TOOTH_ROWS)
        grid_t, grid_s = np.meshgrid(t, s, indexing="ij")
        # Rounded at the biting edge, narrower at the gum.
        waist = 0.98 - 0.16 * grid_t**2
        along = np.clip(begin + 0.5 * width * (1 + grid_s * waist), 0, length[-1])
        x, y, z = (np.interp(along, length, curve[:, i]) for i in range(3))
        bow = (1 - grid_s**2) * 0.012 - 0.02 * (np.abs(grid_s) ** 6)
        tangent_x = np.interp(along + 1e-3, length, curve[:, 0]) - x
        tangent_z = np.interp(along + 1e-3, length, curve[:, 2]) - z
        norm = np.maximum(np.hypot(tangent_x, tangent_z), 1e-9)
        out_x, out_z = -tangent_z / norm, tangent_x / norm
        bow = bow + 0.012 * np.sin(np.pi * grid_t) - 0.018 * (1 - grid_t) ** 4
        corner = 0.010 * np.abs(grid_s) ** 3 * (1 - grid_t)
        rise = grid_t * height * 1.25
        y = y + sign * (corner + rise)
        lean = 0.12 if upper else -0.1
        point = np.stack([x + out_x * bow, y, z + out_z * bow + lean * rise], axis=-1)
        for mirror in (1, -1):
            vertices.append(point.reshape(-1, 3) * [mirror, 1, 1])
            grid = _grid_quads(TOOTH_ROWS, TOOTH_COLUMNS, count)
            quads.append(grid if (mirror == 1) == upper else grid[:, ::-1])
            materials.append(np.full(len(grid), TEETH))
            count += point.shape[0] * point.shape[1]
        begin += width
    # Gum: a strip behind the crowns' upper half, with a scalloped look from the crowns before it.
    rows = np.array([[0.055, -0.018], [0.085, -0.004], [0.12, 0.005], [0.18, 0.0], [0.26, -0.06]])
    s = np.linspace(-1, 1, 31)
    along = np.abs(s) * length[-1]
    x, y, z = (np.interp(along, length, curve[:, i]) for i in range(3))
    strip = []
    for rise, out in rows:
        strip.append(
            np.stack(
                [
                    np.sign(s) * x * (1 + out * 0.6),
                    y + sign * rise,
                    z + out + 0.1 * (rise if upper else -rise),
                ],
                axis=-1,
            )
        )
    vertices.append(np.concatenate(strip))
    grid = _grid_quads(len(rows), len(s), count)
    quads.append(grid if upper else grid[:, ::-1])
    materials.append(np.full(len(grid), GUM))
    return np.concatenate(vertices), np.concatenate(quads), np.concatenate(materials)


def _bind(points, helper):
    """(n, h) weights that carry the best affine motion of `helper` (h, 3) over to `points`."""
    ones = np.ones((len(helper), 1))
    inverse = np.linalg.pinv(np.concatenate([helper, ones], axis=1))
    return np.concatenate([points, np.ones((len(points), 1))], axis=1) @ inverse


def _blob(points, centre, radii):
    """Gaussian bump (n,) around `centre`."""
    return np.exp(-0.5 * (((points - centre) / radii) ** 2).sum(axis=1))


def _smooth(x, low, high):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _sample(image, uv):
    """Bilinear sample (n, C) of an image at chart coordinates in [0, 1]; 0 outside."""
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip(uv[:, 1] * height - 0.5, 0, height - 1.001)
    ix, iy = x.astype(int), y.astype(int)
    fx, fy = (x - ix)[:, None], (y - iy)[:, None]
    rows = [image[iy + dy, ix + dx] for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))]
    top, bottom = rows[0] * (1 - fx) + rows[1] * fx, rows[2] * (1 - fx) + rows[3] * fx
    value = top * (1 - fy) + bottom * fy
    return np.where((uv >= 0).all(axis=1)[:, None], value, 0)


def hairline(points, recede=0.0, peak=0.0):
    """Signed height (dm) above the hairline at rest positions; positive grows hair.

    Args:
        points: (n, 3) rest positions.
        recede: How far temples and front move up (dm, 0 to about 0.4).
        peak: Depth of a widow's peak (dm).
    """
    x, y, z = points.T
    azimuth = np.abs(np.degrees(np.arctan2(x, z - 0.45)))
    knots = [0, 12, 24, 36, 46, 55, 64, 74, 84, 95, 108, 122, 140, 160, 180]
    line = np.array(
        [7.93, 7.94, 7.96, 7.95, 7.84, 7.7, 7.5, 7.3, 7.28, 7.42, 7.3, 6.95, 6.7, 6.6, 6.58]
    )
    front = np.interp(azimuth, [0, 30, 45, 60, 80], [0.5, 1.0, 1.0, 0.4, 0])
    dip = np.interp(azimuth, [0, 8, 16], [1.0, 0.5, 0])
    return y - (np.interp(azimuth, knots, line) + recede * front - peak * dip)


def _masks(rest, uv_vertex, head_chart_masks, parts):
    """Scalars on the render vertices.

    lips, lids, ears, mouth, eyes, brows, neck: soft masks in [0, 1]; inner: inside of the mouth;
    hairline: dm above it; cloth: dm below a crew neck (positive is cloth); cheeks, nose, chin,
    forehead, under_eyes, beard: places on the face for colour.
    """
    lips, lids, ears = (_sample(head_chart_masks / 255.0, uv_vertex)).T
    skin = parts["skin"]
    x, y, z = rest.T
    side = np.abs(x)
    symmetric = np.stack([side, y, z], axis=1)
    inner = parts["inner"].astype(float)
    eyes = np.where(
        skin & (z > 1.05),
        _smooth(1 - np.hypot((side - 0.31) / 0.24, (y - 7.275) / 0.175), 0.0, 0.05),
        0,
    )
    mouth = np.maximum(
        inner,
        np.where(
            skin & (z > 1.2),
            _smooth(1 - np.hypot(side / 0.36, (y - 6.685) / 0.215), 0.0, 0.05),
            0,
        ),
    )
    # Nearest part of the neck opening: higher behind, deeper in front.
    azimuth = np.arctan2(x, z - 0.2)
    opening = 5.88 - 0.22 * np.cos(azimuth) - 0.05 * np.cos(2 * azimuth)
    neck_line = 6.12 + 0.55 * _smooth(0.75 - z, -0.55, 0.3)
    in_neck = _smooth(neck_line - y, 0, 0.04)
    return {
        "lips": lips * skin,
        "lids": lids * skin,
        "ears": _smooth(ears, 0.3, 0.6) * skin,
        "inner": inner,
        "eyes": eyes,
        "mouth": mouth,
        "neck": in_neck * skin,
        "hairline": np.where(skin, hairline(rest), -9.0),
        "cloth": np.where(skin & (y < 6.4), opening - y, -1.0),
        "cheeks": _blob(symmetric, [0.5, 6.9, 1.25], [0.2, 0.2, 0.35]) * skin,
        "nose": _blob(symmetric, [0.0, 6.97, 1.65], [0.14, 0.1, 0.12]) * skin,
        "chin": _blob(symmetric, [0.0, 6.35, 1.5], [0.2, 0.14, 0.2]) * skin,
        "forehead": _blob(symmetric, [0.0, 7.8, 1.45], [0.4, 0.25, 0.3]) * skin,
        "under_eyes": _blob(symmetric, [0.3, 7.13, 1.4], [0.16, 0.05, 0.2]) * skin,
        "beard": _beard(side, y, z) * skin * (1 - inner),
    }


def _beard(side, y, z):
    """Where a beard grows: jaw, chin and upper lip, in [0, 1]."""
    jaw_top = np.interp(side, [0, 0.3, 0.45, 0.6, 0.72], [6.62, 6.62, 6.62, 6.85, 7.25])
    low = np.interp(z, [0.3, 0.9, 1.3], [6.3, 6.1, 6.05])
    jaw = _smooth(jaw_top - y, -0.02, 0.1) * _smooth(y - low, -0.05, 0.1) * _smooth(z, 0.35, 0.5)
    moustache = _smooth(0.36 - side, 0, 0.06) * _smooth(y, 6.62, 6.68) * _smooth(6.9 - y, 0, 0.06)
    moustache = moustache * _smooth(z, 1.2, 1.3)
    return np.maximum(jaw, moustache)


def _lash_strip(quads, base, skin_vertices):
    """Root and tip vertices along a lid of one lash strip, which is a grid of quads."""
    sides = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), axis=1)
    edges, uses = np.unique(sides, axis=0, return_counts=True)
    border = {}
    for a, b in edges[uses == 1].tolist():
        border.setdefault(a, []).append(b)
        border.setdefault(b, []).append(a)
    corners = set(np.flatnonzero(np.bincount(quads.ravel()) == 1).tolist())
    # Once around the border, cut at the four corners.
    start = min(corners)
    loop, before = [start], None
    while True:
        following = [n for n in border[loop[-1]] if n != before]
        before = loop[-1]
        if following[0] == start:
            break
        loop.append(following[0])
    cuts = [place for place, vertex in enumerate(loop) if vertex in corners] + [len(loop)]
    closed = [*loop, start]
    chains = [closed[a : b + 1] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    first, second = sorted(chains, key=len)[-2:]
    # The chains run around the loop, so the second one runs the other way.
    first, second = np.array(first), np.array(second[::-1])
    distance = [
        np.linalg.norm(base[chain][:, None] - base[skin_vertices][None], axis=-1).min(1).mean()
        for chain in (first, second)
    ]
    return (first, second) if distance[0] < distance[1] else (second, first)


@functools.cache
def load() -> Head:
    """Reads the shipped asset and builds the render mesh (about a second, then cached)."""
    path = resources.files("instant_gs.teacher.procedural.asset") / "head.npz"
    with path.open("rb") as file, np.load(file) as archive:
        data = {key: archive[key] for key in archive.files}
    text = json.loads(data["text"].tobytes())
    groups = text["groups"]
    base = data["vertices"].astype(np.float64)
    quads = data["quads"].astype(np.int64)
    group = data["quad_group"]

    left, right, low, high = text["head_chart"]
    uv = data["uvs"][data["quads_uv"].astype(int)]
    uv = np.stack([(uv[..., 0] - left) / (right - left), (high - uv[..., 1]) / (high - low)], -1)
    is_skin = group == groups.index("body")
    in_chart = (uv > 0).all(axis=(1, 2)) & (uv < 1).all(axis=(1, 2)) & is_skin
    # The inside of the mouth is a chart of its own, below the head's in the layout.
    raw = data["uvs"][data["quads_uv"].astype(int)]
    is_inner = is_skin & (raw[..., 1] < 0.145).all(axis=1) & (raw[..., 0] > 0.74).all(axis=1)
    soft = is_skin | (group == groups.index("helper-tongue"))

    matrix, fine = subdivision.catmull_clark(quads[soft], len(base))
    uv = np.where(in_chart[:, None, None], uv, -1.0)
    fine_uv = subdivision.split_corners(uv[soft])
    fine_uv[np.repeat(~in_chart[soft], 4)] = -1.0
    fine_material = np.where(np.repeat(is_skin[soft], 4), SKIN, TONGUE)
    fine_inner = np.repeat(is_inner[soft], 4)

    blocks, all_quads, materials, uvs = [matrix], [fine], [fine_material], [fine_uv]
    count = matrix.shape[0]
    eyes = []
    coarse = [np.concatenate([quads[soft][:, [0, 1, 2]], quads[soft][:, [0, 2, 3]]])]

    def add(points, new_quads, material, helper_index):
        nonlocal count
        weights = _bind(points, base[helper_index])
        block = np.zeros((len(points), len(base)))
        block[:, helper_index] = weights
        blocks.append(sparse.csr_matrix(block.astype(np.float32)))
        shifted = new_quads + count
        all_quads.append(shifted)
        coarse.append(np.concatenate([shifted[:, [0, 1, 2]], shifted[:, [0, 2, 3]]]))
        materials.append(np.broadcast_to(material, len(new_quads)))
        uvs.append(np.full((len(new_quads), 4, 2), -1.0))
        count += len(points)

    for name in ("helper-l-eye", "helper-r-eye"):
        index = np.unique(quads[group == groups.index(name)])
        points, new_quads = _eyeball(base[index])
        eyes.append((count, count + len(points)))
        add(points, new_quads, EYE, index)
    for name, upper in (("helper-upper-teeth", True), ("helper-lower-teeth", False)):
        index = np.unique(quads[group == groups.index(name)])
        points, new_quads, material = _tooth_row(base[index], upper)
        add(points, new_quads, material, index)

    matrix = sparse.vstack(blocks).tocsr().astype(np.float32)
    render_quads = np.concatenate(all_quads)
    material = np.concatenate(materials)
    corner_uv = np.concatenate(uvs)
    rest = matrix @ base

    uv_vertex = np.full((len(rest), 2), -1.0)
    valid = corner_uv[..., 0] >= 0
    uv_vertex[render_quads[valid]] = corner_uv[valid]
    skin = np.zeros(len(rest), bool)
    skin[render_quads[material == SKIN]] = True
    inner = np.zeros(len(rest), bool)
    inner[render_quads[: len(fine)][fine_inner]] = True
    tongue = np.zeros(len(rest), bool)
    tongue[render_quads[material == TONGUE]] = True
    masks = _masks(rest, uv_vertex, data["masks"], {"skin": skin, "inner": inner})
    masks["skin"], masks["tongue"] = skin.astype(float), tongue.astype(float)

    names, offsets = text["targets"], data["target_offset"]
    targets = {
        name: (
            data["target_index"][a:b].astype(np.int64),
            data["target_move"][a:b].astype(np.float32),
        )
        for name, a, b in zip(names, offsets[:-1], offsets[1:], strict=True)
    }
    units = np.zeros((len(pack_format.COEFFICIENT_NAMES), len(rest), 3), np.float32)
    for row, name in enumerate(pack_format.COEFFICIENT_NAMES):
        index, move = targets["unit/" + name]
        full = np.zeros((len(base), 3), np.float32)
        full[index] = move
        units[row] = matrix @ full
    lashes = []
    body_vertices = np.unique(quads[is_skin])
    near = body_vertices[
        (np.abs(np.abs(base[body_vertices, 0]) - 0.31) < 0.3)
        & (np.abs(base[body_vertices, 1] - 7.27) < 0.15)
        & (base[body_vertices, 2] > 1.15)
    ]
    for name in groups:
        if "eyelashes" in name:
            lashes.append(_lash_strip(quads[group == groups.index(name)], base, near))

    triangles = np.concatenate([render_quads[:, [0, 1, 2]], render_quads[:, [0, 2, 3]]])
    pairs = np.concatenate([render_quads, render_quads[:, ::-1]])
    rows = np.concatenate([pairs.ravel(), np.arange(len(rest))])
    columns = np.concatenate([np.roll(pairs, -1, axis=1).ravel(), np.arange(len(rest))])
    adjacency = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(rest),) * 2)
    adjacency.data[:] = 1.0
    scale = 1.0 / np.asarray(adjacency.sum(axis=1)).ravel()
    return Head(
        base=base,
        matrix=matrix,
        rest=rest,
        quads=render_quads,
        triangles=np.ascontiguousarray(triangles.astype(np.int32)),
        material=np.ascontiguousarray(np.concatenate([material, material]).astype(np.uint8)),
        uv=np.ascontiguousarray(
            np.concatenate([corner_uv[:, [0, 1, 2]], corner_uv[:, [0, 2, 3]]]).astype(np.float32)
        ),
        coarse=np.ascontiguousarray(np.concatenate(coarse).astype(np.int32)),
        masks={key: value.astype(np.float32) for key, value in masks.items()},
        targets=targets,
        units=units,
        eyes=tuple(eyes),
        lashes=lashes,
        neighbours=(sparse.diags(scale) @ adjacency).tocsr().astype(np.float32),
    )
