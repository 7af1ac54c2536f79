"""Going on from others' weights: the release's fit the paper's model, and are read as they were."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ablation, demo, small
from instant_gs import convert, models
from instant_gs.config import Config
from instant_gs.geometry import camera
from instant_gs.training import (
    abstract,
    curriculum,
    loop,
    objective,
    optimizer,
    parallel,
    provenance,
    state,
    step,
    weights,
)
from tests.inference import tiny
from tests.kernels import quick


def shapes(config):
    tree = jax.eval_shape(models.build(config.model).init, jax.random.key(0))
    return {jax.tree_util.keystr(p): a.shape for p, a in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_released_weights_fit_the_papers_model():
    assert shapes(ablation.get_config("fan")) == shapes(convert.released_config())


def test_weights_that_would_show_other_heads_are_refused(monkeypatch):
    """Positions in the release are absolute; the paper's recipe here anchors them."""
    config, released = ablation.get_config("fan"), convert.released_config()
    monkeypatch.setattr(weights, "load", lambda folder: (released, {"x": 1}, {}))
    message = (
        "--init_from=weights: made with model.gaussians.position=absolute, and this configuration "
        "says anchored; set --config.model.gaussians.position=absolute"
    )
    with pytest.raises(ValueError, match=message):
        loop.start_parameters(config, {}, "weights", None)
    config.model.gaussians.position = "absolute"
    state.check_same_meaning(released.model, config.model, "--init_from=weights")
    config.model.motion.residual_scale = 1.0
    with pytest.raises(ValueError, match=r"residual_scale=0\.01, and .* says 1\.0"):
        loop.start_parameters(config, {}, "weights", None)
    config.model.motion.crop = 0.62
    with pytest.raises(ValueError, match=r"--motion_encoder=read: made with .*crop=0\.52, and"):
        loop.start_parameters(config, {"motion_encoder": {}}, None, "read")


def test_the_crop_is_that_of_the_motion_encoder_which_is_used(monkeypatch):
    config, released = ablation.get_config("fan"), convert.released_config()
    shipped = demo.get_config("")
    config.model.gaussians.position = "absolute"
    made = {"heads": released, "read": shipped}
    groups = {name: {"x": np.zeros(2)} for name in ("decoder", "motion_encoder", "pose_encoder")}
    params = {"heads": groups, "read": {name: {"x": np.ones(2)} for name in groups}}
    monkeypatch.setattr(weights, "load", lambda name: (made[name], params[name], {}))
    assert released.model.motion.crop != shipped.model.motion.crop
    config.model.motion.crop = shipped.model.motion.crop
    config.model.motion.image_size = shipped.model.motion.image_size
    with pytest.raises(ValueError, match=r"^--init_from=heads: made with .*crop=0\.52, and"):
        loop.start_parameters(config, groups, "heads", None)
    taken, origins = loop.start_parameters(config, groups, "heads", "read")
    sources = {name: float(group["x"].mean()) for name, group in taken.items()}
    assert sources == {"decoder": 0, "motion_encoder": 1, "pose_encoder": 1}
    assert list(origins) == ["init_from", "motion_encoder"]
    assert [facts["folder"] for facts in origins.values()] == ["heads", "read"]
    config.model.motion.crop = released.model.motion.crop
    with pytest.raises(ValueError, match=r"^--motion_encoder=read: made with .*crop=0\.62, and"):
        loop.start_parameters(config, groups, "heads", "read")
    config.model.gaussians.position = "anchored"
    with pytest.raises(ValueError, match=r"^--init_from=heads: made with .*position=absolute"):
        loop.start_parameters(config, groups, "heads", "read")


