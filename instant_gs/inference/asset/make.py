"""Draws `motion_bank.webp`: somebody who performs `motion_bank.EXPRESSIONS`, one below another.

The result is in the repository, since drawing needs the extra "teacher". To make it again:

    python -m instant_gs.inference.asset.make instant_gs/inference/asset/motion_bank.webp
"""

import sys

import numpy as np
from PIL import Image

from instant_gs.data import format as pack_format
from instant_gs.geometry import camera
from instant_gs.inference import motion_bank
from instant_gs.teacher.procedural import render

#: No beard and no hair hides anything.
SEED, IDENTITY = 0, 3

#: Pixels a side of what the release's motion encoder reads.
SIDE = 224


def draw(coefficients) -> np.ndarray:
    """(K, 52) coefficients to (K, SIDE, SIDE, 3) uint8 driving crops."""
    whole = round(SIDE / pack_format.MOTION_CROP)
    front = camera.orbit_camera(0.0, 0.0)
    images = render.render_identity(SEED, IDENTITY, coefficients, front, whole).image[:, 0]
    first = (whole - SIDE) // 2
    return images[:, first : first + SIDE, first : first + SIDE]


if __name__ == "__main__":
    pictures = draw(motion_bank.coefficients())
    strip = Image.fromarray(pictures.reshape(-1, SIDE, 3))
    strip.save(sys.argv[1], quality=90, method=6)
