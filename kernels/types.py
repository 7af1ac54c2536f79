"""Public types of the rasterizer: frozen static options and output pytrees."""

import dataclasses
from typing import Any, NamedTuple, Self

import jax
from jax import export

MODES = ("classic", "antialiased")
ON_OVERFLOW = ("raise", "count")

# Conventions that differ between renderers; everything else is common to them.
PRESETS: dict[str, dict[str, Any]] = {
    "gsplat-1.5": {"max_alpha": 0.999, "min_compensation": 0.0},
    "gsplat-1.6": {"max_alpha": 0.99, "min_compensation": 0.0},
    "inria": {"max_alpha": 0.99, "min_compensation": 0.005},
}


@dataclasses.dataclass(frozen=True)
class RasterizeOptions:
    """Static options of `kernels.rasterize`; hashable, so a jit argument marked static.

    Attributes:
        mode: "classic", or "antialiased": opacity is multiplied by sqrt(det(cov) / det(cov + eps2d
            I)), which keeps a splat's total energy when it is smaller than a pixel (Mip-Splatting).
        max_alpha: upper bound of a single splat's alpha, in [1/255, 1).
        min_compensation: lower bound of the antialiasing factor, in [0, 1].
        eps2d: low-pass filter added to the diagonal of the projected covariance, pixels squared.
        near: splats with camera depth below this are dropped, world units, positive.
        far: splats with camera depth above this are dropped, world units.
        radius_clip: splats with a half extent of at most this both ways are dropped, pixels.
        capacity: tile intersections kept per image; None picks a default from the number of splats
            and the image size that holds splats of few tiles, and not, say, a few thousand that
            fill a picture. See `kernels.propose_capacity`.
        expected_depth: return depth divided by alpha instead of accumulated depth.
        deterministic: gradients are bit-identical from run to run, at some cost on GPUs.
        tile_size: (height, width) of a tile in pixels, or None for the backend's choice. Never
            changes the image beyond rounding.
        on_overflow: outside jit and vmap, "raise" raises OverflowError when intersections were
            dropped; "count" only counts them in `stats.overflow`, which is all that can be done
            inside.
    """

    mode: str = "classic"
    max_alpha: float = 0.999
    min_compensation: float = 0.0
    eps2d: float = 0.3
    near: float = 0.01
    far: float = 1e10
    radius_clip: float = 0.0
    capacity: int | None = None
    expected_depth: bool = False
    deterministic: bool = False
    tile_size: tuple[int, int] | None = None
    on_overflow: str = "raise"

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Returns the options of a renderer's convention.

        Args:
            name: "gsplat-1.5" (the default of this package), "gsplat-1.6" or "inria".
            **overrides: any option, applied on top.

        Raises:
            ValueError: the preset is unknown.
        """
        if name not in PRESETS:
            raise ValueError(f"preset: expected one of {sorted(PRESETS)}, got {name!r}")
        return cls(**{**PRESETS[name], **overrides})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RasterizeStats:
    """What the rasterizer did; log these in training.

    Attributes:
        num_intersections: splat-tile intersections found in each image, (..., C) int32.
        capacity: intersections that each image could keep, (..., C) int32.
        overflow: intersections dropped, farthest first, (..., C) int32; 0 means the image is exact.
    """

    num_intersections: jax.Array
    capacity: jax.Array
    overflow: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RasterizeOutput:
    """The rendered images.

    Attributes:
        image: blended features over the background, (..., C, H, W, D).
        alpha: 1 - remaining transmittance, (..., C, H, W), in [0, 1).
        depth: camera depth accumulated with the blending weights, or with `expected_depth` divided
            by alpha (0 where nothing was hit), (..., C, H, W), world units.
        stats: RasterizeStats.
    """

    image: jax.Array
    alpha: jax.Array
    depth: jax.Array
    stats: RasterizeStats


@dataclasses.dataclass(frozen=True)
class RasterizeConfig:
    """Everything static that a backend needs: the options and what the shapes decided.

    Attributes:
        options: RasterizeOptions.
        height: image height, pixels.
        width: image width, pixels.
        capacity: intersections kept per image, resolved from the options.
    """

    options: RasterizeOptions
    height: int
    width: int
    capacity: int


class Operands(NamedTuple):
    """Arrays of the differentiable core, as every backend receives them.

    Gaussian arrays lead with L rows and cameras with S scenes of C cameras; scene s uses row s % L
    of each Gaussian array (each has its own L, which divides S), so shared arrays are never copied.

    Attributes:
        means: (L, N, 3).
        quats: (L, N, 4).
        scales: (L, N, 3).
        opacities: (L, N).
        features: (L, N, D).
        viewmats: (S, C, 4, 4).
        intrinsics: (S, C, 3, 3).
    """

    means: jax.Array
    quats: jax.Array
    scales: jax.Array
    opacities: jax.Array
    features: jax.Array
    viewmats: jax.Array
    intrinsics: jax.Array


for _type in (RasterizeStats, RasterizeOutput):  # so that an exported program can be kept
    export.register_pytree_node_serialization(
        _type,
        serialized_name=f"kernels.{_type.__name__}",
        serialize_auxdata=lambda fields: b"",
        deserialize_auxdata=lambda data: (),
    )


class CoreOutput(NamedTuple):
    """What a backend renders; background, alpha and expected depth are added outside.

    Attributes:
        image: blended features over black, (S, C, H, W, D).
        transmittance: final transmittance, 1 - alpha, (S, C, H, W).
        depth: accumulated depth, (S, C, H, W).
        num_intersections: (S, C) int32.
    """

    image: jax.Array
    transmittance: jax.Array
    depth: jax.Array
    num_intersections: jax.Array
