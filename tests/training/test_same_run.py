"""What a command may change in the run that it goes on with, and what it must not."""

import json
import os
import shutil

import pytest

from configs import demo
from instant_gs import cli
from instant_gs import config as config_lib
from instant_gs.data import packing, synthetic
from instant_gs.training import checkpoint, provenance, same_run
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
    config.model.encoder.remat = not config.model.encoder.remat
    train = config.train
    train.steps, train.accumulate, train.shard_parameters, train.log_every = 99, 2, 2, 7
    same_run.check(run, config)
    assert len(same_run.changes(checkpoint.read_run_config(run), config)) == 8


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


def test_a_run_that_noted_no_content_knows_its_packs_by_their_paths(run, config, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    facts = provenance.read(run)
    for noted in facts["packs"].values():
        del noted["content_sha256"]
    (tmp_path / "run" / provenance.FILE_NAME).write_text(json.dumps(facts))
    same_run.check(tmp_path / "run", config)
    config.data.packs = (config.data.packs[0] + "/",)
    with pytest.raises(cli.UserError, match=r"configuration: data\.packs was "):
        same_run.check(tmp_path / "run", config)
