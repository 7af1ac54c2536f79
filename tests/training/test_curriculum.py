"""When what counts, and at which size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs.config import Config, LossSteps
from instant_gs.training import (
    abstract,
    curriculum,
    loop,
    objective,
    optimizer,
    parallel,
    sample_grid,
    state,
    step,
)
from instant_gs.training.curriculum import Phase


def test_the_demo_has_one_phase_after_the_head_start():
    config = demo.get_config()
    steps = config.motion_pretrain.steps
    assert curriculum.at(steps - 1, config) == Phase("motion")
    phase = Phase("avatar", 96, ("lpips",))
    assert curriculum.at(steps, config) == curriculum.at(steps + 4499, config) == phase
    assert curriculum.weight("l1", jnp.int32(0), config) == config.loss.l1


def test_sizes_and_losses_change_at_their_steps():
    config = Config()
    config.motion_pretrain.steps = 10
    config.train.resolutions = ((0, 64), (5, 256), (20, 512))
    config.loss.start = LossSteps(identity=5, adversarial=15)
    config.validate()
    expected = {
        9: Phase("motion"),
        10: Phase("avatar", 64, ("lpips",)),
        14: Phase("avatar", 64, ("lpips",)),
        15: Phase("avatar", 256, ("lpips", "identity")),
        25: Phase("avatar", 256, ("lpips", "identity", "adversarial")),
        30: Phase("avatar", 512, ("lpips", "identity", "adversarial")),
    }
    assert {step: curriculum.at(step, config) for step in expected} == expected
    assert curriculum.phases(config) == list(dict.fromkeys(expected.values()))


def test_a_weight_grows_along_its_ramp():
    config = Config()
    config.loss.start, config.loss.ramp = LossSteps(l1=4), LossSteps(l1=4, identity=2)
    weights = [float(curriculum.weight("l1", jnp.int32(step), config)) for step in range(10)]
    np.testing.assert_allclose(weights, [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    identity = jax.jit(lambda step: curriculum.weight("identity", step, config))
    np.testing.assert_allclose([float(identity(step)) for step in range(3)], [0.05, 0.1, 0.1])


def test_the_weights_are_the_papers():
    loss = Config().loss
    assert (loss.l1, loss.lpips, loss.lpips_network) == (1.0, 1.0, "vgg")
    assert (loss.identity, loss.region, loss.residual, loss.adversarial) == (0.1, 0.1, 1e-3, 0.025)


@pytest.mark.parametrize(
    "resolutions", [((0, 64), (5, 100)), ((1, 64),), ((0, 64), (0, 128)), ((0, 16),)]
)
def test_impossible_sizes_are_named(resolutions):
    config = Config()
    config.train.resolutions = resolutions
    with pytest.raises(ValueError, match=r"train\.resolutions"):
        config.validate()
    config.train.resolutions = ()
    config.loss.start.identity = -1
    with pytest.raises(ValueError, match=r"loss\.start\.identity"):
        config.validate()


def test_what_lies_beyond_the_end_is_told(config, tmp_path, capsys, monkeypatch):
    paper = Config()
    assert curriculum.never_reached(paper) == []
    paper.train.steps, paper.train.resolutions = 1000, ((0, 64), (999, 128), (1000, 256))
    paper.loss.start.lpips, paper.loss.start.identity = 999, 1000
    identity, adversarial, sizes = curriculum.never_reached(paper)
    assert identity.startswith("loss.identity never counts")
    assert "loss.start.adversarial=125000 is beyond the run's train.steps=1000" in adversarial
    assert sizes.startswith("side 256 is never trained")
    config.motion_pretrain.steps, config.train.steps = 1, 1
    config.train.image_every, config.loss.start.l1 = 2, 7
    monkeypatch.setattr(parallel, "mesh_of", _stop)
    with pytest.raises(RuntimeError, match="trained enough"):
        loop.train(config, tmp_path / "run")
    assert "warning: loss.l1 never counts" in capsys.readouterr().out


def _stop(config):
    raise RuntimeError("trained enough")


def test_along_rays_training_draws_anew_and_pictures_do_not(config):
    class Told(Exception):
        pass

    class Model:
        def encode(self, params, image, *, photo_camera, keys):
            raise Told(keys)

    mesh = parallel.make_mesh(2, jax.devices()[:1])
    config.data.batch_size = 2
    batch = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), abstract.batch(config, mesh))

    def drawn(keys):
        with pytest.raises(Told) as told:
            objective.animated_and_rest(Model(), {}, batch, keys, config)
        return told.value.args[0]

    keys = jax.random.split(jax.random.key(1), 3)
    first, second = (np.asarray(jax.random.key_data(drawn(part))) for part in (keys[:2], keys[1:]))
    np.testing.assert_array_equal(first[1], second[0])  # a sample's own, wherever it lies
    assert len({tuple(key) for key in np.concatenate([first, second[1:]])}) == 3
    assert drawn(None) is None


def test_each_phase_compiles_once(config, tmp_path, monkeypatch):
    """The loop with a toy objective, so that it is the phases that are tested."""
    config.motion_pretrain.steps, config.train.steps = 0, 9
    config.train.resolutions = ((0, 16), (3, 32))
    config.loss.lpips, config.loss.identity = 0.0, 0.1
    config.loss.start, config.loss.ramp = LossSteps(identity=6), LossSteps(identity=2)
    made, traced, make = [], [], step.make

    def toy(model, config, judges, size, networks, batch, keys, number):
        traced.append((size, judges))
        value = (networks["model"]["decoder"]["fc1"]["bias"] ** 2).sum()
        value += curriculum.weight("identity", number, config)
        return value, {"loss": value}

    def remember(model, config, phase, mesh):
        made.append((phase, make(model, config, phase, mesh)))
        return made[-1][1]

    monkeypatch.setattr(objective, "avatar_objective", toy)
    monkeypatch.setattr(objective, "make_judges", lambda config, phase: phase.judges)
    monkeypatch.setattr(
        sample_grid, "make", lambda *_: lambda *_: (np.zeros((8, 8, 3), np.uint8), {})
    )
    monkeypatch.setattr(step, "make", remember)
    loop.train(config, tmp_path / "run")
    expected = [Phase("avatar", 16), Phase("avatar", 32), Phase("avatar", 32, ("identity",))]
    assert [phase for phase, _ in made] == expected
    assert [compiled._cache_size() for _, compiled in made] == [1, 1, 1]
    assert set(traced) == {(phase.image_size, phase.judges) for phase in expected}


@pytest.fixture
def toy_step(monkeypatch):
    """(config, objective of parameters, batch and keys, phase) to a step.

    Its metric "number" is the step that the avatar's objective is told.
    """

    def made(config, measured, phase="avatar", judges=()):
        def toy(model, config, made_judges, size, networks, batch, keys, number):
            critic = [networks["discriminator"]["out"]] if judges else []
            value, metrics = measured(networks["model"]["decoder"], batch, keys, *critic)
            return value, metrics | {"number": number.astype(jnp.float32)}

        def toy_motion(model, config, params, batch, keys):
            return measured(params["decoder"], batch, keys)

        monkeypatch.setattr(objective, "avatar_objective", toy)
        monkeypatch.setattr(objective, "motion_objective", toy_motion)
        monkeypatch.setattr(objective, "make_judges", lambda config, phase: dict.fromkeys(judges))
        config.data.batch_size = 1
        mesh = parallel.make_mesh(1, jax.devices()[:1])
        return step.make(None, config, Phase(phase, 32, judges), mesh)

    return made


def _toy_state(config, number):
    params = {"decoder": jnp.ones(3)}
    memories = {name: made.init(params) for name, made in optimizer.build(config).items()}
    return state.TrainState(
        jnp.int32(number), params, {"decoder": jnp.zeros(3)}, memories, jnp.int32(-1)
    )


@pytest.mark.parametrize(("phase", "number"), [("motion", 3), ("avatar", 1003)])
def test_the_averages_forget_the_initialisation_in_every_phase(toy_step, phase, number):
    """A short avatar phase behind a long head start must not be judged by its first weights."""
    config = demo.get_config("smoke")
    config.motion_pretrain.steps = 1000

    def measured(weights, batch, keys):
        value = (weights**2).sum()
        return value, {"loss": value}

    take = toy_step(config, measured, phase)
    after, metrics = take(_toy_state(config, number), jnp.zeros(1))
    np.testing.assert_allclose(after.ema["decoder"], (1 - 4 / 13) * after.params["decoder"])
    assert phase == "motion" or metrics["number"] == 3, "weights and ramps count as well"


def test_what_a_step_draws_depends_on_the_seed_and_on_the_step(toy_step):
    def measured(weights, batch, keys):
        return weights.sum(), {"loss": weights.sum(), "drawn": jax.random.uniform(keys[0])}

    def drawn(seed, *numbers):
        config = demo.get_config("smoke")
        config.seed = seed
        take = toy_step(config, measured)
        return [float(take(_toy_state(config, n), jnp.zeros(1))[1]["drawn"]) for n in numbers]

    first, again, next_step = drawn(0, 5, 5, 6)
    (other_seed,) = drawn(1, 5)
    assert first == again
    assert len({first, next_step, other_seed}) == 3


def test_a_step_that_is_not_finite_changes_nothing_and_is_remembered(toy_step):
    config = demo.get_config("smoke")
    config.optimizer.warmup_steps = 0

    def measured(weights, batch, keys):
        factor, offset = batch[0]
        value = factor * (weights**2).sum()
        return value, {"loss": value + offset}

    take = toy_step(config, measured)
    before = jax.tree.map(np.asarray, _toy_state(config, 7))
    for factor, offset in ((np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan)):
        after, _ = take(_toy_state(config, 7), jnp.array([[factor, offset]]))
        assert (after.step, after.bad_step) == (8, 7)
        for name in ("params", "ema", "optimizers"):
            jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    then, _ = take(after, jnp.array([[1.0, 0.0]]))
    assert (then.step, then.bad_step) == (9, 7)
    assert (then.params["decoder"] < 1).all()
    again, _ = take(then, jnp.array([[np.nan, 0.0]]))
    assert (again.step, again.bad_step) == (10, 7), "the first one"


def test_a_discriminator_that_is_not_finite_changes_nothing_either(toy_step):
    config = demo.get_config("smoke")
    config.optimizer.warmup_steps, config.loss.adversarial = 0, 0.1

    def measured(weights, batch, keys, critic):
        loss = (weights**2).sum()
        return loss + batch[0] * critic.sum(), {"loss": loss}

    take = toy_step(config, measured, judges=("adversarial",))
    for factor, bad in ((np.nan, 7), (1.0, -1)):
        critic = {"out": jnp.ones(3)}
        fresh = dataclasses.replace(_toy_state(config, 7), discriminator=critic)
        fresh.optimizers["discriminator"] = optimizer.build(config)["discriminator"].init(critic)
        after, _ = take(fresh, jnp.array([factor]))
        assert int(after.bad_step) == bad
        for moved in (after.params["decoder"], after.discriminator["out"]):
            assert bool((moved == 1).all()) is (bad == 7)
