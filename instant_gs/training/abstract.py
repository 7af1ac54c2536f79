"""Shapes of what a step takes, with their places on the devices: enough to lower it."""

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import parallel, state


def train_state(model: AvatarModel, config: Config, mesh) -> state.TrainState:
    """The state as shapes; nothing is computed."""
    shapes = jax.eval_shape(lambda: state.create(model, config))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        parallel.shardings(shapes, mesh),
    )


def batch(config: Config, mesh) -> types.Batch:
    """All samples of a step as shapes."""
    count, driven, size = (
        config.data.batch_size,
        config.data.driven_per_sample,
        config.model.image_size,
    )
    place = parallel.samples(mesh)

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def view(*lead):
        return types.View(
            image=array((*lead, size, size, 3), jnp.uint8),
            alpha=array((*lead, size, size), jnp.uint8),
            regions=array((*lead, size, size), jnp.uint8),
            cam2world=array((*lead, 4, 4), jnp.float32),
            intrinsics=array((*lead, 3, 3), jnp.float32),
            coefficients=array((*lead, 52), jnp.float32),
        )

    return types.Batch(view(count), view(count), view(count, driven), view(count, driven))
