"""Where the camera is in each frame: it stays, swings, or shows the driver's head pose.

The avatar itself always looks to +z: a head that turns left and a camera that moves right are one
picture. Angles on the outside are degrees; positive yaw is the head's left side, positive pitch up.
"""

import math
from collections.abc import Iterator

import numpy as np

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.inference import one_euro

#: One swing of the orbiting camera to the left, to the right and back.
ORBIT_SECONDS = 4.0

#: Elevations near the poles have no "up".
MAX_PITCH_DEGREES = 80.0

#: Standard deviation of a still head's pose: yaw 0.24, pitch 0.52, roll 0.11 degrees, measured
#: with the detector on the demo photo, 40 times with new noise of 3 steps and 1 pixel of tremble.
POSE_NOISE_DEGREES = 0.33


def orbit(
    count: int,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    swing: float = 0.0,
    fps: float = 25.0,
    fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
) -> Iterator[types.Camera]:
    """Reference cameras that swing around the head, one a frame.

    Args:
        count: Frames.
        yaw: The middle of the swing.
        pitch: Elevation.
        swing: How far to either side of ``yaw``; 0 keeps the camera still.
        fps: Frames a second; one swing takes ``ORBIT_SECONDS``.
        fov_degrees: Field of view, the model's.

    Raises:
        ValueError: A pitch beyond ``MAX_PITCH_DEGREES``.
    """
    _check_pitch(pitch)
    for index in range(count):
        turn = swing * math.sin(2 * math.pi * index / (fps * ORBIT_SECONDS))
        yield _camera(yaw + turn, pitch, fov_degrees)


def follow(
    poses: np.ndarray,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    fps: float = 25.0,
    steady: bool = True,
    fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
) -> Iterator[types.Camera]:
    """Cameras that show the avatar in the driver's head pose, one a frame.

    Args:
        poses: (T, 3) yaw, pitch and roll in radians, ``tracking.Track.poses``.
        yaw: Added to the driver's.
        pitch: Added to the driver's.
        fps: Frames a second.
        steady: Whether a One-Euro filter calms the pose.
        fov_degrees: Field of view, the model's.

    Raises:
        ValueError: A pitch beyond ``MAX_PITCH_DEGREES``.
    """
    camera = HeadCamera(yaw=yaw, pitch=pitch, fps=fps, steady=steady, fov_degrees=fov_degrees)
    for pose in poses:
        yield camera(pose)


class HeadCamera:
    """``follow`` for one pose at a time, as they come."""

    def __init__(
        self,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        fps: float = 25.0,
        steady: bool = True,
        fov_degrees: float = camera_lib.FOV_WIDE_DEGREES,
    ):
        """As ``follow``."""
        _check_pitch(pitch)
        self._yaw, self._pitch, self._fov_degrees = yaw, pitch, fov_degrees
        self._calm = one_euro.OneEuro(fps, POSE_NOISE_DEGREES if steady else 0.0)

    def __call__(self, pose, seconds: float | None = None) -> types.Camera:
        """The camera of this frame.

        Args:
            pose: (3,) yaw, pitch and roll in radians; NaN where no head is seen: the last pose
                stays, and before the first one the head looks ahead.
            seconds: Since the frame before; None: one frame.
        """
        turn, nod, roll = np.nan_to_num(self._calm(np.degrees(pose), seconds)).tolist()
        nod = min(max(self._pitch + nod, -MAX_PITCH_DEGREES), MAX_PITCH_DEGREES)
        return _camera(self._yaw + turn, nod, self._fov_degrees, roll)


def _camera(yaw: float, pitch: float, fov_degrees: float, roll: float = 0.0) -> types.Camera:
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw, pitch, roll))
    pose = camera_lib.look_at(yaw, pitch, roll_rad=roll)
    return types.Camera(pose, camera_lib.intrinsics(fov_degrees))


def _check_pitch(pitch: float) -> None:
    if not abs(pitch) <= MAX_PITCH_DEGREES:
        raise ValueError(
            f"pitch: expected within ±{MAX_PITCH_DEGREES:.0f} degrees, got {pitch}; lower it"
        )
