"""The loop on a tiny pack: it learns, resumes exactly, stops on NaN, refuses another run."""

import json

import imageio.v3 as iio
import jax
import numpy as np
import pytest

from instant_gs import cli
from instant_gs.training import checkpoint, loop


def read_metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def finished_run(pack, tmp_path_factory):
    """An undisturbed run of 4 motion and 4 avatar steps."""
    from configs import demo

    config = demo.get_config("smoke")
    config.data.packs = (str(pack),)
    workdir = tmp_path_factory.mktemp("run")
    return config, workdir, loop.train(config, workdir)


@pytest.mark.slow
def test_a_run_leaves_metrics_pictures_and_weights(finished_run):
    config, workdir, final = finished_run
    metrics = read_metrics(workdir)
    assert sorted(metrics) == list(range(1, 9))
    assert "motion/coefficient_r2" in metrics[4] and "avatar/psnr_driven" in metrics[8]
    assert all(np.isfinite(v) for line in metrics.values() for v in line.values())
    picture = iio.imread(workdir / "samples" / "validation_0000008.png")
    assert picture.shape[1] == 6 * config.model.image_size and picture.std() > 5
    loaded_config, params, provenance = checkpoint.load_weights(workdir)
    assert loaded_config.to_json() == config.to_json() and provenance["step"] == 8
    jax.tree.map(np.testing.assert_array_equal, params, final.ema)


@pytest.mark.slow
def test_phases_move_their_own_parameters_only(finished_run):
    from instant_gs import models
    from instant_gs.training import state

    config, _, final = finished_run
    fresh = state.create(models.build(config.model), config)

    def moved(group):
        pairs = zip(
            jax.tree.leaves(fresh.params[group]), jax.tree.leaves(final.params[group]), strict=True
        )
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    assert all(moved(group) > 1e-5 for group in final.params)


@pytest.mark.slow
def test_an_interrupted_run_equals_an_undisturbed_one(finished_run, tmp_path):
    config, _, final = finished_run
    stop_early = type(config).from_json(config.to_json())
    stop_early.train.steps = 2
    stop_early.train.checkpoint_every = 2
    # The schedule depends on the number of steps: keep it constant for this comparison.
    loop.train(stop_early, tmp_path / "warm")
    resumed = loop.train(stop_early, tmp_path / "warm")
    assert int(resumed.step) == 6
    first = loop.train(stop_early, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, first.params, resumed.params)


def test_a_run_of_another_configuration_is_refused(finished_run):
    config, workdir, _ = finished_run
    other = type(config).from_json(config.to_json())
    other.optimizer.learning_rate *= 2
    with pytest.raises(cli.UserError, match=r"optimizer.learning_rate.*--workdir"):
        loop.train(other, workdir)


@pytest.mark.slow
def test_nan_stops_the_run_and_names_the_step(config, tmp_path):
    config.motion_pretrain.steps = 0
    config.optimizer.learning_rate = 1e30
    config.optimizer.clip_norm = 0.0
    config.optimizer.warmup_steps = 0
    config.train.steps = 6
    with pytest.raises(FloatingPointError, match=r"not finite at step [1-5]"):
        loop.train(config, tmp_path / "run")


def test_an_impossible_configuration_lists_every_problem(config, tmp_path):
    config.model.image_size = 33
    config.loss.lpips_network = "resnet"
    with pytest.raises(ValueError, match=r"image_size(.|\n)*lpips_network"):
        loop.train(config, tmp_path / "run")
