"""Catmull-Clark subdivision as a sparse matrix: topology is fixed, so one level is linear.

Source: E. Catmull, J. Clark, "Recursively generated B-spline surfaces on arbitrary topological
meshes", 1978.
"""

import numpy as np
from scipy import sparse


def _edges(quads):
    """Unique edges (E, 2), edge index of every quad side (F, 4) and quads at every edge (E,)."""
    sides = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    edges, inverse = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return edges, inverse.reshape(-1, 4), np.bincount(inverse, minlength=len(edges))


def _matrix(rows, columns, values, shape):
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def catmull_clark(quads, vertex_count):
    """One level of subdivision.

    Args:
        quads: (F, 4) vertex indices.
        vertex_count: V; vertices that no quad uses stay where they are.

    Returns:
        matrix: sparse (V + E + F, V), float32; new vertices = matrix @ old vertices. The first V
            new vertices are the moved old ones.
        new_quads: (4 F, 4); quad 4 f + c is the one at corner c of old quad f.
    """
    quads = np.asarray(quads, np.int64)
    faces = len(quads)
    edges, side_edge, edge_uses = _edges(quads)
    face_rows = np.repeat(np.arange(faces), 4)
    face_point = _matrix(face_rows, quads.ravel(), np.full(4 * faces, 0.25), (faces, vertex_count))
    middle = _matrix(
        np.repeat(np.arange(len(edges)), 2),
        edges.ravel(),
        np.full(2 * len(edges), 0.5),
        (len(edges), vertex_count),
    )
    inner = (edge_uses == 2).astype(float)
    at_edge = _matrix(side_edge.ravel(), face_rows, np.full(4 * faces, 0.5), (len(edges), faces))
    edge_point = (
        sparse.diags(1 - 0.5 * inner) @ middle + sparse.diags(0.5 * inner) @ at_edge @ face_point
    )

    # Old vertices: (mean face point + 2 mean edge middle + (n - 3) vertex) / n inside.
    ends = edges.ravel()
    edge_of_end = np.repeat(np.arange(len(edges)), 2)
    at_vertex = _matrix(ends, edge_of_end, np.ones(len(ends)), (vertex_count, len(edges)))
    valence = np.asarray(at_vertex.sum(axis=1)).ravel()
    on_border = np.asarray(at_vertex @ (edge_uses == 1)).ravel() > 0
    used = valence > 0
    safe = np.where(used, valence, 1)
    face_at = _matrix(quads.ravel(), face_rows, np.ones(4 * faces), (vertex_count, faces))
    face_uses = np.maximum(np.asarray(face_at.sum(axis=1)).ravel(), 1)
    smooth = used & ~on_border
    vertex_point = (
        sparse.diags(smooth / (safe * face_uses)) @ face_at @ face_point
        + sparse.diags(smooth * 2 / (safe * safe)) @ at_vertex @ middle
        + sparse.diags(np.where(smooth, (safe - 3) / safe, 0))
    )
    border_edge = sparse.diags((edge_uses == 1).astype(float))
    vertex_point = (
        vertex_point
        + sparse.diags(np.where(on_border, 0.25, 0)) @ at_vertex @ border_edge @ middle
        + sparse.diags(np.where(on_border, 0.5, np.where(used, 0.0, 1.0)))
    )
    matrix = sparse.vstack([vertex_point, edge_point, face_point]).tocsr().astype(np.float32)

    first_edge, first_face = vertex_count, vertex_count + len(edges)
    new_quads = np.stack(
        [
            quads,
            first_edge + side_edge,
            np.broadcast_to(first_face + np.arange(faces)[:, None], quads.shape),
            first_edge + np.roll(side_edge, 1, axis=1),
        ],
        axis=-1,
    )
    return matrix, new_quads.reshape(-1, 4)


def split_corners(values):
    """Per-corner values (F, 4, K) of quads, interpolated to the corners of the new quads.

    Returns:
        (4 F, 4, K) in the order of `catmull_clark`'s new quads.
    """
    centre = np.broadcast_to(values.mean(axis=1, keepdims=True), values.shape)
    after = 0.5 * (values + np.roll(values, -1, axis=1))
    before = np.roll(after, 1, axis=1)
    stacked = np.stack([values, after, centre, before], axis=2)
    return stacked.reshape(-1, 4, values.shape[-1])
