"""What a command may change in the run that it goes on with, and what it must not."""

import dataclasses
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from instant_gs import cli
from instant_gs import config as config_lib
from instant_gs.data import packing, synthetic
from instant_gs.training import checkpoint, dry_run, loop, optimizer, provenance, same_run
from tests.training.test_broken_checkpoint import at


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory):
    """A run on a pack with a checkpoint of step 1; its arrays do not matter here."""
    config, folder = demo.get_config("smoke"), tmp_path_factory.mktemp("run")
    config.data.packs = (str(pack),)
    checkpointer = checkpoint.RunCheckpointer(folder)
    checkpointer.save(at(1), {}, config)
    checkpointer.close()
    provenance.write(folder, provenance.record(config))
    return folder


def test_what_changes_nothing_that_is_learned_may_change(run, config):
    config.name, config.data.broken, config.data.cache_gigabytes = "other", "skip", 0.0
    config.data.threads += 1
    config.model.encoder.remat = not config.model.encoder.remat
    train = config.train
    train.steps, train.accumulate, train.shard_parameters, train.log_every = 99, 2, 2, 7
    same_run.check(run, config)
    assert len(same_run.changes(checkpoint.read_run_config(run), config)) == 9


def test_rates_and_clipping_may_change_which_is_said_and_kept(run, config, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "run")
    before = checkpoint.read_run_config(run)
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e-5, 0.0
    config.motion_pretrain.learning_rate = config.adversarial.learning_rate = 1e-6
    config.adversarial.group_size = 2  # as fewer devices may need
    same_run.check(run, config)

    def noted(step):
        same_run.note_changes(tmp_path / "run", step, before, config)
        return provenance.read(tmp_path / "run").get("changes", [])

    (line,) = noted(8)
    assert line["step"] == 8 and line["optimizer.clip_norm"] == [1.0, 0.0] and len(line) == 6
    assert "changed from step 8 on: " in (said := capfd.readouterr().out)
    assert said.count("\n") == 1 and "optimizer.learning_rate was 0.0004 and is 1e-05" in said
    assert noted(8) == [line], "killed before it saved, and started again"
    assert [one["step"] for one in noted(12)] == [8, 12]
    assert noted(8) == [line], "the steps from 8 on are taken again"
    config = before
    assert noted(8) == [] and not capfd.readouterr().out.count("is 0.0004")


def test_clipping_can_be_switched_on_and_off_without_another_state(config):
    params = {"motion_encoder": {"a": jnp.ones(3)}, "decoder": {"b": jnp.ones(2)}}

    def states():
        return {name: rule.init(params) for name, rule in optimizer.build(config).items()}

    clipped = jax.tree.structure(states())
    config.optimizer.clip_norm = 0.0
    assert jax.tree.structure(states()) == clipped
    rule, grads = optimizer.build(config)["avatar"], jax.tree.map(lambda a: 1e6 * a, params)
    _, after = rule.update(grads, states()["avatar"], params)
    assert max(float(leaf.max()) for leaf in jax.tree.leaves(after)) > 1e5, "nothing is clipped"


def test_training_checks_what_it_resumes_and_notes_what_changes(config, tmp_path, monkeypatch):
    def idle(train_state, batch):
        del batch
        return dataclasses.replace(train_state, step=train_state.step + 1), {}

    picture = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(loop.step, "make", lambda *_: idle)
    monkeypatch.setattr(loop.sample_grid, "make", lambda *_: lambda *_: (picture, {}))
    config.motion_pretrain.steps, config.train.steps = 0, 1
    loop.train(config, tmp_path / "run")
    config.train.steps = 2
    with pytest.raises(cli.UserError, match=r"--init_from=elsewhere: .* began without it"):
        loop.train(config, tmp_path / "run", "elsewhere")
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e-5, 0.0
    for _ in range(2):  # the second time nothing is left to do, and nothing to note
        config.train.log_every += 1
        assert int(loop.train(config, tmp_path / "run").step) == 2
        (line,) = provenance.read(tmp_path / "run")["changes"]
        assert line["step"] == 1 and line["optimizer.clip_norm"] == [1.0, 0.0]


def test_whatever_else_differs_is_named_in_full_with_both_values(run, config):
    config.optimizer.multipliers.decoder, config.data.mirror = 9.0, 0.25
    config.train.resolutions = ((0, 16), (2, 32))
    said = (
        r"another configuration: data\.mirror was 0\.5 and is 0\.25, "
        r"optimizer\.multipliers\.decoder was 4\.0 and is 9\.0, "
        r"train\.resolutions was \[\] and is \[\[0, 16\], \[2, 32\]\]; give another --workdir"
    )
    with pytest.raises(cli.UserError, match=said):
        same_run.check(run, config)
    with pytest.raises(cli.UserError, match=r"is .*, \d+ more; give another --workdir"):
        same_run.check(run, config_lib.Config(data=config.data))


