"""Pictures of a run: what went in, what came out, what should have, and what the motion did."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import rendering, types
from instant_gs.config import Config
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import AvatarModel
from instant_gs.training import objective

ROWS = 8  # identities shown
YAW_DEGREES = 25.0  # of the side views, either way
COLUMNS = (
    "source",
    "driver",
    "result",
    "truth",
    "error x 3",
    "no motion",
    "residual",
    "from its right",
    "from its left",
)


def make(model: AvatarModel, config: Config):
    """Builds ``draw(params, batch) -> (picture, scores)``: one row a sample, its first target.

    The picture is (H, W, 3) uint8. The scores are "psnr" and "l1" of the results shown, means over
    them.

    Columns are ``COLUMNS``. "error" is absolute, between result and truth; "no motion" has the
    residual switched off; "residual" paints each Gaussian with the length of its residual, the
    longest white.
    """

    @jax.jit
    def columns(params, batch: types.Batch):
        posed = objective.animated_and_rest(model, params, batch, None, config)
        gaussians, residuals = posed.gaussians, posed.residuals
        target = jax.tree.map(lambda a: a[:, 0], batch.driven)
        size = target.image.shape[1:3]
        rest, moved = (jax.tree.map(lambda a, i=i: a[:, i], gaussians) for i in (0, 1))
        shown = (moved, rest, _painted(moved, residuals[:, 0]), moved, moved)
        ahead = types.Camera(target.cam2world, target.intrinsics)
        sides = [_side(ahead, yaw) for yaw in (-YAW_DEGREES, YAW_DEGREES)]
        cameras, options = _stack((ahead, ahead, ahead, *sides)), model.raster_options(size[0])
        images = rendering.render(_stack(shown), cameras, image_size=size, options=options).image
        truth = objective.unit(target.image)
        result, still, residual, right, left = jnp.moveaxis(images, 1, 0)
        return jnp.stack(
            [
                objective.unit(batch.source.image),
                objective.unit(batch.driver.image[:, 0]),
                result,
                truth,
                3 * jnp.abs(result - truth),
                still,
                residual,
                right,
                left,
            ],
            1,
        )

    def draw(params, batch: types.Batch) -> tuple[np.ndarray, dict[str, float]]:
        batch = jax.tree.map(lambda a: a[:ROWS], batch)
        grid = np.asarray(columns(params, batch))
        scores = _scores(*(grid[:, COLUMNS.index(name)] for name in ("result", "truth")))
        rows, count, height, width, _ = grid.shape
        grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, count * width, 3)
        return (np.clip(grid, 0, 1) * 255 + 0.5).astype(np.uint8), scores

    return draw


def _scores(result: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR and L1 of pictures (B, H, W, 3), as ``objective`` computes them for its metrics."""
    error = np.mean((np.clip(result, 0, 1) - truth) ** 2, (1, 2, 3))
    psnr = -10 * np.log10(np.maximum(error, 1e-10))
    return {"psnr": float(psnr.mean()), "l1": float(np.abs(result - truth).mean())}


def _stack(trees):
    """Trees of arrays (B, …) to one of arrays (B, K, …)."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays, 1), *trees)


def _painted(gaussians: types.Gaussians, residual) -> types.Gaussians:
    """The same Gaussians (B, N, ·) in grey: lengths of residuals (B, N, F), the longest white."""
    length = jnp.linalg.norm(residual, axis=-1, keepdims=True)
    grey = length / jnp.maximum(length.max(1, keepdims=True), 1e-12)
    return types.Gaussians(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        jnp.broadcast_to(grey, gaussians.colors.shape),
    )


def _side(camera: types.Camera, yaw_degrees: float) -> types.Camera:
    """The reference camera turned to a side, with the intrinsics of ``camera`` (B,)."""
    pose = camera_lib.look_at(np.deg2rad(yaw_degrees), 0.0).astype(np.float32)
    return types.Camera(
        jnp.broadcast_to(jnp.asarray(pose), camera.cam2world.shape), camera.intrinsics
    )
