"""A rough head, neck and shoulders: where anchored Gaussians rest and photos are laid out.

A map of cells covers it: rows go down the head, columns around it, 103 degrees each way, past the
ears. Cells are small in the middle, where the face is, and large at the rim: a face shows more
than a shoulder.
"""

import math

import numpy as np

# Half width and half depth over height: crown, temples, jaw, neck, shoulders.
_HEIGHTS = (-0.40, -0.33, -0.27, -0.22, -0.15, 0.0, 0.12, 0.22, 0.30, 0.36)
_WIDTHS = (0.40, 0.34, 0.20, 0.16, 0.19, 0.23, 0.24, 0.22, 0.15, 0.04)
_DEPTHS = (0.10, 0.10, 0.10, 0.13, 0.22, 0.24, 0.24, 0.22, 0.15, 0.04)
_HALF_EXTENT = 0.393  # what the wide reference camera sees at the origin, either way
_REACH_RAD = math.radians(103.0)
_DENSITY = 0.6  # a cell's size in the middle against a uniform map's
_BACK = 0.05  # the axis lies behind the origin


def points(grid: int) -> np.ndarray:
    """Centres of the cells.

    Args:
        grid: Cells a side.

    Returns:
        (grid * grid, 3) float32 world units, row-major from the top left as seen from the front.
    """
    position = (2 * np.arange(grid) + 1) / grid - 1
    position = _DENSITY * position + (1 - _DENSITY) * position**3
    y, angle = -_HALF_EXTENT * position, _REACH_RAD * position
    x = np.interp(y, _HEIGHTS, _WIDTHS)[:, None] * np.sin(angle)[None]
    z = np.interp(y, _HEIGHTS, _DEPTHS)[:, None] * np.cos(angle)[None] - _BACK
    surface = np.stack([x, np.broadcast_to(y[:, None], x.shape), z], -1)
    return surface.reshape(-1, 3).astype(np.float32)


def outward(grid: int) -> np.ndarray:
    """Unit normals of the cells, as of a slim ellipsoid around the axis.

    Args:
        grid: Cells a side.

    Returns:
        (grid * grid, 3) float32.
    """
    x, y, z = np.moveaxis(points(grid), -1, 0)
    # The height counts a fourth: a head is a column with a round top.
    direction = np.stack([x, 0.25 * y, z + _BACK], -1)
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)
