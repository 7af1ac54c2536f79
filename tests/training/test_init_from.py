"""Going on from others' weights: the release's fit the paper's model, and are read as they were."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import ablation, demo
from instant_gs import convert, models
from instant_gs.geometry import camera
from instant_gs.training import (
    abstract,
    checkpoint,
    curriculum,
    loop,
    parallel,
    provenance,
    state,
    step,
)


def shapes(config):
    tree = jax.eval_shape(models.build(config.model).init, jax.random.key(0))
    return {jax.tree_util.keystr(p): a.shape for p, a in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_released_weights_fit_the_papers_model():
    assert shapes(ablation.get_config("fan")) == shapes(convert.released_config())


def test_weights_that_would_show_other_heads_are_refused(monkeypatch):
    """Positions in the release are absolute; the paper's recipe here anchors them."""
    config, released = ablation.get_config("fan"), convert.released_config()
    monkeypatch.setattr(checkpoint, "load_weights", lambda folder: (released, {"x": 1}, {}))
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


def test_a_licence_goes_on_to_what_is_trained_and_is_shown(tmp_path, capfd):
    config = convert.released_config()
    first, second = {"licence": "no commerce", "step": 1}, {"licence": "no weapons"}
    facts = provenance.record(config, {"init_from": first, "motion_encoder": second})
    assert (facts["init_from"], facts["licence"]) == (first, "no commerce no weapons")
    twice = provenance.record(config, {"init_from": first, "motion_encoder": first})
    assert twice["licence"] == "no commerce"
    assert "licence" not in provenance.record(config, {"init_from": {"step": 1}})
    checkpoint.save_weights(
        tmp_path / "weights", config, {"x": {"y": np.zeros(2, np.float32)}}, facts
    )
    assert checkpoint.load_weights(tmp_path / "weights")[2] == facts
    assert f"{tmp_path}/weights: no commerce no weapons\n" in capfd.readouterr().err


def test_the_first_releases_weights_go_on_as_they_were_drawn():
    config = convert.released_config()
    legacy = convert.released_config(legacy=True)
    with pytest.raises(ValueError, match=r"raster_mode=antialiased, and .* says classic"):
        state.check_same_meaning(legacy.model, config.model, "--init_from=weights")


@pytest.mark.slow
def test_training_draws_pictures_as_the_configuration_says():
    losses = {}
    for mode in ("classic", "antialiased"):
        config = demo.get_config("smoke")
        config.model.raster_mode, config.loss.lpips = mode, 0.0
        config.data.batch_size = config.data.driven_per_sample = 1
        model = models.build(config.model)
        mesh = parallel.make_mesh(1, jax.devices()[:1])
        batch = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), abstract.batch(config, mesh))
        front = camera.orbit_camera(0.0, 0.0)
        views = {
            name: dataclasses.replace(
                view,
                cam2world=np.broadcast_to(front.cam2world, view.cam2world.shape),
                intrinsics=np.broadcast_to(front.intrinsics, view.intrinsics.shape),
            )
            for name, view in vars(batch).items()
        }
        batch = dataclasses.replace(batch, **views)
        fresh = parallel.place(state.create(model, config), mesh)
        phase = curriculum.Phase("avatar", config.model.image_size)
        after, metrics = step.make(model, config, phase, mesh)(fresh, batch)
        assert int(after.step) == 1 and int(after.bad_step) == -1
        losses[mode] = {name: float(metrics[name]) for name in ("l1", "mask")}
    assert abs(losses["classic"]["mask"] - losses["antialiased"]["mask"]) > 1e-4
