"""The head's topology: asset, subdivided skin, eyeballs, teeth; shape targets and face units.

Lengths are decimetres in the rest frame of the asset (y up, +z forward, +x the person's left)
until `identity` moves them into the world. Everything here is shared by all identities.
"""

import dataclasses
import functools
import itertools
import json
from importlib import resources

import numpy as np
from scipy import sparse

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import mask, part, subdivision


@dataclasses.dataclass(frozen=True)
class Head:
    """Render mesh as a linear function of the asset's vertices, and labels on it.

    Attributes:
        base: (A, 3) asset vertices at rest.
        matrix: sparse (V, A): render vertices = matrix @ asset vertices.
        rest: (V, 3) render vertices at rest.
        triangles: (T, 3) of the render mesh.
        material: (T,) SKIN, EYE, TEETH, GUM or TONGUE.
        uv: (T, 3, 2) head-chart coordinates in [0, 1] (u right, v down); -1 outside the chart.
        coarse: (C, 3) triangles over the first vertices, enough to cast shadows.
        masks: name -> (V,) in [0, 1] or signed scalars, see `mask.masks`.
        targets: name -> (asset indices, moves (n, 3)).
        units: (52, V, 3) moves of the face units, order COEFFICIENT_NAMES.
        eyes: two (start, stop) vertex ranges, left eye first.
        lashes: list of (root, tip) asset vertex indices arrays per eyelid strip.
        neighbours: sparse (V, V) row-normalised adjacency with self.
    """

    base: np.ndarray
    matrix: sparse.csr_matrix
    rest: np.ndarray
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
    chains = [closed[a : b + 1] for a, b in itertools.pairwise(cuts)]
    first, second = sorted(chains, key=len)[-2:]
    # The chains run around the loop, so the second one runs the other way.
    first, second = np.array(first), np.array(second[::-1])
    distance = [
        np.linalg.norm(base[chain][:, None] - base[skin_vertices][None], axis=-1).min(1).mean()
        for chain in (first, second)
    ]
    return (first, second) if distance[0] < distance[1] else (second, first)


def _read_asset():
    """Arrays of the shipped asset and its names."""
    path = resources.files("instant_gs.teacher.procedural.asset") / "head.npz"
    with path.open("rb") as file, np.load(file) as archive:
        data = {key: archive[key] for key in archive.files}
    return data, json.loads(data.pop("text").tobytes())


class _Builder:
    """Collects the blocks of the render mesh: soft skin first, then eyes, teeth and gums."""

    def __init__(self, base):
        self.base = base
        self.blocks, self.quads, self.materials, self.uvs, self.coarse = [], [], [], [], []
        self.count = 0

    def add_soft(self, quads, material, uv):
        """Skin and tongue, subdivided once."""
        matrix, fine = subdivision.catmull_clark(quads, len(self.base))
        self.blocks.append(matrix)
        self.quads.append(fine)
        self.materials.append(np.repeat(material, 4))
        fine_uv = subdivision.split_corners(uv)
        fine_uv[np.repeat((uv < 0).any(axis=(1, 2)), 4)] = -1.0
        self.uvs.append(fine_uv)
        self.coarse.append(_split(quads))
        self.count = matrix.shape[0]

    def add_hard(self, points, quads, material, helper):
        """Parts that follow the affine motion of the asset's helper vertices; returns the range."""
        block = np.zeros((len(points), len(self.base)))
        block[:, helper] = part.bind(points, self.base[helper])
        self.blocks.append(sparse.csr_matrix(block.astype(np.float32)))
        shifted = quads + self.count
        self.quads.append(shifted)
        self.coarse.append(_split(shifted))
        self.materials.append(np.broadcast_to(material, len(quads)))
        self.uvs.append(np.full((len(quads), 4, 2), -1.0))
        start, self.count = self.count, self.count + len(points)
        return start, self.count