def test_seed_losses_averages_and_model_stay_those_of_the_run(run, config):
    config.seed, config.model.raster_mode, config.loss.l1 = 7, "antialiased", 0.5
    config.loss.start.lpips, config.optimizer.ema_decay, config.adversarial.r1 = 3, 0.5, 0.5
    config.motion_pretrain.steps, config.data.batch_size = 9, 8
    with pytest.raises(cli.UserError, match="another configuration") as caught:
        same_run.check(run, config)
    named = re.findall(r"([a-z_0-9.]+) was ", str(caught.value))
    assert sorted(named) == [
        "adversarial.r1",
        "data.batch_size",
        "loss.l1",
        "loss.start.lpips",
        "model.raster_mode",
        "motion_pretrain.steps",
        "optimizer.ema_decay",
        "seed",
    ]


def test_packs_are_known_by_what_they_hold(run, config, tmp_path, monkeypatch):
    (pack,) = config.data.packs
    shutil.copytree(pack, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    for path in ("copy", "copy/", "../" + tmp_path.name + "/copy", os.path.relpath(pack)):
        config.data.packs = (path,)
        same_run.check(run, config)
    shutil.rmtree("copy")
    source = synthetic.write_pack(tmp_path / "source", ["other0", "other1"], image_size=64)
    packing.pack(source, tmp_path / "copy", packing.Options(image_size=64), workers=1)
    config.data.packs = ("copy",)
    said = (
        rf"learns from {pack} \(40 people, blob00 to blob39, content \w+\), and data\.packs is now "
        rf"copy \(2 people, other0 to other1, content \w+\); .*--workdir=NEW --init_from={run}"
    )
    with pytest.raises(cli.UserError, match=said):
        same_run.check(run, config)


def test_the_same_packs_in_another_order_are_told_so(run, config, pack, tmp_path):
    source = synthetic.write_pack(tmp_path / "source", ["other0", "other1"], image_size=64)
    packing.pack(source, tmp_path / "other", packing.Options(image_size=64), workers=1)
    config.data.packs = (str(pack), str(tmp_path / "other"))
    checkpointer = checkpoint.RunCheckpointer(tmp_path / "run")
    checkpointer.save(at(1), {}, config)
    checkpointer.close()
    provenance.write(tmp_path / "run", provenance.record(config))
    config.data.packs = config.data.packs[::-1]
    with pytest.raises(cli.UserError, match="give them in that order"):
        same_run.check(tmp_path / "run", config)


def test_facts_that_are_missing_or_spoilt(run, config, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / provenance.FILE_NAME).write_text("")
    with pytest.raises(cli.UserError, match=r"provenance\.json: not valid JSON"):
        same_run.check(tmp_path / "run", config)
    (tmp_path / "run" / provenance.FILE_NAME).unlink()
    same_run.check(tmp_path / "run", config, "who knows")


def test_other_weights_than_the_run_began_with_are_refused(run, config, tmp_path, monkeypatch):
    def start(**given):
        return same_run.check(tmp_path / "run", config, **given)

    shutil.copytree(run, tmp_path / "run")
    said = r"--init_from=/none: --workdir=.*run holds a run already, which began without it; leave"
    with pytest.raises(cli.UserError, match=said):
        start(init_from="/none")
    with pytest.raises(cli.UserError, match=said):
        list(dry_run.describe(config, tmp_path / "run", "/none"))
    facts = provenance.read(run) | {"init_from": {"folder": "weights/a"}}
    provenance.write(tmp_path / "run", facts)
    monkeypatch.chdir(tmp_path)
    for same in (None, "weights/a", "weights/../weights/a/", str(tmp_path / "weights" / "a")):
        start(init_from=same)
    with pytest.raises(cli.UserError, match=r"weights/b: .* which began with weights/a; leave"):
        start(init_from="weights/b")


def test_a_run_without_provenance_knows_its_packs_by_their_paths(run, config, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / provenance.FILE_NAME).unlink()
    same_run.check(tmp_path / "run", config)
    config.data.packs = (config.data.packs[0] + "/",)
    with pytest.raises(cli.UserError, match=r"configuration: data\.packs was "):
        same_run.check(tmp_path / "run", config)


def test_a_step_that_is_not_finite_says_what_to_change(config, tmp_path):
    config.motion_pretrain.steps, config.loss.adversarial = 4, 0.1
    config.optimizer.clip_norm, config.loss.start.adversarial = 0.0, 2
    motion = loop._way_on(config, tmp_path, 3, None)
    assert "--config.motion_pretrain.learning_rate below 0.001, or set --config.opt" in motion
    assert "clip_norm (now 0) to" in motion
    assert motion.endswith("begins anew, because nothing is saved yet")
    avatar = loop._way_on(config, tmp_path, 4, 2)
    assert "add --config.optimizer.learning_rate below 0.0004, or" in avatar
    assert "resumes at step 2. If it stops again, " in avatar
    assert f"remove {tmp_path / 'checkpoints' / '2'}, too" in avatar
    judged = loop._way_on(config, tmp_path, 6, 2)
    assert "below 0.0004 or --config.adversarial.learning_rate below 0.0001, or set" in judged
    named = set(re.findall(r"--config\.([a-z_.]+)", motion + avatar + judged))
    assert len(named) == 4 and named <= same_run._FREE, "the run resumes with all that it names"
