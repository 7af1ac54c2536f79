"""From where an identity is seen: fixed cameras per clip, drawn from the pack seed."""

import math

import numpy as np

from instant_gs.geometry import camera
from instant_gs.teacher.procedural import identity

FRONT_YAW, FRONT_PITCH, FRONT_ROLL = (math.radians(d) for d in (20, 10, 2))
SIDE_PITCH = math.radians(20)
MAX_YAW = math.radians(50)


def draw(seed, index, performance, view, max_yaw_rad=MAX_YAW):
    """Pose of the camera of one clip.

    Args:
        seed, index: The identity.
        performance: Its name.
        view: 0 is near the front (yaw within 20 degrees), others are anywhere within `max_yaw_rad`.
        max_yaw_rad: Largest azimuth.

    Returns:
        cam2world (4, 4) float32.
    """
    rng = identity.generator(seed, index, f"camera {performance} {view}")
    roll = float(rng.uniform(-FRONT_ROLL, FRONT_ROLL))
    if view == 0:
        yaw, pitch = rng.uniform(-FRONT_YAW, FRONT_YAW), rng.uniform(-FRONT_PITCH, FRONT_PITCH)
    else:
        side = 1 if (view + rng.integers(2)) % 2 else -1
        yaw = rng.uniform(-0.3, 1.0) * max_yaw_rad * side
        pitch = rng.uniform(-SIDE_PITCH, SIDE_PITCH)
    return np.asarray(camera.look_at(float(yaw), float(pitch), roll_rad=roll), np.float32)
