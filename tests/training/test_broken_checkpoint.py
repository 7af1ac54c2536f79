"""A broken checkpoint is noticed whatever broke, and the one before it takes its place."""

import gc
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import cli
from instant_gs.data.error import PackError
from instant_gs.training import checkpoint, loop, state, weights

# Orbax drops the rest of a read when one array of it fails; collected while it is ignored.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collect():
    yield
    gc.collect()


def at(step):
    """A small state of noise, other noise at every step."""
    noise = np.random.default_rng(step).normal(size=(3, 700)).astype(np.float32)
    tree = {"a": jnp.asarray(noise[0]), "b": {"c": jnp.asarray(noise[1])}}
    average = jax.tree.map(lambda leaf: leaf / 3, tree)
    moments = jax.tree.map(lambda leaf: leaf**2, tree)
    return state.TrainState(jnp.int32(step), tree, average, {"m": moments}, jnp.int32(-1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    checkpointer = checkpoint.RunCheckpointer(folder)
    for step in (1, 2):
        checkpointer.save(at(step), {"next": step}, demo.get_config("smoke"))
    checkpointer.close()
    return folder


def files(run):
    folder = run / "checkpoints" / "2"
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def truncate(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: pathlib.Path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def restore(folder):
    checkpointer = checkpoint.RunCheckpointer(folder)
    try:
        return checkpointer.restore(at(0))
    finally:
        checkpointer.close()


@pytest.mark.parametrize("damage", [truncate, flip, pathlib.Path.unlink])
def test_no_damage_to_any_file_changes_a_number_that_is_restored(run, tmp_path, damage, caplog):
    caplog.set_level(logging.WARNING)
    fallen_back = 0
    for number, name in enumerate(files(run)):
        folder = tmp_path / str(number)
        shutil.copytree(run, folder)
        damage(folder / "checkpoints" / "2" / name)
        caplog.clear()
        restored, data, config = restore(folder)
        step = int(restored.step)
        for found, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(at(step)), strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=str(name))
        assert data == {"next": step}, name
        assert config.to_json() == demo.get_config("smoke").to_json(), name
        if step == 1:
            fallen_back += 1
            assert "checkpoint 2" in caplog.text and "broken_checkpoints" in caplog.text
            (kept,) = (folder / "broken_checkpoints").iterdir()
            assert kept.name.startswith("2-") and (kept / "state").is_dir()
    assert fallen_back >= 5  # some files hold nothing that is needed


def test_a_missing_part_falls_back_and_the_step_can_be_saved_again(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "2" / "state")
    checkpointer = checkpoint.RunCheckpointer(folder)
    restored, _, config = checkpointer.restore(at(0))
    assert int(restored.step) == 1 and checkpointer.latest_step() == 1
    checkpointer.save(at(2), {"next": 2}, config)
    checkpointer.close()
    restored, _, _ = restore(folder)
    jax.tree.map(np.testing.assert_array_equal, restored, at(2))


def test_weights_come_from_the_newest_whole_checkpoint(run, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "2" / "ema")
    _, params, facts = weights.load(folder)
    jax.tree.map(np.testing.assert_array_equal, params, at(1).ema)
    assert facts["step"] == 1 and "step 2 is broken" in caplog.text
    assert (folder / "checkpoints" / "2").is_dir()  # reading weights moves nothing


def test_no_whole_checkpoint_is_a_clear_error_and_moves_nothing(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for step in ("1", "2"):
        shutil.rmtree(folder / "checkpoints" / step / "state")
    with pytest.raises(cli.UserError, match=r"no checkpoint can be read \(step 2: .*step 1: "):
        restore(folder)
    assert {p.name for p in (folder / "checkpoints").iterdir()} >= {"1", "2"}
    assert not (folder / "broken_checkpoints").exists()


def test_a_checkpoint_holds_what_was_saved_although_training_goes_on(tmp_path):
    checkpointer = checkpoint.RunCheckpointer(tmp_path)
    saved = at(1)
    checkpointer.save(saved, {}, demo.get_config("smoke"))
    assert checkpointer._manager.is_saving_in_progress()  # it did not wait for the disk
    # As the training step does: the old arrays' memory is given to the new ones.
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)(saved)
    restored_step = checkpointer.latest_step()
    checkpointer.close()
    restored, _, _ = restore(tmp_path)
    assert restored_step == 1
    jax.tree.map(np.testing.assert_array_equal, restored, at(1))


def test_a_checkpoint_without_checksums_is_broken(run, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "2" / "checksum")
    assert int(restore(folder)[0].step) == 1
    assert "checksums are missing" in caplog.text


def test_a_run_stopped_by_a_broken_record_is_saved():
    class Loader:
        def __next__(self):
            raise PackError("record 7")

    saved = []
    with pytest.raises(PackError, match="record 7"):
        loop._next_batch(Loader(), lambda: saved.append("now"))
    assert saved == ["now"]
