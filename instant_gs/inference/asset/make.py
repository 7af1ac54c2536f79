"""Draws `motion_bank.webp`: somebody who performs `motion_bank.EXPRESSIONS`, one below another.

The result is in the repository, since drawing needs the extra "teacher". To make it again:

    python -m instant_gs.inference.asset.make instant_gs/inference/asset/motion_bank.webp
"""

import sys

import numpy as np
from PIL import Image

from instant_gs.geometry import camera
from instant_gs.inference import motion_bank
from instant_gs.teacher.procedural import render

#: No beard and no hair hides anything, and the release's rule would crop this face as ours does.
SEED, IDENTITY = 0, 33

#: Pixels a side: what the release's motion encoder sees of it are the 224 that it reads.
SIDE = 432


def draw(coefficients) -> np.ndarray:
    """(K, 52) coefficients to (K, SIDE, SIDE, 3) uint8 aligned pictures."""
    front = camera.orbit_camera(0.0, 0.0)
    return render.render_identity(SEED, IDENTITY, coefficients, front, SIDE).image[:, 0]


if __name__ == "__main__":
    pictures = draw(motion_bank.coefficients())
    strip = Image.fromarray(pictures.reshape(-1, SIDE, 3))
    strip.save(sys.argv[1], quality=90, method=6)
