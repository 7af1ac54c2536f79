"""Weights and runs that lack what the model needs are refused by name, before they are used."""

import jax
import jax.numpy as jnp
import pytest

import instant_gs
from configs import demo
from instant_gs import cli, models
from instant_gs.training import checkpoint, completeness, dry_run, loop, state, weights


@pytest.fixture(scope="module")
def config():
    return demo.get_config("smoke")


@pytest.fixture(scope="module")
def shapes(config):
    return jax.eval_shape(models.build(config.model).init, jax.random.key(0))


@pytest.fixture
def whole(shapes):
    """Zeros of the model's shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def save(folder, config, params):
    weights.save(folder, config, params, {"made": "by a test"})
    return str(folder)


def test_older_weights_name_what_they_lack(config, shapes, whole, tmp_path):
    del whole["reprojection"], whole["backbone"]["shortcut"]
    old = save(tmp_path / "old", config, whole)
    needed = r"old: lacks parameters that the model needs: backbone\.shortcut, reprojection; "
    with pytest.raises(cli.UserError, match=rf"{needed}another version .* train anew"):
        instant_gs.load(old)
    with pytest.raises(cli.UserError, match=rf"--init_from=.*{needed}use the configuration"):
        loop.start_parameters(config, shapes, old, None)
    params, origins = loop.start_parameters(config, shapes, None, old)  # its encoders are whole
    assert params["reprojection"] == shapes["reprojection"] and "motion_encoder" in origins


def test_a_dry_run_says_so_too(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run.curriculum, "phases", lambda _: [])
    del whole["motion_encoder"]
    other = save(tmp_path / "other", config, whole)
    with pytest.raises(cli.UserError, match=r"--motion_encoder=.*needs: motion_encoder; "):
        list(dry_run.describe(config, tmp_path / "run", motion_encoder=other))


def test_what_is_converted_without_a_motion_encoder_is_whole(config, whole):
    del whole["motion_encoder"]
    completeness.check_weights(config.model, whole, "weights")


def test_an_older_run_is_not_taken_for_a_broken_one(config, whole, tmp_path):
    def made(params):
        return state.TrainState(jnp.int32(5), params, params, {}, jnp.int32(-1))

    less = {name: part for name, part in whole.items() if name != "reprojection"}
    checkpointer = checkpoint.RunCheckpointer(tmp_path)
    checkpointer.save(made(less), {}, config)
    checkpointer.close()
    checkpointer = checkpoint.RunCheckpointer(tmp_path)
    with pytest.raises(cli.UserError, match=r"checkpoints/5: lacks .*: reprojection; another v"):
        checkpointer.restore(made(whole))
    checkpointer.close()
    assert (tmp_path / "checkpoints" / "5").is_dir()
    assert not (tmp_path / checkpoint.BROKEN).exists()
