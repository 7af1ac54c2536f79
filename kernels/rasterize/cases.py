"""The rasterizer's scenes: named real workloads, and random ones for tests, benchmarks and tuning.

Every scene is made from a seed: nothing is downloaded, and a name always means the same numbers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kernels.types import Operands

# The array arguments of `kernels.rasterize`, in order.
ARGUMENTS = (*Operands._fields, "background")

# Half the field of view is 0.393 at distance 2.7: the wide camera of the avatar system.
_HEAD_FOCAL = 3.43311
_HEAD_DISTANCE = 2.7


@dataclasses.dataclass(frozen=True)
class Case:
    """One workload.

    Attributes:
        name: how it is asked for.
        kind: "head" (splats on a head-sized ellipsoid, wide camera), "cloud" (a box of splats
            about two pixels wide that fills the image) or "small" (a head-sized cloud of splats,
            1.5 pixels wide if 200,000 at 512 x 512; square images).
        num_splats: N.
        image_size: (height, width), pixels.
        batch: scenes rendered at once through vmap.
        channels: D.
        cameras: C of each scene.
    """

    name: str
    kind: str
    num_splats: int
    image_size: tuple[int, int]
    batch: int = 1
    channels: int = 3
    cameras: int = 1

    def build(self, seed: int = 0) -> Operands:
        """Arguments of `kernels.rasterize`, NumPy float32, each with a leading batch axis."""
        rng = np.random.default_rng(seed)
        scenes = [_SCENES[self.kind](self, rng) for _ in range(self.batch)]
        stacked = (np.stack(arrays) for arrays in zip(*scenes, strict=True))
        return Operands(*(array.astype(np.float32) for array in stacked))


def _appearance(case: Case, rng: np.random.Generator, mean_logit: float) -> tuple:
    opacities = 1.0 / (1.0 + np.exp(-rng.normal(mean_logit, 1.5, case.num_splats)))
    return opacities, rng.random((case.num_splats, case.channels))


def _intrinsics(case: Case, focal: float) -> np.ndarray:
    height, width = case.image_size
    return np.stack([pinhole((focal, focal), (width / 2, height / 2))] * case.cameras)


def _head(case: Case, rng: np.random.Generator) -> tuple:
    """Splats on the surface of a head-sized ellipsoid, about as wide as their distance."""
    n = case.num_splats
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    means = directions * np.array([0.25, 0.33, 0.28])
    spacing = np.sqrt(4 * np.pi * 0.28**2 / n)
    scales = np.exp(rng.normal(np.log(0.6 * spacing), 0.4, (n, 3)))
    yaws = np.linspace(-0.4, 0.4, case.cameras) if case.cameras > 1 else [0.0]
    viewmats = np.diag([1.0, -1.0, -1.0, 1.0]) @ turned_views(yaws, -_HEAD_DISTANCE)
    focal = _HEAD_FOCAL * min(case.image_size)
    opacities, features = _appearance(case, rng, 0.0)
    quats = rng.normal(size=(n, 4))
    return means, quats, scales, opacities, features, viewmats, _intrinsics(case, focal)


def _cloud(case: Case, rng: np.random.Generator) -> tuple:
    """A box of small splats that fills the image, seen from its front."""
    n, focal, distance = case.num_splats, 1.2 * min(case.image_size), 3.0
    means = rng.uniform(-1, 1, (n, 3)) * np.array([1.0, 1.0, 0.5])
    scales = np.exp(rng.normal(np.log(0.7 * distance / focal), 0.3, (n, 3)))
    viewmats = np.tile(np.eye(4), (case.cameras, 1, 1))
    viewmats[:, 2, 3] = distance
    viewmats[:, 0, 3] = np.linspace(0, 0.2, case.cameras)
    opacities, features = _appearance(case, rng, -0.5)
    quats = rng.normal(size=(n, 4))
    return means, quats, scales, opacities, features, viewmats, _intrinsics(case, focal)


def _small(case: Case, rng: np.random.Generator) -> tuple:
    """A head-sized cloud of small splats."""
    n, size = case.num_splats, case.image_size[0]
    extent = 0.35 * (20_000 / n) ** 0.5 * 0.02
    return (
        rng.normal(0, 0.15, (n, 3)),
        rng.normal(size=(n, 4)),
        extent * np.exp(rng.normal(0, 0.4, (n, 3))),
        rng.uniform(0.1, 0.95, n),
        rng.uniform(size=(n, case.channels)),
        turned_views(0.1 * np.arange(case.cameras), _HEAD_DISTANCE),
        _intrinsics(case, 3.43 * size),
    )


_SCENES = {"head": _head, "cloud": _cloud, "small": _small}

_NAMED = (
    Case("tiny", "head", 256, (32, 32)),
    Case("demo_96", "head", 9216, (96, 96), batch=16),
    Case("demo_128", "head", 9216, (128, 128), batch=8),
    Case("views_8", "head", 16384, (128, 128), cameras=8),
    Case("head_512", "head", 262_144, (512, 512)),
    Case("features_32", "head", 16384, (128, 128), channels=32),
    Case("small_200k", "cloud", 200_000, (512, 512)),
    Case("target_200k", "small", 200_000, (512, 512)),  # what speed is stated for
)
# Growth with one size while the other stays.
_SPLAT_SWEEP = tuple(
    Case(f"splats_{n}", "cloud", n, (512, 512)) for n in (12_500, 25_000, 50_000, 100_000, 200_000)
)
_PIXEL_SWEEP = tuple(
    Case(f"pixels_{side}", "cloud", 100_000, (side, side)) for side in (128, 256, 362, 512, 724)
)
CASES: dict[str, Case] = {case.name: case for case in _NAMED + _SPLAT_SWEEP + _PIXEL_SWEEP}
SWEEPS: dict[str, tuple[str, ...]] = {
    "splats": tuple(case.name for case in _SPLAT_SWEEP),
    "pixels": tuple(case.name for case in _PIXEL_SWEEP),
}


# --- random scenes -------------------------------------------------------------------------------


def turned_views(angles: Sequence[float], distance: float) -> np.ndarray:
    """(C, 4, 4) world to camera: `distance` from the origin, turned by an angle (rad) about y."""
    turns = [(np.cos(angle), np.sin(angle)) for angle in angles]
    return np.array(
        [[[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, distance], [0, 0, 0, 1.0]] for c, s in turns]
    )


def pinhole(focal: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """(3, 3) intrinsics from focal lengths and principal point (x, y), pixels."""
    return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])


def random_scene(
    seed: int,
    viewmats: np.ndarray,
    intrinsics: np.ndarray,
    *,
    splats: int,
    channels: int = 3,
    box: tuple[float, float, float] | None = None,
    log_scale: tuple[float, float] = (-3.5, -1.3),
    opacity: tuple[float, float] = (0.05, 0.95),
) -> dict[str, np.ndarray]:
    """Random splats around the origin, seen by the cameras given.

    Args:
        seed: decides all random numbers.
        viewmats: (C, 4, 4) world to camera.
        intrinsics: (3, 3) pixels, of all cameras.
        splats: N.
        channels: D.
        box: half sides of a box that holds the centres evenly; None scatters them normally.
        log_scale: range of the logarithm of standard deviations, world units.
        opacity: range of the opacities.

    Returns:
        Float64 arrays by name, the arguments of `kernels.rasterize` in order.
    """
    rng = np.random.default_rng(seed)
    if box is None:
        means = rng.normal(0, 0.7, (splats, 3))
    else:
        means = rng.uniform(-1, 1, (splats, 3)) * np.array([box])
    arrays = (
        means,
        rng.normal(size=(splats, 4)),
        np.exp(rng.uniform(*log_scale, (splats, 3))),
        rng.uniform(*opacity, splats),
        rng.uniform(size=(splats, channels)),
        viewmats,
        np.stack([intrinsics] * len(viewmats)),
        rng.uniform(size=(len(viewmats), channels)),
    )
    return dict(zip(ARGUMENTS, arrays, strict=True))
