"""The table of costs: counts that can be checked by hand, and it says what was not measured."""

import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from benchmarks import cost_table, stage_cost, table
from configs import demo
from instant_gs import models, rendering


@pytest.fixture(scope="module")
def result():
    return stage_cost.record(demo.get_config("smoke"), 16, timed=False)


def test_counts_are_those_of_the_layers(result):
    rows = result["stages"]
    assert list(rows) == ["encode", "motion code", "motion", "fold", "decode", "rasterize"]
    # Two codes of 512 to 2 x 32 numbers, one product, whose matrix is multiplied by its gain first.
    assert rows["motion"]["gflop"] == pytest.approx((2 + 1) * 1024 * 64 / 1e9, rel=0.1)
    # 256 Gaussians through four layers.
    layers = 32 * 64 + 64 * 32 + 32 * 64 + 64 * 14
    assert rows["decode"]["gflop"] == pytest.approx(2 * 256 * layers / 1e9, rel=0.3)
    # One tile, all 256 Gaussians of the head in it; the dense reference takes about 30 a pixel.
    assert rows["rasterize"]["gflop"] == pytest.approx(30 * 256 * 16**2 / 1e9, rel=0.2)
    for name, row in rows.items():
        assert row["least_megabytes"] > 0 and row["milliseconds"] == {}
        if name != "rasterize":
            assert row["gflop"] > 0 and row["megabytes"] > 0.5 * row["least_megabytes"]
    assert rows["encode"]["gflop"] > 2 * rows["decode"]["gflop"]


def test_splats_cost_the_pixels_of_the_tiles_that_they_touch():
    lens, view = np.array([[[64.0, 0, 32], [0, 64, 32], [0, 0, 1]]]), np.eye(4)[None]

    def cost(*pixels):
        """Of splats a pixel wide, each at a pixel (x, y) of 64 x 64, one unit from the camera."""
        means = np.array([[(x - 32) / 64, (y - 32) / 64, 1] for x, y in pixels])
        count, cameras = len(pixels), (view, lens)
        quats, small = np.tile([1.0, 0, 0, 0], (count, 1)), np.full((count, 3), 1 / 64)
        scene = (means, quats, small, np.full(count, 0.5), np.ones((count, 3)))
        scene, cameras = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (scene, cameras))
        return stage_cost.rasterizer_flops(
            scene, cameras, image_size=(64, 64), options=kernels.RasterizeOptions()
        )

    one_tile, outside = cost((24, 24)), cost((-500, 24))
    tile = one_tile - outside
    assert tile == pytest.approx(30 * 16**2, rel=0.1) and 0 < outside < tile
    assert cost((32, 24)) - outside == pytest.approx(2 * tile)
    assert cost((32, 32)) - outside == pytest.approx(4 * tile)
    assert cost((24, 24), (8, 40)) == pytest.approx(2 * one_tile)


@pytest.mark.parametrize("name", ["fold", "rasterize"])
def test_a_stage_is_timed(name):
    stage = stage_cost.stages(demo.get_config("smoke"), 16)[name]
    times = stage_cost.measure(stage, timed=True)["milliseconds"]["cpu"]
    assert 0 < times["least"] <= times["median"] <= times["most"] < 1e5


def test_the_head_that_is_timed_fills_the_picture():
    config = demo.get_config("smoke")
    stage = stage_cost.stages(config, 32)["rasterize"]
    (head,) = stage.example()
    assert jax.tree.map(jnp.shape, head) == jax.tree.map(lambda leaf: leaf.shape, *stage.arguments)
    image = stage.function(head)
    assert image.shape == (1, 32, 32, 3) and (np.asarray(image).max(-1) > 0.05).mean() > 0.3


@pytest.mark.parametrize(("mode", "size"), [("antialiased", 32), ("classic", 64)])
def test_the_frame_is_drawn_as_the_model_draws(mode, size, monkeypatch):
    config, seen = demo.get_config("smoke"), []
    config.model.raster_mode = mode

    def spy(gaussians, camera, *, image_size, options):
        seen.append((image_size, options))
        return SimpleNamespace(image=gaussians.colors)

    stage = stage_cost.stages(config, size)["rasterize"]
    monkeypatch.setattr(rendering, "render", spy)
    stage.function(*stage.arguments)
    assert seen == [((size, size), models.build(config.model).raster_options(size))]
    assert seen[0][1] != kernels.RasterizeOptions(), "not what nobody asked for"


def timed_on(platform, result, milliseconds):
    """The record as if it had been timed there."""
    timed = json.loads(json.dumps(result))
    for row in timed["stages"].values():
        row["milliseconds"] = {platform: {"median": milliseconds, "least": 0.5, "most": 2.5e4}}
    return timed | {"timed_on": {platform: stage_cost._machine()}}


def test_table_tells_the_times_and_what_was_not_measured(result):
    text = cost_table.cost(timed_on("cpu", result, 1234.5))
    assert text.count("| 1,234 (0.5 to 25,000) | not measured |") == 6
    assert " | not counted | " in re.search("^[|] rasterize .*", text, re.MULTILINE)[0]
    assert "| a photo (encode, motion code, fold) |  |  |  | 3,704 | not measured |" in text
    assert "compiles, processor time of all threads, " in text and "elapsed" not in text
    assert cost_table.cost(result).count("not measured | not measured |") == 8


def test_times_of_the_other_platform_are_kept(result):
    both = stage_cost.with_other_times(
        timed_on("gpu", result, 2.0), timed_on("cpu", result, 1234.5)
    )
    text = cost_table.cost(both)
    assert text.count("| 1,234 (0.5 to 25,000) | 2 (0.5 to 25,000) |") == 6
    assert "processor time of all threads, " in text and "elapsed time, " in text
    newer = stage_cost.with_other_times(timed_on("cpu", result, 3.0), both)
    times = newer["stages"]["fold"]["milliseconds"]
    assert (times["cpu"]["median"], times["gpu"]["median"]) == (3.0, 2.0)
    for change in ({"frame": 1024}, {"model": "other"}):
        other = timed_on("gpu", result, 2.0) | change
        assert stage_cost.with_other_times(other, both) == other, "of another frame or model"


def test_the_least_traffic_is_what_goes_in_and_what_comes_out():
    stage = stage_cost.Stage(lambda x: jnp.stack([x, 2 * x, 3 * x]), (stage_cost._shape(1000),))
    assert stage_cost.measure(stage, timed=False)["least_megabytes"] == pytest.approx(4 * 4e-3)


def test_the_committed_counts_are_those_of_the_reference():
    stored = json.loads(table.COST.read_text(encoding="utf-8"))
    # Counted independently for the reference: 563, 99 and, unfolded with 22 outputs, 9.6.
    assert stored["stages"]["encode"]["gflop"] == pytest.approx(563, rel=0.1)
    assert stored["stages"]["motion code"]["gflop"] == pytest.approx(99, rel=0.15)
    assert 7 < stored["stages"]["decode"]["gflop"] < 9.6
