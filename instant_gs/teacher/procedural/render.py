"""The procedural teacher as functions: any identity, any expressions, any cameras.

from instant_gs.teacher.procedural import render

frames = render.render_identity(7, 12, coefficients, cameras, image_size=128)
frames.image  # (n, views, 128, 128, 3) uint8
"""

import numpy as np

from instant_gs import types
from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import part, scene

#: Landmarks by name: a point of the asset's rest frame in decimetres; the nearest skin vertex is
#: the landmark. "left" is the person's left (+x).
_LANDMARK_POINTS = {
    "nose_tip": (0.0, 6.939, 1.68),
    "nose_bridge": (0.0, 7.351, 1.507),
    "nose_left": (0.17, 6.93, 1.48),
    "nose_right": (-0.17, 6.93, 1.48),
    "lip_top": (0.0, 6.744, 1.60),
    "lip_bottom": (0.0, 6.588, 1.551),
    "lip_upper_inner": (0.0, 6.671, 1.601),
    "lip_lower_inner": (0.0, 6.650, 1.589),
    "mouth_left": (0.245, 6.68, 1.46),
    "mouth_right": (-0.245, 6.68, 1.46),
    "chin": (0.0, 6.271, 1.483),
    "lid_upper_left": (0.305, 7.305, 1.40),
    "lid_lower_left": (0.305, 7.25, 1.40),
    "lid_upper_right": (-0.305, 7.305, 1.40),
    "lid_lower_right": (-0.305, 7.25, 1.40),
    "eye_outer_left": (0.455, 7.275, 1.33),
    "eye_outer_right": (-0.455, 7.275, 1.33),
    "eye_inner_left": (0.175, 7.255, 1.37),
    "eye_inner_right": (-0.175, 7.255, 1.37),
    "brow_inner_left": (0.12, 7.47, 1.5),
    "brow_inner_right": (-0.12, 7.47, 1.5),
    "brow_outer_left": (0.46, 7.5, 1.36),
    "brow_outer_right": (-0.46, 7.5, 1.36),
    "ear_left": (0.78, 7.2, 0.45),
    "ear_right": (-0.78, 7.2, 0.45),
}
LANDMARK_NAMES = (*_LANDMARK_POINTS, "pupil_left", "pupil_right")


def _coefficient_rows(coefficients):
    rows = np.asarray(coefficients, np.float32)
    count = len(pack_format.COEFFICIENT_NAMES)
    if rows.ndim != 2 or rows.shape[1] != count:
        raise ValueError(
            f"coefficients: expected (n, {count}), got {rows.shape}; order COEFFICIENT_NAMES"
        )
    if not np.isfinite(rows).all():
        raise ValueError("coefficients: expected finite numbers, got NaN or infinity; check them")
    return np.clip(rows, 0, 1)


def _camera_rows(cameras, frames):
    """Poses (n, views, 4, 4) and intrinsics of the same leading shape."""
    poses = np.asarray(cameras.cam2world, np.float32)
    lenses = np.asarray(cameras.intrinsics, np.float32)
    if poses.ndim == 2:
        poses = poses[None]
    if poses.ndim == 3:
        poses = np.broadcast_to(poses, (frames, *poses.shape))
    if poses.ndim != 4 or poses.shape[0] != frames or poses.shape[2:] != (4, 4):
        raise ValueError(
            f"cameras.cam2world: expected (4, 4), (views, 4, 4) or ({frames}, views, 4, 4), "
            f"got {np.shape(cameras.cam2world)}"
        )
    return poses, np.broadcast_to(lenses, (*poses.shape[:2], 3, 3))


def render_identity(seed, index, coefficients, cameras, image_size=128):
    """Renders identity `index` of pack `seed` with given expressions: cross-reenactment's truth.

    Args:
        seed, index: The identity, as in the name `p<seed>-<index>`.
        coefficients: (n, 52) in [0, 1], order data.format.COEFFICIENT_NAMES; others are clipped.
        cameras: types.Camera with cam2world (4, 4) or (views, 4, 4) for all frames, or
            (n, views, 4, 4); intrinsics normalised, of a shape that broadcasts to it.
        image_size: Side in pixels, or (height, width).

    Returns:
        types.View of numpy arrays with leading axes (n, views).

    Raises:
        ValueError: A shape does not fit or a coefficient is not finite.
    """
    rows = _coefficient_rows(coefficients)
    poses, lenses = _camera_rows(cameras, len(rows))
    size = (image_size, image_size) if np.isscalar(image_size) else tuple(image_size)
    who = scene.person(seed, index)
    lead = poses.shape[:2]
    image = np.zeros((*lead, *size, 3), np.uint8)
    alpha = np.zeros((*lead, *size), np.uint8)
    regions = np.zeros((*lead, *size), np.uint8)
    for n, row in enumerate(rows):
        moved = scene.frame(who, row)
        for v in range(lead[1]):
            shot = scene.picture(who, moved, poses[n, v], lenses[n, v], size)
            image[n, v], alpha[n, v], regions[n, v] = shot.image, shot.alpha, shot.regions
    return types.View(
        image=image,
        alpha=alpha,
        regions=regions,
        cam2world=np.array(poses),
        intrinsics=np.array(lenses),
        coefficients=np.broadcast_to(rows[:, None], (*lead, rows.shape[1])).copy(),
    )


def landmarks(seed, index, coefficients):
    """True 3D landmarks of an identity with given expressions, without rendering.

    Args:
        seed, index: The identity.
        coefficients: (n, 52) in [0, 1].

    Returns:
        (n, len(LANDMARK_NAMES), 3) float32 world positions, order LANDMARK_NAMES.
    """
    model = head_model.load()
    who = scene.person(seed, index)
    front = np.flatnonzero((model.masks["skin"] > 0) & (model.masks["inner"] < 0.5))
    points = np.array(list(_LANDMARK_POINTS.values()))
    distance = np.linalg.norm(model.rest[front][None] - points[:, None], axis=-1)
    vertices = front[distance.argmin(axis=1)]
    result = []
    for row in _coefficient_rows(coefficients):
        moved = scene.deform(who, row)
        pupils = [moved[a : a + part.EYE_SEGMENTS].mean(axis=0) for a, _ in model.eyes]
        result.append(np.concatenate([moved[vertices], np.stack(pupils)]))
    return np.stack(result).astype(np.float32)