def test_a_licence_goes_on_to_what_is_trained_and_is_shown(tmp_path, capfd):
    config = convert.released_config()
    first, second = {"licence": "no commerce", "step": 1}, {"licence": "no weapons"}
    facts = provenance.record(config, {"init_from": first, "motion_encoder": second})
    assert (facts["init_from"], facts["licence"]) == (first, "no commerce no weapons")
    twice = provenance.record(config, {"init_from": first, "motion_encoder": first})
    assert twice["licence"] == "no commerce"
    assert "licence" not in provenance.record(config, {"init_from": {"step": 1}})
    weights.save(tmp_path / "weights", config, {"x": {"y": np.zeros(2, np.float32)}}, facts)
    assert weights.load(tmp_path / "weights")[2] == facts
    assert f"{tmp_path}/weights: no commerce no weapons\n" in capfd.readouterr().err


def test_packs_of_one_name_are_both_recorded(config, tmp_path):
    (pack,) = config.data.packs
    config.data.packs = tuple(str(tmp_path / folder / "train (old)") for folder in "abc")
    for copy in config.data.packs:
        shutil.copytree(pack, copy)
    facts = provenance.record(config)["packs"]
    assert tuple(facts) == ("train (old)", "train (old) (2)", "train (old) (3)")
    assert {one["licence"] for one in facts.values()} == {"Apache-2.0"}


def test_whatever_gives_weights_another_meaning_is_named():
    others = {
        "fov_degrees": 20.0,
        "raster_mode": "antialiased",
        "encoder.aspp_rates": (1, 2, 3),  # no shape tells of these three either
        "encoder.low_heads": 8,
        "encoder.plane_heads": 4,
        "encoder.looks": 2,
        "gaussians.instantiation": "ray",
        "gaussians.position": "anchored",
        "gaussians.max_offset": 0.3,
        "gaussians.max_scale": 0.1,
        "motion.residual_space": "spatial",
        "motion.residual_scale": 1.0,
        "motion.crop": 0.5,
        "motion.image_size": 49,  # halved four times it is 4, as 64 is: the same shapes
    }
    made = Config().model
    for name, value in others.items():
        ours = Config().model
        *path, field = name.split(".")
        setattr(functools.reduce(getattr, path, ours), field, value)
        with pytest.raises(ValueError, match=rf"made with model\.{name}=.*; set --config\.model"):
            state.check_same_meaning(made, ours, "--init_from=weights")
    made.encoder.aspp_rates = (1, 2, 3)
    with pytest.raises(ValueError, match=r"--config\.model\.encoder\.aspp_rates='\(1, 2, 3\)'$"):
        state.check_same_meaning(made, Config().model, "--init_from=weights")


def test_the_first_releases_weights_go_on_as_they_were_drawn():
    config = convert.released_config()
    legacy = convert.released_config(legacy=True)
    with pytest.raises(ValueError, match=r"fov_degrees=18.837, and .* says 23.28"):
        state.check_same_meaning(legacy.model, config.model, "--init_from=weights")
    config.model.fov_degrees = legacy.model.fov_degrees
    with pytest.raises(ValueError, match=r"raster_mode=antialiased, and .* says classic"):
        state.check_same_meaning(legacy.model, config.model, "--init_from=weights")
    config.model.raster_mode = legacy.model.raster_mode
    with pytest.raises(ValueError, match=r"instantiation=ray, and .* says plane"):
        state.check_same_meaning(legacy.model, config.model, "--init_from=weights")


