"""A dry run says what is there and touches nothing."""

import dataclasses
import json
import re
import shutil
import signal
import types

import jax
import jax.numpy as jnp
import pytest

from instant_gs import cli, models
from instant_gs.data import packing, synthetic
from instant_gs.data.error import PackError
from instant_gs.training import (
    checkpoint,
    curriculum,
    device_peak,
    dry_run,
    loop,
    parallel,
    profile,
    state,
)
from tests import own_process


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_describes_the_run_and_writes_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        curriculum, "phases", lambda _: [curriculum.Phase("motion")]
    )  # quicker to compile
    model = models.build(config.model)
    fresh = state.create(model, config)
    checkpointer = checkpoint.RunCheckpointer(tmp_path / "run")
    for number in (2, 3):
        checkpointer.save(dataclasses.replace(fresh, step=jnp.int32(number)), {}, config)
    checkpointer.close()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3" / "config")
    config.optimizer.learning_rate = 1e-5
    before = _files(tmp_path)
    text = "\n".join(dry_run.describe(config, tmp_path / "run"))
    assert _files(tmp_path) == before
    counts = {name: sum(a.size for a in jax.tree.leaves(p)) for name, p in fresh.params.items()}
    for name, count in counts.items():
        assert re.search(rf"parameters +{count:,} {name}", text), text
    assert f"{sum(counts.values()):,} in all" in text
    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(fresh)) / 1e6
    assert f"{megabytes:,.1f} MB a device" in text
    assert "warning       checkpoint 3 is broken and would be moved aside: " in text
    assert "would resume" in text and "at step 2 of 8" in text
    assert "changes       optimizer.learning_rate was 0.0004 and is 1e-05" in text
    found = re.search(r"motion step: ([\d.]+) MB a device \(([\d.]+) arguments", text)
    total, arguments = map(float, found.groups())
    assert total > arguments >= round(megabytes, 1)  # printed to a tenth
    flops, steps, timed = re.search(
        r"motion step: (\S+) FLOPs .* at most (\S+) steps/s at the ([\d,]+) GFLOP/s that a matrix "
        r"product has on this cpu now, an upper bound",
        text,
    ).groups()
    assert float(flops) > 1000
    speed = 1e9 * float(timed.replace(",", ""))
    assert float(steps) * float(flops) == pytest.approx(speed, rel=0.05)


@pytest.mark.parametrize("does", ["describe", "train"])
def test_a_pack_of_another_view_is_refused(does, config, tmp_path):
    config.model.fov_degrees = 18.837
    (pack,) = config.data.packs
    message = (
        rf"^{re.escape(pack)}: .*view of 23\.28 degrees .*the model's one of 18\.837 \(4\.263\); "
        r".*--config\.model\.fov_degrees=23\.28$"
    )
    with pytest.raises(cli.UserError, match=message):
        if does == "train":
            loop.train(config, tmp_path / "run")
        else:
            list(dry_run.describe(config, tmp_path / "run"))


def _small_frames(config, _):
    config.model.image_size = 128


def _no_coefficients(config, folder):
    source = synthetic.write_pack(folder / "source", ["ada"], image_size=64)
    path = source / "ada" / "identity.json"
    content = json.loads(path.read_text())
    for one in content["clips"]:
        one["coefficients"] = None
    path.write_text(json.dumps(content))
    packing.pack(source, folder / "packed", packing.Options(image_size=64), workers=1)
    config.data.packs = (str(folder / "packed"),)


def _missing_shard(config, folder):
    shutil.copytree(config.data.packs[0], folder / "packed")
    config.data.packs = (str(folder / "packed"),)
    next((folder / "packed" / "shards").glob("*.array_record")).unlink()


