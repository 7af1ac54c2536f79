"""Eyeballs, teeth and gums: modelled here, bound to the helper geometry of the asset.

Lengths are decimetres in the rest frame of the asset.
"""

import numpy as np

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


def _grid_quads(rows, columns, offset, closed=False):
    """Quads of a (rows, columns) vertex grid; `closed` joins the last column to the first."""
    row, column = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij"
    )
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    c, d = (row + 1) * columns + following, (row + 1) * columns + column
    return offset + np.stack([a, b, c, d], axis=-1).reshape(-1, 4)


def eyeball(helper):
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


def _arch(upper):
    """Front arch of a tooth row: biting-edge curve (n, 3) from the middle to the left."""
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


def tooth_row(upper):
    """Teeth and gum of one jaw: (vertices, quads, material per quad)."""
    curve = _arch(upper)
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


def bind(points, helper):
    """(n, h) weights that carry the best affine motion of `helper` (h, 3) over to `points`."""
    ones = np.ones((len(helper), 1))
    inverse = np.linalg.pinv(np.concatenate([helper, ones], axis=1))
    return np.concatenate([points, np.ones((len(points), 1))], axis=1) @ inverse
