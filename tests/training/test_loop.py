"""The loop on a tiny pack: it learns, resumes exactly, stops on NaN, refuses another run."""

import dataclasses
import errno
import gzip
import json
import os
import shutil
import signal
import types

import imageio.v3 as iio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import cli, models
from instant_gs.data.error import PackError
from instant_gs.training import checkpoint, completeness, loop, sample_grid, state, weights, writer


def read_metrics(workdir):
    """Values by step; those of a sample picture have a line of their own."""
    metrics = {}
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        metrics.setdefault(line["step"], {}).update(line)
    return metrics


@pytest.fixture(scope="module")
def finished_run(pack, tmp_path_factory):
    """An undisturbed run of 4 motion and 4 avatar steps."""
    config = demo.get_config("smoke")
    config.data.packs = (str(pack),)
    workdir = tmp_path_factory.mktemp("run")
    final = loop.train(config, workdir, profile_steps=(2, 2))
    return config, workdir, jax.tree.map(np.asarray, final)


@pytest.mark.slow
def test_a_full_disk_met_by_the_log_is_one_error_that_says_what_is_saved(
    config, tmp_path, monkeypatch
):
    def refuse(self, step, values):
        if step == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.MetricWriter, "scalars", refuse)
    config.train.checkpoint_every = 2
    message = f"--workdir={tmp_path}/run: the log could not be written: No space.*step 2 is whole"
    with pytest.raises(cli.UserError, match=message):
        loop.train(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_leaves_metrics_pictures_and_weights(finished_run):
    config, workdir, final = finished_run
    metrics = read_metrics(workdir)
    assert sorted(metrics) == list(range(1, 9))
    assert {"motion/coefficient_r2", "motion/pose_distance"} <= metrics[4].keys()
    assert "avatar/psnr_driven" in metrics[8]
    assert "avatar/gradient_norm/backbone" in metrics[8]
    assert metrics[5]["avatar/learning_rate"] == 0.0 < metrics[6]["avatar/learning_rate"]
    # The first step of a phase compiles and is not timed.
    assert "speed/step_seconds" not in metrics[5] and metrics[6]["speed/samples_per_second"] > 0
    assert 0 <= metrics[6]["speed/input_seconds"] <= metrics[6]["speed/step_seconds"]
    assert "speed/model_flop_utilisation" not in metrics[6], "the peak of a CPU is not known"
    assert "validation_0000008" in (workdir / "report.html").read_text()
    assert all(np.isfinite(v) for line in metrics.values() for v in line.values())
    picture = iio.imread(workdir / "samples" / "validation_0000008.png")
    size = config.model.image_size
    assert picture.shape[1] == len(sample_grid.COLUMNS) * size and picture.std() > 5
    columns = picture.reshape(*picture.shape[:1], -1, size, 3).swapaxes(0, 1).astype(int)
    names = ("result", "truth", "residual", "from its right", "from its left")
    result, truth, residual, right, left = (columns[sample_grid.COLUMNS.index(n)] for n in names)
    assert [step for step in metrics if "validation/psnr" in metrics[step]] == [8]
    each = (np.square(result - truth) / 255**2).reshape(-1, size, size, 3).mean((1, 2, 3))
    assert metrics[8]["validation/psnr"] == pytest.approx(-10 * np.log10(each).mean(), abs=0.1)
    l1 = np.abs(result - truth).mean() / 255
    assert metrics[8]["validation/l1"] == pytest.approx(l1, rel=0.05)
    assert residual.std() > 1 and np.all(residual[..., :1] == residual)
    assert all(np.abs(a - b).mean() > 1 for a, b in ((result, truth), (right, left)))
    loaded_config, params, provenance = weights.load(workdir)
    assert loaded_config.to_json() == config.to_json() and provenance["step"] == 8
    jax.tree.map(np.testing.assert_array_equal, params, final.ema)
    (trace,) = (workdir / "profile").rglob("*.json.gz")
    assert b'"step_num":"2"' in gzip.decompress(trace.read_bytes())


@pytest.mark.slow
def test_each_phase_moves_its_own_parameters_only(finished_run, tmp_path):
    config, workdir, final = finished_run
    fresh = state.create(models.build(config.model), config)
    shutil.copytree(workdir / checkpoint.CHECKPOINTS, tmp_path / checkpoint.CHECKPOINTS)
    shutil.rmtree(tmp_path / checkpoint.CHECKPOINTS / "8")
    checkpointer = checkpoint.RunCheckpointer(tmp_path)
    half, *_ = checkpointer.restore(fresh)
    checkpointer.close()
    assert half.step == 4

    def moved(before, after, group):
        pairs = zip(
            jax.tree.leaves(before.params[group]), jax.tree.leaves(after.params[group]), strict=True
        )
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    avatar = ("backbone", "decoder", "motion_decoder")
    readers = ("motion_encoder", "pose_encoder")
    assert all(moved(fresh, half, group) > 1e-5 for group in readers)
    assert all(moved(fresh, half, group) == 0 for group in avatar)
    assert all(moved(half, final, group) == 0 for group in readers)
    assert all(moved(half, final, group) > 1e-5 for group in avatar)


@pytest.mark.slow
def test_sigterm_saves_the_step_and_the_run_resumes_exactly(finished_run, tmp_path, monkeypatch):
    config, _, final = finished_run
    scalars = loop.writer.MetricWriter.scalars

    def kill_at_six(self, step, values):
        scalars(self, step, values)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.writer.MetricWriter, "scalars", kill_at_six)
    with pytest.raises(cli.UserError, match=r"SIGTERM stopped .* after step 6 of 8") as caught:
        loop.train(config, tmp_path / "run")
    assert caught.value.exit_code == 75
    monkeypatch.undo()
    assert checkpoint.RunCheckpointer(tmp_path / "run").latest_step() == 6
    resumed = loop.train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, final)