@pytest.mark.parametrize("does", ["describe", "train"])
def test_what_is_used_of_each_pack_is_said_once(does, config, tmp_path, monkeypatch, capfd):
    names = synthetic.names_in_split("train", 3)
    source = synthetic.write_pack(
        tmp_path / "source", names, monocular=names[:1], image_size=64, frames=2
    )
    packing.pack(source, tmp_path / "packed", packing.Options(image_size=64), workers=1)
    config.data.packs += (str(tmp_path / "packed"),)
    if does == "train":
        monkeypatch.setattr(loop, "_run", lambda *_: None)
        loop.train(config, tmp_path / "run")
        said = capfd.readouterr().out
    else:
        monkeypatch.setattr(curriculum, "phases", lambda _: [])
        said = "\n".join(dry_run.describe(config, tmp_path / "run"))
    lines = [line for line in said.splitlines() if line.startswith("data")]
    assert len(lines) == 2 and f"{config.data.packs[0]}: split train uses " in lines[0]
    assert f"{config.data.packs[1]}: split train uses 2 of 3 people, 12 of 14 clips, " in lines[1]
    assert lines[1].endswith("; 2 clips left out: their camera is unknown")


@pytest.mark.parametrize("does", ["describe", "train"])
@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_small_frames, r"its frames are \(64, 64\), image_size \(128, 128\) is larger"),
        (_no_coefficients, "clips have no coefficients, and motion_pretrain learns from them"),
        (_missing_shard, r"\.array_record: missing"),
    ],
)
def test_packs_that_training_refuses_are_refused(does, prepare, message, config, tmp_path):
    prepare(config, tmp_path)
    with pytest.raises(PackError, match=message):
        if does == "train":
            loop.train(config, tmp_path / "run")
        else:
            list(dry_run.describe(config, tmp_path / "run"))


def test_a_broken_pack_is_described_if_training_would_skip_the_records(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(curriculum, "phases", lambda _: [])
    _missing_shard(config, tmp_path)
    config.data.broken = "skip"
    text = "\n".join(dry_run.describe(config, tmp_path / "run"))
    assert re.search(r"data +\S+/packed: split train uses \d+ of \d+ people, ", text), text


@pytest.mark.parametrize("steps", [0, 4])
def test_it_warns_of_a_motion_encoder_that_stays_as_it_was_drawn(
    steps, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(curriculum, "phases", lambda _: [])
    config.motion_pretrain.steps = steps
    text = "\n".join(dry_run.describe(config, tmp_path / "run"))
    assert ("\nwarning       the motion encoder is frozen as it was drawn" in text) == (steps == 0)


def test_sharing_the_state_divides_it(config, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED_SIZE", 1)
    config.train.shard_parameters = 4
    mesh = parallel.mesh_of(config)
    fresh = state.create(models.build(config.model), config)
    placed = parallel.place(fresh, mesh)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(fresh))
    part = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(placed))
    assert part < 0.3 * whole


def test_the_table_of_peaks_knows_two_precisions():
    assert device_peak.flops_per_second("NVIDIA H100 80GB HBM3", "bfloat16") == 989.5e12
    assert device_peak.flops_per_second("NVIDIA H100 80GB HBM3", "float32") == 494.5e12
    assert device_peak.flops_per_second("cpu", "float32") is None
    assert 1e8 < device_peak.timed("float32") < 1e15


def test_the_best_of_three_products_of_matrices_is_a_devices_peak(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    watch = types.SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr(device_peak, "time", watch)
    monkeypatch.setattr(device_peak, "_SIDE", 8)
    assert device_peak.timed("float32") == 2 * 8**3 / 2.0, "a product and a sum are two"


@pytest.mark.parametrize("text", ["10", "15,10", "0,3", "a,b", "1,2,3", "1,,2"])
def test_a_wrong_window_is_a_clear_error(text):
    with pytest.raises(cli.UserError, match="--profile_steps="):
        profile.parse(text)
    assert profile.parse("10,15") == (10, 15)


def test_sigterm_ends_it_at_once():
    program = """
import signal, sys
from instant_gs import cli
from instant_gs.training import dry_run
import train
dry_run.describe = lambda *_: [str(signal.getsignal(signal.SIGTERM))]
sys.argv = ["train.py", "--config=configs/demo.py:smoke", "--workdir=none", "--dry_run"]
cli.run(train.main)
"""
    assert own_process.python(program).strip() == str(signal.SIG_DFL)
