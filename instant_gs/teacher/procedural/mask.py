"""Where on the head things are: soft masks and signed heights on the render vertices."""

import numpy as np


def _blob(points, centre, radii):
    """Gaussian bump (n,) around `centre`."""
    return np.exp(-0.5 * (((points - centre) / radii) ** 2).sum(axis=1))


def smooth(x, low, high):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def sample(image, uv):
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


def hairline(points, recede=0.0):
    """Signed height (dm) above the hairline at rest positions; positive grows hair.

    Args:
        points: (n, 3) rest positions.
        recede: How far temples and front move up (dm, 0 to about 0.4).
    """
    x, y, z = points.T
    azimuth = np.abs(np.degrees(np.arctan2(x, z - 0.45)))
    knots = [0, 12, 24, 36, 46, 55, 64, 74, 84, 95, 108, 122, 140, 160, 180]
    line = np.array(
        [7.93, 7.94, 7.96, 7.95, 7.84, 7.7, 7.5, 7.3, 7.28, 7.42, 7.3, 6.95, 6.7, 6.6, 6.58]
    )
    front = np.interp(azimuth, [0, 30, 45, 60, 80], [0.5, 1.0, 1.0, 0.4, 0])
    return y - (np.interp(azimuth, knots, line) + recede * front)


def masks(rest, uv_vertex, head_chart_masks, parts):
    """Scalars on the render vertices.

    lips, lids, ears, mouth, eyes, brows, neck: soft masks in [0, 1]; inner: inside of the mouth;
    hairline: dm above it; cloth: dm below a crew neck (positive is cloth); cheeks, nose, chin,
    forehead, under_eyes, beard: places on the face for colour.
    """
    lips, lids, ears = (sample(head_chart_masks / 255.0, uv_vertex)).T
    skin = parts["skin"]
    x, y, z = rest.T
    side = np.abs(x)
    symmetric = np.stack([side, y, z], axis=1)
    inner = parts["inner"].astype(float)
    eyes = np.where(
        skin & (z > 1.05),
        smooth(1 - np.hypot((side - 0.31) / 0.24, (y - 7.275) / 0.175), 0.0, 0.05),
        0,
    )
    mouth = np.maximum(
        inner,
        np.where(
            skin & (z > 1.2),
            smooth(1 - np.hypot(side / 0.36, (y - 6.685) / 0.215), 0.0, 0.05),
            0,
        ),
    )
    # Nearest part of the neck opening: higher behind, deeper in front.
    azimuth = np.arctan2(x, z - 0.2)
    opening = 5.88 - 0.22 * np.cos(azimuth) - 0.05 * np.cos(2 * azimuth)
    neck_line = 6.12 + 0.55 * smooth(0.75 - z, -0.55, 0.3)
    in_neck = smooth(neck_line - y, 0, 0.04)
    return {
        "lips": lips * skin,
        "lids": lids * skin,
        "ears": smooth(ears, 0.3, 0.6) * skin,
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
    jaw = smooth(jaw_top - y, -0.02, 0.1) * smooth(y - low, -0.05, 0.1) * smooth(z, 0.35, 0.5)
    moustache = smooth(0.36 - side, 0, 0.06) * smooth(y, 6.62, 6.68) * smooth(6.9 - y, 0, 0.06)
    moustache = moustache * smooth(z, 1.2, 1.3)
    return np.maximum(jaw, moustache)
