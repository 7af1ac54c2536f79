"""Pictures of a run: source, driver, result, without motion, truth, error."""

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs import rendering, types
from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import objective

ROWS = 8  # identities shown


def make(model: AvatarModel, config: Config):
    """Builds ``draw(params, batch) -> (H, W, 3) uint8``, one row a sample, its first target.

    Columns: source photo, driving image, animated, at rest (the residual switched off), truth,
    absolute error times three.
    """

    @jax.jit
    def columns(params, batch: types.Batch):
        gaussians, _ = objective.animated_and_rest(model, params, batch, None, config)
        target = jax.tree.map(lambda a: a[:, 0], batch.driven)
        camera = types.Camera(target.cam2world, target.intrinsics)
        size = target.image.shape[1:3]
        rest, moved = (
            rendering.render(
                jax.tree.map(lambda a, index=index: a[:, index], gaussians), camera, image_size=size
            ).image
            for index in (0, 1)
        )
        truth = objective.unit(target.image)
        shown = [
            objective.unit(batch.source.image),
            objective.unit(batch.driver.image[:, 0]),
            moved,
            rest,
            truth,
            3 * jnp.abs(moved - truth),
        ]
        return jnp.stack(shown, 1)

    def draw(params, batch: types.Batch) -> np.ndarray:
        batch = jax.tree.map(lambda a: a[:ROWS], batch)
        grid = np.asarray(columns(params, batch))
        rows, count, height, width, _ = grid.shape
        grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, count * width, 3)
        return (np.clip(grid, 0, 1) * 255 + 0.5).astype(np.uint8)

    return draw
