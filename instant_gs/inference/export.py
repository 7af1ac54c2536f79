"""A frame of an avatar as a ``.ply`` that splat viewers open.

The layout is that of Kerbl et al., "3D Gaussian Splatting" (2023), of spherical harmonics of degree
0: binary little endian, float32 ``x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3`` with logit
opacities, log standard deviations and wxyz quaternions. Colours do not depend on the view, so there
is no ``f_rest_*``: 45 zeros would make the file 3.6 times as large. Viewers do without; Kerbl's own
programs expect them unless ``sh_degree`` is 0. Viewers expect the camera axes of their training
tools (y down), so the head, whose world is y up, is turned half about x on the way out.

Viewers widen Gaussians by a filter of about half a pixel of their own pictures, a model by one of
its own, larger ones: that is put into the scales (``rendering.filter_width``).
"""

import os

import numpy as np

from instant_gs import cli, output, types

#: Zeroth spherical harmonic, 1 / (2 sqrt(pi)): viewers show 0.5 + SH_C0 * f_dc.
SH_C0 = 0.28209479177387814

#: What adds less than one 8-bit step to any pixel is left out; so does the rasterizer.
MIN_OPACITY = 1 / 255

#: Opacity 1 has no finite logit.
MAX_OPACITY = 1 - 1e-6

#: World units; log(0) is not finite either.
MIN_SCALE = 1e-7

PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_ply(
    path: str | os.PathLike,
    gaussians: types.Gaussians,
    *,
    filter_width: float,
    overwrite: bool = False,
) -> int:
    """Writes the visible Gaussians of one frame.

    Args:
        path: Ends in .ply.
        gaussians: Arrays (N, ·) without batch axes.
        filter_width: Added to the scales, as variances: ``model.filter_width`` of the model that
            made them; 0 writes the scales as they are.
        overwrite: Whether an existing file may be replaced.

    Returns:
        How many Gaussians were written: those whose opacity is above ``MIN_OPACITY``.

    Raises:
        cli.UserError: The name does not end in .ply, or the file exists.
        ValueError: There is a batch axis, or not one Gaussian is visible.
    """
    if os.path.splitext(path)[1].lower() != ".ply":
        raise cli.UserError(f"{path}: the name of the splat file must end in .ply")
    means, quats, scales, opacities, colors = (
        np.asarray(getattr(gaussians, name), np.float32)
        for name in ("means", "quats", "scales", "opacities", "colors")
    )
    if means.ndim != 2:
        raise ValueError(
            f"gaussians.means: expected shape (N, 3), got {means.shape}; export one frame"
        )
    seen = opacities > MIN_OPACITY
    if not seen.any():
        raise ValueError(
            "gaussians.opacities: expected some above 1/255, got none; the model was not trained"
        )
    quats = quats[seen] / np.maximum(np.linalg.norm(quats[seen], axis=-1, keepdims=True), 1e-12)
    opacity = np.clip(opacities[seen], MIN_OPACITY, MAX_OPACITY)
    rows = np.concatenate(
        [
            means[seen] * np.array([1, -1, -1], np.float32),
            np.zeros((int(seen.sum()), 3), np.float32),
            (colors[seen] - 0.5) / SH_C0,
            np.log(opacity / (1 - opacity))[:, None],
            np.log(np.maximum(np.hypot(scales[seen], np.float32(filter_width)), MIN_SCALE)),
            _half_turn(quats),
        ],
        axis=-1,
    )
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"element vertex {len(rows)}",
            *(f"property float {name}" for name in PROPERTIES),
            "end_header\n",
        ]
    )
    with output.whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(header.encode("ascii") + rows.astype("<f4").tobytes())
    return len(rows)


def _half_turn(quats: np.ndarray) -> np.ndarray:
    """Left product with (0, 1, 0, 0): the rotation by 180 degrees about x; twice is -1."""
    w, x, y, z = np.moveaxis(quats, -1, 0)
    return np.stack([-x, w, -z, y], axis=-1)
