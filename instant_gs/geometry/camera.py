"""Cameras around the head: look-at poses and the reference field of view."""

import math

import jax.numpy as jnp
import numpy as np

from instant_gs import types

RADIUS = 2.7  # distance of the reference camera from the world's origin, where the head is
FOV_WIDE_DEGREES = 23.28  # of the "wide" crop, the default of the authors' release
FOV_LEGACY_DEGREES = 18.837  # of the first release


def product(a, b):
    """a @ b of points, rays or rotations, in float32 everywhere.

    TPUs would round both to bfloat16, one or two pixels of a picture, and GPUs to TF32.
    """
    return jnp.matmul(a, b, precision="highest")


def focal_length(fov_degrees: float = FOV_WIDE_DEGREES) -> float:
    """Focal length in image widths, with the literal constants of the reference release.

    Args:
        fov_degrees: Field of view as the release counts it (of the image's half diagonal).

    Returns:
        3.43311 for the wide and 4.26339 for the legacy field of view.
    """
    return 1.0 / (1.414 * math.tan(fov_degrees * 3.14159 / 360.0))


def fov_degrees(focal_length: float) -> float:
    """The field of view of a focal length in image widths: the inverse of ``focal_length``."""
    return math.atan(1.0 / (1.414 * focal_length)) * 360.0 / 3.14159


def intrinsics(fov_degrees: float = FOV_WIDE_DEGREES) -> np.ndarray:
    """Normalised intrinsics (3, 3) float32, principal point at the image centre."""
    focal = focal_length(fov_degrees)
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], np.float32)


def look_at(yaw_rad: float, pitch_rad: float, *, roll_rad: float = 0.0) -> np.ndarray:
    """Pose of a camera that looks at the origin, ``RADIUS`` away.

    Args:
        yaw_rad: Positive moves the camera to +x (it sees the head's left side).
        pitch_rad: Elevation; positive moves the camera up. Must stay inside ±pi/2.
        roll_rad: Rotation about the viewing axis; positive turns the camera clockwise.

    Returns:
        cam2world (4, 4) float32, OpenCV axes.

    Raises:
        ValueError: The elevation reaches a pole, where "up" is not defined.
    """
    if not abs(pitch_rad) < math.pi / 2:
        raise ValueError(
            f"pitch_rad: expected inside (-pi/2, pi/2), got {pitch_rad}; lower the elevation"
        )
    angles = np.array([yaw_rad, pitch_rad, roll_rad])
    return pose_from_angles(angles, xp=np).astype(np.float32)


def pose_from_angles(angles, *, xp=jnp):
    """Poses of cameras that look at the origin, ``RADIUS`` away, of arrays.

    Args:
        angles: (…, 3) yaw, pitch and roll in radians, as in ``look_at``.
        xp: ``jax.numpy``, differentiable, or ``numpy``.

    Returns:
        cam2world (…, 4, 4), OpenCV axes.
    """
    (cy, cp, cr), (sy, sp, sr) = (xp.moveaxis(f(angles), -1, 0) for f in (xp.cos, xp.sin))
    zero, one = xp.zeros_like(cy), xp.ones_like(cy)
    right, down = (cy, zero, -sy), (sp * sy, -cp, sp * cy)  # before the roll
    columns = (
        [cr * r + sr * d for r, d in zip(right, down, strict=True)],
        [cr * d - sr * r for r, d in zip(right, down, strict=True)],
        [-cp * sy, -sp, -cp * cy],
        [RADIUS * cp * sy, RADIUS * sp, RADIUS * cp * cy],
    )
    rows = [xp.stack([column[row] for column in columns], -1) for row in range(3)]
    return xp.stack([*rows, xp.stack([zero, zero, zero, one], -1)], -2)


def orbit_camera(
    yaw_rad: float, pitch_rad: float, *, fov_degrees: float = FOV_WIDE_DEGREES
) -> types.Camera:
    """The reference camera turned around the head, as a Camera of numpy arrays."""
    return types.Camera(look_at(yaw_rad, pitch_rad), intrinsics(fov_degrees))


def view_matrix(cam2world):
    """World-to-camera matrix: the inverse of a rigid pose.

    Args:
        cam2world: (…, 4, 4), rotation and translation.

    Returns:
        (…, 4, 4), differentiable.
    """
    rotation = jnp.swapaxes(cam2world[..., :3, :3], -1, -2)
    translation = -product(rotation, cam2world[..., :3, 3:])[..., 0]
    top = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def pixel_intrinsics(normalised, image_size: tuple[int, int]):
    """Intrinsics in pixels.

    Args:
        normalised: (…, 3, 3), normalised by image size.
        image_size: (height, width) in pixels.

    Returns:
        (…, 3, 3) with K[2, 2] = 1.
    """
    height, width = image_size
    return normalised * jnp.array([[width], [height], [1]], normalised.dtype)
