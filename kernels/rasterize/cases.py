"""Named real workloads of the rasterizer, for benchmarks, tuning and tests.

Every scene is made from a seed: nothing is downloaded, and a name always means the same numbers.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

# Half the field of view is 0.393 at distance 2.7: the wide camera of the avatar system.
_HEAD_FOCAL = 3.43311
_HEAD_DISTANCE = 2.7


class Scene(NamedTuple):
    """Arguments of `kernels.rasterize` in order, float32, with a leading batch axis B."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    features: np.ndarray
    viewmats: np.ndarray
    intrinsics: np.ndarray


@dataclasses.dataclass(frozen=True)
class Case:
    """One workload.

    Attributes:
        name: how it is asked for.
        purpose: what it stands for.
        kind: "head" (splats on a head-sized ellipsoid, wide camera) or "cloud" (a box of splats
            about two pixels wide that fills the image).
        num_splats: N.
        image_size: (height, width), pixels.
        batch: scenes rendered at once through vmap.
        channels: D.
        cameras: C of each scene.
    """

    name: str
    purpose: str
    kind: str
    num_splats: int
    image_size: tuple[int, int]
    batch: int = 1
    channels: int = 3
    cameras: int = 1

    def build(self, seed: int = 0) -> Scene:
        """Makes the scene."""
        rng = np.random.default_rng(seed)
        scenes = [_SCENES[self.kind](self, rng) for _ in range(self.batch)]
        return Scene(*(np.stack(arrays).astype(np.float32) for arrays in zip(*scenes, strict=True)))


def _appearance(case: Case, rng: np.random.Generator, mean_logit: float) -> tuple:
    opacities = 1.0 / (1.0 + np.exp(-rng.normal(mean_logit, 1.5, case.num_splats)))
    return opacities, rng.random((case.num_splats, case.channels))


def _intrinsics(case: Case, focal: float) -> np.ndarray:
    height, width = case.image_size
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return np.tile(matrix, (case.cameras, 1, 1))


def _head(case: Case, rng: np.random.Generator) -> tuple:
    """Splats on the surface of a head-sized ellipsoid, about as wide as their distance."""
    n = case.num_splats
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    means = directions * np.array([0.25, 0.33, 0.28])
    spacing = np.sqrt(4 * np.pi * 0.28**2 / n)
    scales = np.exp(rng.normal(np.log(0.6 * spacing), 0.4, (n, 3)))
    viewmats = np.zeros((case.cameras, 4, 4))
    for index, yaw in enumerate(np.linspace(-0.4, 0.4, case.cameras) if case.cameras > 1 else [0]):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        viewmats[index, :3, :3] = np.diag([1.0, -1.0, -1.0]) @ turn
        viewmats[index, :3, 3] = [0, 0, _HEAD_DISTANCE]
        viewmats[index, 3, 3] = 1
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


_SCENES = {"head": _head, "cloud": _cloud}

_NAMED = (
    Case("tiny", "smoke test", "head", 256, (32, 32)),
    Case("demo_96", "training step of the demo config", "head", 4096, (96, 96), batch=16),
    Case("demo_128", "training step at the next size", "head", 9216, (128, 128), batch=8),
    Case("views_8", "one head from 8 cameras", "head", 16384, (128, 128), cameras=8),
    Case("head_512", "a full-size avatar frame", "head", 262_144, (512, 512)),
    Case("features_32", "feature splatting, 32 channels", "head", 16384, (128, 128), channels=32),
    Case("small_200k", "200,000 small splats at 512x512", "cloud", 200_000, (512, 512)),
)
# Growth with one size while the other stays.
_SPLAT_SWEEP = tuple(
    Case(f"splats_{n}", "growth with splats", "cloud", n, (512, 512))
    for n in (12_500, 25_000, 50_000, 100_000, 200_000)
)
_PIXEL_SWEEP = tuple(
    Case(f"pixels_{side}", "growth with pixels", "cloud", 100_000, (side, side))
    for side in (128, 256, 362, 512, 724)
)
CASES: dict[str, Case] = {case.name: case for case in _NAMED + _SPLAT_SWEEP + _PIXEL_SWEEP}
SWEEPS: dict[str, tuple[str, ...]] = {
    "splats": tuple(case.name for case in _SPLAT_SWEEP),
    "pixels": tuple(case.name for case in _PIXEL_SWEEP),
}
