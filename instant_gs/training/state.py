"""What training carries from step to step."""

import dataclasses
import math
import operator
import shlex

import jax
import jax.numpy as jnp

from instant_gs import types
from instant_gs.config import Config, ModelConfig
from instant_gs.models import AvatarModel
from instant_gs.training import objective, optimizer


@types.pytree
class TrainState:
    """Everything a checkpoint needs besides the data iterator and the configuration.

    Attributes:
        step: () int32, steps taken in both phases together.
        params: The parameters being optimized.
        ema: Their exponential moving average: what evaluation and release use.
        optimizers: Optax states, "motion", "avatar" and, if there is one, "discriminator".
        bad_step: () int32, the first step whose loss or gradient was not finite, or -1. Such a
            step changes no parameter.
        discriminator: Its parameters; empty without an adversarial loss. It is never averaged and
            never released.
    """

    step: types.Array
    params: types.Array
    ema: types.Array
    optimizers: types.Array
    bad_step: types.Array
    discriminator: types.Array = dataclasses.field(default_factory=dict)


def create(model: AvatarModel, config: Config) -> TrainState:
    """A fresh state, a function of ``config.seed`` alone."""
    key = jax.random.key(config.seed)
    params, critic = model.init(key), {}
    if config.loss.adversarial:
        critic = objective.make_discriminator(config).init(jax.random.fold_in(key, 1))
    optimizers = {
        name: transform.init(critic if name == "discriminator" else params)
        for name, transform in optimizer.build(config).items()
    }
    return TrainState(
        step=jnp.int32(0),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        optimizers=optimizers,
        bad_step=jnp.int32(-1),
        discriminator=critic,
    )


#: Fields of ``config.model`` that no shape tells apart, and with which parameters mean other heads.
HEAD_MEANING = (
    "fov_degrees",
    "raster_mode",
    "encoder.aspp_rates",
    "encoder.low_heads",
    "encoder.plane_heads",
    "encoder.looks",
    "gaussians.instantiation",
    "gaussians.position",
    "gaussians.max_offset",
    "gaussians.max_scale",
    "motion.residual_space",
    "motion.residual_scale",
)

#: Those with which a motion encoder's mean other codes.
READER_MEANING = ("motion.crop", "motion.image_size")  # several sizes halve to one


def check_same_meaning(
    made: ModelConfig,
    ours: ModelConfig,
    origin: str,
    names: tuple[str, ...] = HEAD_MEANING + READER_MEANING,
) -> None:
    """Refuses parameters that would fit and show something else.

    Args:
        made: The configuration that the parameters were made with.
        ours: That of the run that is to start from them.
        origin: The option that names where they come from, for the error.
        names: The fields that matter.

    Raises:
        ValueError: Names the first field that differs and the flag that mends it.
    """
    for name in names:
        read = operator.attrgetter(name)
        wanted, fix = read(made), ""
        maps = [c.gaussians.grid for c in (made, ours) if c.gaussians.instantiation == "plane"]
        if name == "gaussians.max_scale" and len(set(maps)) == 2:
            # A Gaussian may span as many cells as before: on a finer map it is smaller.
            scaled = wanted * made.gaussians.grid / ours.gaussians.grid
            if math.isclose(read(ours), scaled, rel_tol=1e-5):
                continue
            fix = f", or {scaled:.6g} for as many cells of the map as before"
        if wanted != read(ours):
            raise ValueError(
                f"{origin}: made with model.{name}={wanted}, and this configuration says "
                f"{read(ours)}; set --config.model.{name}={shlex.quote(str(wanted))}{fix}"
            )


def start_from(fresh: TrainState, params: dict) -> TrainState:
    """A fresh state with other parameters."""
    return dataclasses.replace(fresh, params=params, ema=jax.tree.map(jnp.copy, params))
