"""What training carries from step to step."""

import dataclasses

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import optimizer


@types.pytree
class TrainState:
    """Everything a checkpoint needs besides the data iterator and the configuration.

    Attributes:
        step: () int32, steps taken in both phases together.
        params: The parameters being optimized.
        ema: Their exponential moving average: what evaluation and release use.
        optimizers: Optax states by phase, "motion" and "avatar".
        bad_step: () int32, the first step whose loss or gradient was not finite, or -1. Such a
            step changes no parameter.
    """

    step: types.Array
    params: types.Array
    ema: types.Array
    optimizers: types.Array
    bad_step: types.Array


def create(model: AvatarModel, config: Config) -> TrainState:
    """A fresh state, a function of ``config.seed`` alone."""
    params = model.init(jax.random.key(config.seed))
    optimizers = {
        phase: transform.init(params) for phase, transform in optimizer.build(config).items()
    }
    return TrainState(
        step=jnp.int32(0),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        optimizers=optimizers,
        bad_step=jnp.int32(-1),
    )


def start_from(fresh: TrainState, params: dict, origin: str) -> TrainState:
    """A fresh state with other parameters.

    Args:
        fresh: Says which parameters the model has.
        params: The parameters to begin with.
        origin: The option that names where they come from, for the error.

    Raises:
        ValueError: Names or shapes differ.
    """

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}

    want, have = shapes(fresh.params), shapes(params)
    differing = sorted(name for name in want | have if want.get(name) != have.get(name))
    if differing:
        raise ValueError(
            f"{origin}: {len(differing)} parameters differ in name or shape from this "
            f"configuration's model, first {differing[0]}; use the configuration it was made with"
        )
    return dataclasses.replace(fresh, params=params, ema=jax.tree.map(jnp.copy, params))