def test_a_finished_run_does_nothing_more(finished_run):
    config, workdir, final = finished_run
    before = (workdir / "metrics.jsonl").read_text()
    again = loop.train(config, workdir)
    jax.tree.map(np.testing.assert_array_equal, again.params, final.params)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_a_run_can_start_from_weights(finished_run, tmp_path):
    config, _, final = finished_run
    weights.save(tmp_path / "weights", config, final.ema, {"made": "by a test"})
    _, params, provenance = weights.load(tmp_path / "weights")
    assert provenance == {"made": "by a test"}
    fresh = state.create(models.build(config.model), config)
    completeness.check_fits(fresh.params, params, "weights")
    started = state.start_from(fresh, params)
    jax.tree.map(  # stored as bfloat16: three significant digits
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.005), started.params, final.ema
    )
    wider = type(config).from_json(config.to_json())
    wider.model.gaussians.hidden_width += 8
    other = state.create(models.build(wider.model), wider)
    with pytest.raises(ValueError, match=r"init_from=weights.*decoder"):
        completeness.check_fits(other.params, params, "init_from=weights")
    with pytest.raises(cli.UserError, match=r"weights: .* exists already"):
        weights.save(tmp_path / "weights", config, params, {})


def test_a_motion_encoder_can_come_from_another_run(finished_run, tmp_path, monkeypatch):
    config, workdir, final = finished_run
    config = type(config).from_json(config.to_json())
    config.seed, config.motion_pretrain.steps, config.train.steps = 1, 0, 1

    def idle(train_state, batch):  # the real step would be compiled anew, for another schedule
        del batch
        return dataclasses.replace(train_state, step=train_state.step + 1), {}

    monkeypatch.setattr(loop.step, "make", lambda *_: idle)
    monkeypatch.setattr(
        loop.sample_grid, "make", lambda *_: lambda *_: (np.zeros((8, 8, 3), "u1"), {})
    )
    run = loop.train(config, tmp_path / "run", None, str(workdir))
    jax.tree.map(
        np.testing.assert_array_equal, run.params["motion_encoder"], final.ema["motion_encoder"]
    )
    _, _, facts = weights.load(tmp_path / "run")
    assert facts["motion_encoder"]["step"] == 8 and "init_from" not in facts
    assert facts["motion_encoder"]["folder"] == str(workdir)


def test_what_is_read_is_what_the_configuration_asks_for(monkeypatch):
    config = demo.get_config("smoke")
    asked = {"cross_identity": 0.2, "same_expression": 0.3, "mirror": 0.4}
    for name, share in asked.items():
        setattr(config.data, name, share)
    config.seed, splits = 7, {"train", "validation"}

    def make_loader(packs, split, **given):
        if split not in splits:
            raise PackError("nothing to sample")
        return iter([(split, given["seed"], {name: given[name] for name in asked})])

    monkeypatch.setattr(loop.pipeline, "make_loader", make_loader)
    monkeypatch.setattr(loop.reader, "open_packs", lambda *_, **__: ["opened"])
    monkeypatch.setattr(loop.sampler, "SampleTable", lambda *_: types.SimpleNamespace(uses=[]))
    loader, _, _ = loop.training_data(config)
    assert next(loader) == ("train", 7, asked)
    assert loop._batch_to_show(config, None) == (("validation", 8, asked), True)
    splits.remove("validation")
    assert loop._batch_to_show(config, None) == (("train", 8, asked), False)


