"""One jitted training step a phase."""

import jax
import jax.numpy as jnp
import optax

from instant_gs.config import Config
from instant_gs.losses import lpips as lpips_lib
from instant_gs.models import AvatarModel
from instant_gs.training import objective, optimizer, parallel
from instant_gs.training.state import TrainState

PHASES = ("motion", "avatar")


def phase_of(step: int, config: Config) -> str:
    """ "motion" for the first ``motion_pretrain.steps`` steps, then "avatar"."""
    return "motion" if step < config.motion_pretrain.steps else "avatar"


def make(model: AvatarModel, config: Config, phase: str, mesh: jax.sharding.Mesh):
    """Builds ``step(state, batch) -> (state, metrics)``, jitted, ``state`` donated.

    The state lies where ``parallel.place`` puts it and the batch is split among all devices. The
    random keys of a step are a function of ``config.seed`` and the step alone, so that a resumed
    run repeats what an undisturbed one would have drawn. A step whose loss or gradient is not
    finite changes no parameter and is recorded in ``state.bad_step``.
    """
    transform = optimizer.build(config)[phase]
    if phase == "motion":

        def loss_fn(params, batch, keys):
            return objective.motion_objective(model, config, params, batch, keys)
    else:
        perceptual = lpips_lib.Lpips(config.loss.lpips_network) if config.loss.lpips else None

        def loss_fn(params, batch, keys):
            return objective.avatar_objective(model, config, perceptual, params, batch, keys)

    gradient = parallel.mean_gradient(loss_fn, mesh, config.train.accumulate)

    def step(state: TrainState, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        keys = parallel.sample_keys(key, config.data.batch_size)
        grads, metrics = gradient(state.params, batch, keys)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        updates, opt_state = transform.update(grads, state.optimizers[phase], state.params)
        params = optax.apply_updates(state.params, updates)
        # Early on a long memory would remember the initialisation.
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + count) / (10 + count))
        ema = optax.incremental_update(params, state.ema, 1 - decay)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        bad = jnp.where((state.bad_step < 0) & ~finite, state.step, state.bad_step)
        state = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            ema=keep(ema, state.ema),
            optimizers=state.optimizers | {phase: keep(opt_state, state.optimizers[phase])},
            bad_step=bad,
        )
        norms = {f"gradient_norm/{name}": optax.tree.norm(part) for name, part in grads.items()}
        return parallel.stay(state, mesh), metrics | {"gradient_norm": norm} | norms

    return jax.jit(step, donate_argnums=0)