def test_a_finer_map_may_have_smaller_gaussians():
    """As ``configs/small.py`` goes on from the demo's weights."""
    made, config = demo.get_config(), small.get_config()
    state.check_same_meaning(made.model, config.model, "--init_from=weights")
    assert shapes(made) == shapes(config), "not a parameter is new"
    config.model.gaussians.max_scale = 0.02
    message = r"max_scale=0\.05, and .* says 0\.02; set .*max_scale=0\.05, or 0\.025 for as many"
    with pytest.raises(ValueError, match=message):
        state.check_same_meaning(made.model, config.model, "--init_from=weights")
    for rays in (made, config):  # which have no map
        rays.model.gaussians.instantiation = "ray"
    config.model.gaussians.max_scale = 0.025
    with pytest.raises(ValueError, match=r"says 0\.025; set --config\S+max_scale=0\.05$"):
        state.check_same_meaning(made.model, config.model, "--init_from=weights")
    for cells in (made, config):
        cells.model.gaussians.instantiation = "plane"
    config.model.gaussians.max_scale = 0.02
    config.model.gaussians.grid = made.model.gaussians.grid
    with pytest.raises(ValueError, match=r"set --config\.model\.gaussians\.max_scale=0\.05$"):
        state.check_same_meaning(made.model, config.model, "--init_from=weights")
    config.model.gaussians.max_scale = made.model.gaussians.max_scale
    state.check_same_meaning(made.model, config.model, "--init_from=weights")


@pytest.mark.slow
def test_training_draws_pictures_as_the_configuration_says():
    config = demo.get_config("smoke")
    config.model.raster_mode, config.model.encoder.unwrap, config.loss.lpips = "antialiased", 0, 0.0
    config.data.batch_size, config.motion_pretrain.steps, config.optimizer.warmup_steps = 1, 0, 0
    model, mesh = models.build(config.model), parallel.make_mesh(1, jax.devices()[:1])
    front = camera.orbit_camera(0.0, 0.0)
    seen = {"cam2world": front.cam2world, "intrinsics": front.intrinsics}

    def ones(path, leaf):
        value = seen.get(path[-1].name, 1)
        return np.broadcast_to(value, leaf.shape).astype(leaf.dtype)

    batch = jax.tree_util.tree_map_with_path(ones, abstract.batch(config, mesh))
    params = tiny.random_parameters(config)
    keys, size = jax.random.split(jax.random.key(0), 1), config.model.image_size

    def coverage(mode):
        drawn = models.build(dataclasses.replace(config.model, raster_mode=mode))
        networks = {"model": params}
        judged = functools.partial(objective.avatar_objective, drawn, config, {}, size)
        return float(jax.jit(lambda *rest: judged(*rest)[1]["mask"])(networks, batch, keys, 0))

    assert abs(coverage("classic") - coverage("antialiased")) > 1e-3
    copies = (jax.tree.map(jnp.copy, params) for _ in range(2))
    optimizers = {name: rule.init(params) for name, rule in optimizer.build(config).items()}
    fresh = state.TrainState(jnp.int32(0), *copies, optimizers, jnp.int32(-1))
    take = step.make(model, config, curriculum.Phase("avatar", size), mesh)
    fresh = parallel.place(fresh, mesh)
    after, _ = take.lower(fresh, batch).compile(compiler_options=quick.OPTIONS)(fresh, batch)
    assert int(after.step) == 1 and int(after.bad_step) == -1
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), after.params["decoder"], params["decoder"]
    )
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize("half", [True, False])
def test_weights_are_rounded_as_a_release_or_keep_every_bit(tmp_path, half):
    numbers = np.random.default_rng(0).random(64, np.float32)
    params = {"x": {"y": numbers, "count": np.arange(3, dtype=np.int32)}}
    weights.save(tmp_path / "weights", demo.get_config("smoke"), params, {}, half=half)
    _, read, _ = weights.load(tmp_path / "weights")
    expected = numbers.astype(jnp.bfloat16).astype(np.float32) if half else numbers
    np.testing.assert_array_equal(read["x"]["y"], expected)
    assert read["x"]["y"].dtype == jnp.float32 and read["x"]["count"].dtype == jnp.int32


def test_averages_begin_at_the_weights_that_a_run_starts_from():
    old, new = {"a": jnp.zeros(2)}, {"a": jnp.ones(2)}
    fresh = state.TrainState(jnp.int32(0), old, old, {}, jnp.int32(-1))
    started = state.start_from(fresh, new)
    np.testing.assert_array_equal([started.params["a"], started.ema["a"]], 1.0)