def test_the_line_for_the_eye_says_how_far_and_how_long_still(capsys):
    written = []
    board = types.SimpleNamespace(scalars=lambda *given: written.append(given))
    loop._log(board, 300, 1500, "avatar", {"loss": 0.25}, {"step_seconds": 0.5})
    said = "avatar 300/1500 (20 %)  loss 0.25  0.500 s/step, 10 min left"
    assert capsys.readouterr().out == f"{said}\n"
    assert written == [(300, {"avatar/loss": 0.25, "speed/step_seconds": 0.5})]


def test_the_batch_of_a_bad_step_is_drawn_again_from_the_last_good_one(config, tmp_path):
    class Loader:
        def set_state(self, number):
            self.batches = iter({"step": np.array(n)} for n in range(number, 99))

        def __next__(self):
            return next(self.batches)

    bad = types.SimpleNamespace(bad_step=7)
    with pytest.raises(FloatingPointError, match="not finite at step 7"):
        loop._stop_if_not_finite(config, tmp_path, bad, Loader(), 4, 5, 5)
    with np.load(tmp_path / "bad_batch_0000007.npz") as kept:
        assert kept["step"] == 7


@pytest.fixture
def idle_run(config, tmp_path, monkeypatch):
    """A run whose steps do nothing: its folder, and the parameters that were drawn."""
    config.motion_pretrain.steps, config.train.steps, config.train.image_every = 0, 2, 2
    config.train.checkpoint_every, config.train.keep_checkpoints = 1, 1
    params, seen = {"decoder": jnp.ones(3)}, []

    def idle(train_state, batch):
        del batch
        averages = {"decoder": jnp.full(3, 7.0)}
        return dataclasses.replace(train_state, step=train_state.step + 1, ema=averages), {}

    def draw(params, batch):
        seen.append(np.asarray(params["decoder"]))
        return np.zeros((8, 8, 3), np.uint8), {}

    fresh = state.TrainState(jnp.int32(0), params, params, {}, jnp.int32(-1))
    monkeypatch.setattr(state, "create", lambda *_: fresh)
    monkeypatch.setattr(loop.step, "make", lambda *_: idle)
    monkeypatch.setattr(sample_grid, "make", lambda *_: draw)
    loop.train(config, tmp_path / "run")
    return tmp_path / "run", seen


def test_sample_pictures_show_the_averages(idle_run):
    np.testing.assert_array_equal(idle_run[1], [[7.0] * 3])


def test_as_many_checkpoints_stay_as_the_configuration_says(idle_run):
    assert [path.name for path in (idle_run[0] / "checkpoints").iterdir()] == ["2"]


def test_a_motion_encoder_that_stays_as_it_was_drawn_is_warned_of(capfd, idle_run):
    assert "warning: the motion encoder is frozen as it was drawn" in capfd.readouterr().out


def test_no_weights_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give a folder that train\.py or `python -m inst"):
        weights.load(tmp_path)


def test_a_run_of_another_configuration_is_refused(finished_run):
    config, workdir, _ = finished_run
    other = type(config).from_json(config.to_json())
    other.optimizer.b1 = 0.5
    with pytest.raises(cli.UserError, match=r"optimizer\.b1 was 0\.9 and is 0\.5; .*--workdir"):
        loop.train(other, workdir)


@pytest.mark.slow
def test_nan_stops_the_run_and_names_the_step(config, tmp_path):
    config.motion_pretrain.steps, config.motion_pretrain.learning_rate = 6, 1e30
    config.optimizer.clip_norm = 0.0
    config.train.log_every = 4  # it is noticed later
    said = r"not finite at step [1-3]; its batch .* below 1e\+30, or .*begins anew"
    with pytest.raises(FloatingPointError, match=said) as caught:
        loop.train(config, tmp_path / "run")
    (path,) = (tmp_path / "run").glob("bad_batch_*.npz")
    assert str(path) in str(caught.value)
    bad = int(path.stem.split("_")[-1])
    loader = loop._loader(config, "train", config.seed)
    batch = [next(loader) for _ in range(bad + 1)][bad]
    with np.load(path) as kept:
        assert len(kept) == len(jax.tree.leaves(batch))
        np.testing.assert_array_equal(kept["source.image"], batch.source.image)
        np.testing.assert_array_equal(kept["driver.coefficients"], batch.driver.coefficients)


def test_an_impossible_configuration_lists_every_problem(config, tmp_path):
    config.model.image_size = 33
    config.loss.lpips_network = "resnet"
    with pytest.raises(ValueError, match=r"image_size(.|\n)*lpips_network"):
        loop.train(config, tmp_path / "run")
