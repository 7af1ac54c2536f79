"""Sample pictures: what is in which column, and their scores."""

import dataclasses
import json
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import rendering, types
from instant_gs.data import packing, synthetic
from instant_gs.geometry import camera as camera_lib
from instant_gs.training import loop, objective, sample_grid, step


def _view(level, *lead):
    """Evenly grey pictures from the front."""
    pose = np.broadcast_to(camera_lib.look_at(0.0, 0.0), (*lead, 4, 4))
    intrinsics = np.broadcast_to(camera_lib.intrinsics(), (*lead, 3, 3))
    image = np.full((*lead, 4, 4, 3), level, np.uint8)
    return types.View(image, image[..., 0], image[..., 0], pose, intrinsics, None)


def test_each_column_shows_what_it_is_called(monkeypatch):
    def render(gaussians, camera, *, image_size, options):
        light = gaussians.colors.mean((-2, -1))
        image = jnp.broadcast_to(light[..., None, None, None], (*light.shape, *image_size, 3))
        return rendering.Rendered(image, None, None, None)

    some = jnp.zeros((2, 2, 3, 3))
    colors = jnp.array([0.2, 0.4]).reshape(1, 2, 1, 1) + some  # at rest and moved
    lengths = jnp.array([[0.0, 1.0, 2.0], [0.0, 4.0, 8.0]])
    residuals = jnp.zeros((2, 1, 3, 4)).at[:, 0, :, 0].set(lengths)
    posed = objective.Posed(
        types.Gaussians(some, some, some, some[..., 0], colors), residuals, None
    )
    monkeypatch.setattr(objective, "animated_and_rest", lambda *_: posed)
    monkeypatch.setattr(rendering, "render", render)
    model = python_types.SimpleNamespace(raster_options=lambda size: None)
    batch = types.Batch(_view(10, 2), _view(20, 2), _view(60, 2, 1), _view(30, 2, 1))
    picture, _ = sample_grid.make(model, None)({}, batch)
    expected = {name: 102 for name in sample_grid.COLUMNS} | {
        "source": 10,
        "driver": 30,
        "truth": 60,
        "error x 3": 126,
        "no motion": 51,
        "residual": 128,
    }
    for row in picture.reshape(2, 4, -1, 4, 3).mean((1, 3, 4)):
        assert dict(zip(sample_grid.COLUMNS, row, strict=True)) == expected


def test_side_views_are_named_by_the_sides_of_the_head(monkeypatch):
    """Its left is at +x, as everywhere (docs/conventions.md)."""

    def render(gaussians, camera, *, image_size, options):
        """White where the camera stands at the head's left, grey ahead of it."""
        side = 0.5 + 0.5 * jnp.sign(camera.cam2world[..., 0, 3].round(3))
        image = jnp.broadcast_to(side[..., None, None, None], (*side.shape, *image_size, 3))
        return rendering.Rendered(image, None, None, None)

    some = jnp.zeros((1, 2, 3, 3))
    gaussians = types.Gaussians(some, some, some, some[..., 0], some)
    posed = objective.Posed(gaussians, jnp.zeros((1, 1, 3, 4)), None)
    monkeypatch.setattr(objective, "animated_and_rest", lambda *_: posed)
    monkeypatch.setattr(rendering, "render", render)
    model = python_types.SimpleNamespace(raster_options=lambda size: None)
    batch = types.Batch(_view(0, 1), _view(0, 1), _view(0, 1, 1), _view(0, 1, 1))
    picture, _ = sample_grid.make(model, None)({}, batch)
    shown = picture.reshape(4, -1, 4, 3).mean((0, 2, 3))
    columns = dict(zip(sample_grid.COLUMNS, shown, strict=True))
    assert (columns["from its right"], columns["result"], columns["from its left"]) == (0, 128, 255)


def test_scores_are_means_over_the_pictures():
    truth = np.zeros((2, 4, 4, 3), np.float32)
    result = truth + np.array([0.1, 0.01], np.float32)[:, None, None, None]
    scores = sample_grid._scores(result, truth)
    assert scores["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert scores["l1"] == pytest.approx(0.055, abs=1e-6)
    too_bright = sample_grid._scores(truth + 1.5, truth + 0.9)
    assert too_bright["psnr"] == pytest.approx(20, abs=1e-3), "as the picture shows it"


@pytest.mark.parametrize("held_out", [True, False])
def test_scores_are_logged_of_people_whom_training_does_not_see(
    held_out, config, tmp_path, monkeypatch
):
    config.motion_pretrain.steps, config.train.steps = 0, 2
    config.train.image_every, config.train.log_every = 1, 2
    if not held_out:
        names = synthetic.names_in_split("train", 2)
        source = synthetic.write_pack(tmp_path / "source", names, image_size=64)
        packing.pack(source, tmp_path / "packed", packing.Options(image_size=64), workers=1)
        config.data.packs = (str(tmp_path / "packed"),)

    def idle(train_state, batch):
        del batch
        return dataclasses.replace(train_state, step=train_state.step + 1), {}

    drawn = np.zeros((8, 8, 3), np.uint8), {"psnr": 20.5, "l1": 0.25}
    monkeypatch.setattr(step, "make", lambda *_: idle)
    monkeypatch.setattr(sample_grid, "make", lambda *_: lambda *_: drawn)
    loop.train(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    scores = [line for line in map(json.loads, lines) if "validation/psnr" in line]
    expected = [{"step": n, "validation/psnr": 20.5, "validation/l1": 0.25} for n in (1, 2)]
    assert scores == (expected if held_out else [])
