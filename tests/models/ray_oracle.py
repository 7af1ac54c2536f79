"""The ray mode once more: plain NumPy in float64, a loop where a loop says it best.

Written from the description of the release and not from the model's code, which it judges: rays of
a camera, jittered coarse samples, their densities, importance samples, features of three planes.
Random numbers come from outside.
"""

import numpy as np

NEAR, FAR = 2.25, 3.5


def rays(cam2world, intrinsics, side: int):
    """Origin (3,) and unit directions (side * side, 3): pixel centres, the first row first."""
    cam2world, k = np.asarray(cam2world, np.float64), np.asarray(intrinsics, np.float64)
    directions = []
    for row in range(side):
        for column in range(side):
            pixel = np.array([(column + 0.5) / side, (row + 0.5) / side, 1.0])
            direction = cam2world[:3, :3] @ np.linalg.solve(k, pixel)
            directions.append(direction / np.linalg.norm(direction))
    return cam2world[:3, 3], np.array(directions)


def read_planes(planes, points):
    """Three planes (3, S, S, C) at points (M, 3): one point and one corner at a time."""
    planes, size = np.asarray(planes, np.float64), planes.shape[1]
    out = np.zeros((len(points), planes.shape[-1]))
    for index, (x, y, z) in enumerate(np.asarray(points, np.float64)):
        for plane, (across, down) in zip(planes, ((x, y), (x, z), (z, y)), strict=True):
            column = (2 * across + 1) * size / 2 - 0.5  # the box [-0.5, 0.5] spans the image
            row = (2 * down + 1) * size / 2 - 0.5  # grows with the coordinate: no flip
            for i in (int(np.floor(row)), int(np.floor(row)) + 1):
                for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                    if 0 <= i < size and 0 <= j < size:  # zeros outside
                        weight = (1 - abs(row - i)) * (1 - abs(column - j))
                        out[index] += weight * plane[i, j] / 3
    return out


def decode(decoder, features):
    """Raw outputs (M, 22) of features (M, F): weights are divided by the root of their inputs."""
    for name in ("fc1", "fc2"):
        kernel = np.asarray(decoder[name]["kernel"], np.float64)
        features = features @ kernel / np.sqrt(len(kernel)) + np.asarray(decoder[name]["bias"])
        if name == "fc1":
            features = np.logaddexp(0, features)
    return features


def density(raw):
    """Sigma (M,) of raw outputs."""
    return np.logaddexp(0, raw[:, 0] - 1)


def coarse_depths(jitter):
    """Distances along rays (R, K) of uniform numbers: a step of the grid each, from its start."""
    count = jitter.shape[-1]
    return np.linspace(NEAR, FAR, count) + jitter * (FAR - NEAR) / (count - 1)


def fine_depths(depth, sigma, uniform):
    """Importance samples of one ray, step by step as described."""
    alpha = 1 - np.exp(-sigma)
    weight, through = np.zeros_like(alpha), 1.0
    for k, a in enumerate(alpha):
        weight[k] = a * through
        through *= 1 - a + 1e-10
    padded = np.concatenate([[-np.inf], weight, [-np.inf]])
    widest = np.maximum(padded[1:], padded[:-1])
    weight = 0.5 * (widest[1:] + widest[:-1]) + 0.01
    edges = 0.5 * (depth[1:] + depth[:-1])
    pdf = weight[1:-1] + 1e-5
    cdf = np.concatenate([[0], np.cumsum(pdf / pdf.sum())])
    out = []
    for u in uniform:
        above = np.searchsorted(cdf, u, side="right")
        below, above = max(above - 1, 0), min(above, len(edges) - 1)
        span = cdf[above] - cdf[below]
        span = 1.0 if span < 1e-5 else span
        out.append(edges[below] + (u - cdf[below]) / span * (edges[above] - edges[below]))
    return np.array(out)


def features(planes, decoder, cam2world, intrinsics, jitter, uniform):
    """The whole mode for one photo.

    Args:
        planes: (3, S, S, 2F), appearance before motion.
        decoder: Parameters of the Gaussian decoder.
        cam2world: (4, 4).
        intrinsics: (3, 3), normalised.
        jitter: (R * R, K) in [0, 1), of the coarse samples.
        uniform: (R * R, K) in [0, 1), of the importance samples.

    Returns:
        (R * R * 2K, 2F): of every ray the coarse samples and then the fine ones.
    """
    width = planes.shape[-1] // 2
    jitter, uniform = np.asarray(jitter, np.float64), np.asarray(uniform, np.float64)
    origin, directions = rays(cam2world, intrinsics, round(len(jitter) ** 0.5))
    out = []
    for direction, coarse, draw in zip(directions, coarse_depths(jitter), uniform, strict=True):
        near = read_planes(planes, origin + coarse[:, None] * direction)
        fine = fine_depths(coarse, density(decode(decoder, near[:, :width])), draw)
        out += [near, read_planes(planes, origin + fine[:, None] * direction)]
    return np.concatenate(out)