def _split(quads):
    """Two triangles per quad."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _build(base, quads, group, groups, uv, is_skin):
    """The render mesh: (builder, eye ranges)."""
    builder = _Builder(base)
    soft = is_skin | (group == groups.index("helper-tongue"))
    material = np.where(is_skin[soft], part.SKIN, part.TONGUE)
    builder.add_soft(quads[soft], material, uv[soft])
    eyes = []
    for name in ("helper-l-eye", "helper-r-eye"):
        helper = np.unique(quads[group == groups.index(name)])
        points, new_quads = part.eyeball(base[helper])
        eyes.append(builder.add_hard(points, new_quads, part.EYE, helper))
    for name, upper in (("helper-upper-teeth", True), ("helper-lower-teeth", False)):
        helper = np.unique(quads[group == groups.index(name)])
        points, new_quads, materials = part.tooth_row(upper)
        builder.add_hard(points, new_quads, materials, helper)
    return builder, tuple(eyes)


def _flag(count, *index_arrays):
    """(count,) bool, true at the given indices."""
    flag = np.zeros(count, bool)
    for index in index_arrays:
        flag[index] = True
    return flag


def _read_targets(data, names, matrix, vertex_count):
    """Shape targets by name, and the face units on the render mesh (52, V, 3)."""
    offsets = data["target_offset"]
    targets = {
        name: (
            data["target_index"][a:b].astype(np.int64),
            data["target_move"][a:b].astype(np.float32),
        )
        for name, a, b in zip(names, offsets[:-1], offsets[1:], strict=True)
    }
    count = len(pack_format.COEFFICIENT_NAMES)
    units = np.zeros((count, matrix.shape[0], 3), np.float32)
    for row, name in enumerate(pack_format.COEFFICIENT_NAMES):
        index, move = targets["unit/" + name]
        full = np.zeros((vertex_count, 3), np.float32)
        full[index] = move
        units[row] = matrix @ full
    return targets, units


def _read_lashes(base, quads, group, groups, is_skin):
    """(roots, tips) of the four lash strips."""
    body = np.unique(quads[is_skin])
    near = body[
        (np.abs(np.abs(base[body, 0]) - 0.31) < 0.3)
        & (np.abs(base[body, 1] - 7.27) < 0.15)
        & (base[body, 2] > 1.15)
    ]
    return [
        _lash_strip(quads[group == groups.index(name)], base, near)
        for name in groups
        if "eyelashes" in name
    ]


def _adjacency(quads, count):
    """Row-normalised neighbourhood along quad sides, with self: sparse (V, V)."""
    pairs = np.concatenate([quads, quads[:, ::-1]])
    rows = np.concatenate([pairs.ravel(), np.arange(count)])
    columns = np.concatenate([np.roll(pairs, -1, axis=1).ravel(), np.arange(count)])
    adjacency = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    adjacency.data[:] = 1.0
    scale = 1.0 / np.asarray(adjacency.sum(axis=1)).ravel()
    return (sparse.diags(scale) @ adjacency).tocsr().astype(np.float32)


@functools.cache
def load() -> Head:
    """Reads the shipped asset and builds the render mesh (about a second, then cached)."""
    data, text = _read_asset()
    groups, group = text["groups"], data["quad_group"]
    base = data["vertices"].astype(np.float64)
    quads = data["quads"].astype(np.int64)
    is_skin = group == groups.index("body")

    left, right, low, high = text["head_chart"]
    raw = data["uvs"][data["quads_uv"].astype(int)]
    uv = np.stack([(raw[..., 0] - left) / (right - left), (high - raw[..., 1]) / (high - low)], -1)
    in_chart = (uv > 0).all(axis=(1, 2)) & (uv < 1).all(axis=(1, 2)) & is_skin
    uv = np.where(in_chart[:, None, None], uv, -1.0)
    # The inside of the mouth is a chart of its own, below the head's in the layout.
    is_inner = is_skin & (raw[..., 1] < 0.145).all(axis=1) & (raw[..., 0] > 0.74).all(axis=1)

    builder, eyes = _build(base, quads, group, groups, uv, is_skin)
    matrix = sparse.vstack(builder.blocks).tocsr().astype(np.float32)
    render_quads = np.concatenate(builder.quads)
    material = np.concatenate(builder.materials)
    corner_uv = np.concatenate(builder.uvs)
    rest = matrix @ base

    uv_vertex = np.full((len(rest), 2), -1.0)
    valid = corner_uv[..., 0] >= 0
    uv_vertex[render_quads[valid]] = corner_uv[valid]
    skin = _flag(len(rest), render_quads[material == part.SKIN])
    tongue = _flag(len(rest), render_quads[material == part.TONGUE])
    soft = is_skin | (group == groups.index("helper-tongue"))
    fine_inner = np.repeat(is_inner[soft], 4)
    inner = _flag(len(rest), builder.quads[0][fine_inner])
    masks = mask.masks(rest, uv_vertex, data["masks"], {"skin": skin, "inner": inner})
    masks["skin"], masks["tongue"] = skin.astype(float), tongue.astype(float)
    targets, units = _read_targets(data, text["targets"], matrix, len(base))
    split_uv = np.concatenate([corner_uv[:, [0, 1, 2]], corner_uv[:, [0, 2, 3]]])
    return Head(
        base=base,
        matrix=matrix,
        rest=rest,
        triangles=np.ascontiguousarray(_split(render_quads).astype(np.int32)),
        material=np.ascontiguousarray(np.concatenate([material, material]).astype(np.uint8)),
        uv=np.ascontiguousarray(split_uv.astype(np.float32)),
        coarse=np.ascontiguousarray(np.concatenate(builder.coarse).astype(np.int32)),
        masks={key: value.astype(np.float32) for key, value in masks.items()},
        targets=targets,
        units=units,
        eyes=eyes,
        lashes=_read_lashes(base, quads, group, groups, is_skin),
        neighbours=_adjacency(render_quads, len(rest)),
    )
