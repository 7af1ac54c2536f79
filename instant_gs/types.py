"""The pytrees that travel between packages.

Every class is a frozen dataclass registered with JAX; any array may carry leading batch axes
(written ``…``). Shapes are stated beside each field.
"""

import dataclasses
from typing import Any

import jax

Array = Any  # jax.Array or numpy.ndarray: the pipeline yields numpy, jitted code sees jax


def pytree(cls):
    """Makes ``cls`` a frozen dataclass whose fields are all pytree leaves or subtrees."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=[])


@pytree
class Camera:
    """A pinhole camera.

    Attributes:
        cam2world: (…, 4, 4) camera to world, OpenCV axes (x right, y down, z forward).
        intrinsics: (…, 3, 3) normalised by the image size: focal 1 spans one image width.
    """

    cam2world: Array
    intrinsics: Array


@pytree
class Gaussians:
    """N anisotropic 3D Gaussians in world space.

    Attributes:
        means: (…, N, 3) centres, world units.
        quats: (…, N, 4) rotations, wxyz; normalised by whoever uses them.
        scales: (…, N, 3) standard deviations along the rotated axes, world units.
        opacities: (…, N) in [0, 1]; a Gaussian of opacity 0 contributes exactly nothing.
        colors: (…, N, 3) RGB, about [0, 1] (the reference decoder allows [-0.001, 1.001]).
    """

    means: Array
    quats: Array
    scales: Array
    opacities: Array
    colors: Array


@pytree
class Avatar:
    """One photo, encoded: what animation needs and nothing else.

    Attributes:
        features: (…, N, F) appearance and geometry features, one row a Gaussian.
        motion_basis: (…, N, F) motion features of the same Gaussians.
        anchors: (…, N, 3) resting centres; zeros when positions are absolute.
        keep: (…, N) bool; a Gaussian that is not kept has opacity 0 in every frame.
        widths: (…, N) factors on the scales, or None: all 1 (``inference.level_of_detail``).
    """

    features: Array
    motion_basis: Array
    anchors: Array
    keep: Array
    widths: Array | None = None


@pytree
class Motion:
    """All that moves an avatar in one frame: 2F numbers (96 as released).

    They modulate the normalised motion basis (AdaLN). Both are linear in [source code, driving
    code], so they are the photo's part, ``motion(source, 0)``, plus the driver's part,
    ``motion(0, driving)``, and may be blended, smoothed and edited like any vectors. The driver's
    part knows no photo: that is what is recorded, and replays on any avatar of the same weights.

    Attributes:
        scale: (…, F) factors.
        shift: (…, F) offsets.
    """

    scale: Array
    shift: Array


@pytree
class View:
    """Frames as a teacher pack stores them.

    Attributes:
        image: (…, H, W, 3) uint8 RGB over black.
        alpha: (…, H, W) uint8 coverage.
        regions: (…, H, W) uint8 labels, indices into ``data.format.REGIONS``.
        cam2world: (…, 4, 4) float32.
        intrinsics: (…, 3, 3) float32, normalised.
        coefficients: (…, 52) float32 in [0, 1], order ``data.format.COEFFICIENT_NAMES``.
    """

    image: Array
    alpha: Array
    regions: Array
    cam2world: Array
    intrinsics: Array
    coefficients: Array


@pytree
class Batch:
    """What one training step reads: B identities, D driven targets each.

    Attributes:
        source: View, leading axis (B,).
        reconstruction: View (B,): the source expression from another viewpoint.
        driven: View (B, D): the targets, other expressions of the same identity.
        driver: View (B, D): images that perform the targets' expressions, from other
            viewpoints, of the same or of another identity.
    """

    source: View
    reconstruction: View
    driven: View
    driver: View
