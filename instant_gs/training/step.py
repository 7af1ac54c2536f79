"""One jitted training step a phase."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from instant_gs.config import Config
from instant_gs.models import AvatarModel
from instant_gs.training import curriculum, objective, optimizer, parallel
from instant_gs.training.state import TrainState


def make(model: AvatarModel, config: Config, phase: curriculum.Phase, mesh: jax.sharding.Mesh):
    """Builds ``step(state, batch) -> (state, metrics)``, jitted, ``state`` donated.

    The state lies where ``parallel.place`` puts it and the batch is split among all devices. The
    random keys of a step are a function of ``config.seed`` and the step alone, so that a resumed
    run repeats what an undisturbed one would have drawn. A step whose loss or gradient is not
    finite changes no parameter and is recorded in ``state.bad_step``.

    Avatar and discriminator learn from the same pictures at once: their losses are added, and
    neither's gradient reaches the other (``training.adversary``).
    """
    transforms = optimizer.build(config)
    judges = objective.make_judges(config, phase)

    def loss_of(networks, batch, keys, number):
        if phase.name == "motion":
            return objective.motion_objective(model, config, networks["model"], batch, keys)
        return objective.avatar_objective(
            model, config, judges, phase.image_size, networks, batch, keys, number
        )

    def step(state: TrainState, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        keys = parallel.sample_keys(key, config.data.batch_size)
        number = state.step - config.motion_pretrain.steps
        networks, learners = {"model": state.params}, {"model": phase.name}
        if "adversarial" in judges:
            networks["discriminator"] = state.discriminator
            learners["discriminator"] = "discriminator"
        gradient = parallel.mean_gradient(
            lambda networks, batch, keys: loss_of(networks, batch, keys, number),
            mesh,
            config.train.accumulate,
        )
        grads, metrics = gradient(networks, batch, keys)
        finite = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(metrics["loss"])
        new, optimizers = {}, dict(state.optimizers)
        with jax.named_scope("optimizer"):
            for name, learner in learners.items():
                updates, optimizers[learner] = transforms[learner].update(
                    grads[name], state.optimizers[learner], networks[name]
                )
                new[name] = optax.apply_updates(networks[name], updates)
        decay = optimizer.ema_decay(config, state.step if phase.name == "motion" else number)
        learned = dataclasses.replace(
            state,
            params=new["model"],
            ema=optax.incremental_update(new["model"], state.ema, 1 - decay),
            optimizers=optimizers,
            discriminator=new.get("discriminator", state.discriminator),
        )
        bad = jnp.where((state.bad_step < 0) & ~finite, state.step, state.bad_step)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), learned, state)
        state = dataclasses.replace(kept, step=state.step + 1, bad_step=bad)
        norms = {
            f"gradient_norm/{name}": optax.tree.norm(part) for name, part in grads["model"].items()
        }
        norms["gradient_norm"] = optax.tree.norm(grads["model"])
        if "adversarial" in judges:
            norms["gradient_norm/discriminator"] = optax.tree.norm(grads["discriminator"])
        return parallel.stay(state, mesh), objective.of_whole_batch(metrics) | norms

    return jax.jit(step, donate_argnums=0)
