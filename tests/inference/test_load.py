"""Weights in a folder: what is loaded, by which name, and what damage is noticed."""

import shutil

import numpy as np
import pytest

import instant_gs
from instant_gs import cli
from instant_gs.training import weights
from tests.inference import tiny


@pytest.fixture(scope="module")
def engine():
    return tiny.build()


def test_load_reads_what_training_exported(engine, tmp_path):
    photos = tiny.photos()
    weights.save(tmp_path / "weights", engine.config, engine.params, {"commit": "x"})
    loaded = instant_gs.load(tmp_path / "weights")
    assert loaded.config == engine.config and loaded.culling == "envelope"
    # Stored in bfloat16.
    np.testing.assert_allclose(
        loaded.motion_code(photos), engine.motion_code(photos), rtol=0.05, atol=0.05
    )
    with pytest.raises(FileNotFoundError, match="no such folder of weights"):
        instant_gs.load(tmp_path / "nowhere")


def test_weights_that_ship_go_by_name_unless_a_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert weights.find("demo") == weights.SHIPPED / "demo" and weights.find("demo").is_dir()
    assert instant_gs.load("demo").config.name == "demo"
    assert weights.find("other") == tmp_path / "other"
    assert weights.find("./demo") == tmp_path / "demo", "a path is a path"
    (tmp_path / "demo").mkdir()
    assert weights.find("demo") == weights.SHIPPED / "demo", "a folder of other things"
    (tmp_path / "demo" / "checkpoints").mkdir()
    assert weights.find("demo") == tmp_path / "demo"


def test_damaged_weights_are_one_clear_error(engine, tmp_path):
    """A flipped bit, a cut file, and configurations that are none."""
    whole = tmp_path / "whole"
    weights.save(whole, engine.config, engine.params, {"commit": "x"}, half=False)
    largest = max((whole / "params").rglob("*"), key=lambda path: path.stat().st_size)
    name, data = largest.relative_to(whole), largest.read_bytes()
    damages = {
        f"damaged .{name}": (name, data[:-1] + bytes([data[-1] ^ 1])),
        "damaged .*or missing": (name, data[:99]),
        "damaged .checksums.json or": ("checksums.json", b"{"),
        "damaged .checksums.json or provenance.json": ("provenance.json", b"\xff"),
        "config.json: Expecting": ("config.json", b'{"model": '),
        "config.model: expected fields": ("config.json", b'{"model": 3}'),
    }
    for number, (message, (name, data)) in enumerate(damages.items()):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(whole, copy)
        (copy / name).write_bytes(data)
        with pytest.raises(cli.UserError, match=rf"{copy}.*{message}.*copy the whole folder"):
            instant_gs.load(copy)
    (whole / "checksums.json").unlink()
    with pytest.raises(cli.UserError, match=r"damaged .checksums.json is missing.*copy the whole"):
        instant_gs.load(whole)
