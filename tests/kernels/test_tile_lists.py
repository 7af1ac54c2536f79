"""Tile lists of the xla backend: which splats are in which list, in which order, and the count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.rasterize import binning
from kernels.rasterize.projection import Projected


def _ellipses(seed: int, splats: int, grid: binning.TileGrid, deviation: float) -> dict:
    """Numbers of ellipses in and around a picture; `deviation`: a typical one, pixels."""
    rng = np.random.default_rng(seed)
    angle, sides = (
        rng.uniform(0, np.pi, splats),
        deviation * np.exp(rng.normal(0, 0.6, (2, splats))),
    )
    c, s = np.cos(angle), np.sin(angle)
    xx, yy = (c * sides[0]) ** 2 + (s * sides[1]) ** 2, (s * sides[0]) ** 2 + (c * sides[1]) ** 2
    xy, det = c * s * (sides[0] ** 2 - sides[1] ** 2), (sides[0] * sides[1]) ** 2
    return dict(
        mean_x=rng.uniform(-8, grid.width + 8, splats),
        mean_y=rng.uniform(-8, grid.height + 8, splats),
        conic_a=yy / det,
        conic_b=-xy / det,
        conic_c=xx / det,
        opacity=rng.uniform(0.01, 1.0, splats),
        depth=rng.choice([1.0, 1.5, 2.0, 2.5], splats),
        det=det,
    )


def _build(images: list[dict], visible: np.ndarray, grid: binning.TileGrid, capacity: int):
    stacked = {name: np.stack([image[name] for image in images]) for name in images[0]}
    projected = Projected(**{k: jnp.asarray(v, jnp.float32) for k, v in stacked.items()})
    build = jax.jit(lambda *arrays: binning.build(*arrays, grid, capacity))
    return jax.tree.map(np.asarray, build(projected, jnp.asarray(visible)))


@pytest.mark.parametrize("tile", [(4, 8), (8, 5)])
def test_a_list_holds_what_touches_its_tile_from_near_to_far(tile):
    grid, splats = binning.TileGrid(20, 28, *tile), 120
    ellipses = _ellipses(1, splats, grid, 1.5)
    reach = np.sqrt(2 * np.log(255 * ellipses["opacity"]) * ellipses["conic_c"] * ellipses["det"])
    visible = (ellipses["mean_x"] + reach > 0.5) & (ellipses["mean_x"] - reach < grid.width - 0.5)
    visible &= np.random.default_rng(2).uniform(size=splats) < 0.8
    lists = _build([ellipses], visible[None], grid, 4096)
    steps = 8  # between centres of pixels
    y, x = (0.5 + np.arange((side - 1) * steps + 1) / steps for side in (grid.height, grid.width))
    found, near = 0, 0
    for tile_index in range(grid.count):
        row, column = divmod(tile_index, grid.columns)
        top, left = row * tile[0], column * tile[1]
        ys = y[(y >= top + 0.5) & (y <= top + tile[0] - 0.5)][:, None]
        xs = x[(x >= left + 0.5) & (x <= left + tile[1] - 0.5)][None, :]
        inside = lists.splats[0, slice(*lists.starts[0, tile_index : tile_index + 2])]
        order = np.lexsort((inside, ellipses["depth"][inside]))
        assert np.array_equal(order, np.arange(len(inside))), "not from near to far"
        assert len(set(inside)) == len(inside) and visible[inside].all()
        for splat in np.flatnonzero(visible):
            at = {name: values[splat] for name, values in ellipses.items()}
            dx, dy = xs - at["mean_x"], ys - at["mean_y"]
            excess = 0.5 * (at["conic_a"] * dx * dx + at["conic_c"] * dy * dy)
            excess += at["conic_b"] * dx * dy - np.log(255 * at["opacity"])
            if np.min(excess[::steps, ::steps]) <= 0:
                assert splat in inside, "one is missing"
            found += splat in inside
            near += np.min(excess) <= 0.1
    assert found == lists.num_intersections[0] == lists.starts[0, -1]
    # `near` looks at points alone, and a few ellipses reach a tile between two of them.
    assert 100 < found <= near + 5, "more than the ellipses touch"


@pytest.mark.parametrize("capacity", [300, 100])
def test_an_image_that_needs_most_slots_is_not_the_first(monkeypatch, capacity):
    """Sizes are chosen for the one that needs most; what it needs is counted beyond them, too."""
    monkeypatch.setattr(binning, "_MIN_TIER", 16)
    grid = binning.TileGrid(20, 28, 2, 28)  # a tile a row: as many rows as tiles
    few, many = _ellipses(3, 25, grid, 0.01), _ellipses(4, 25, grid, 500.0)
    few |= {"mean_x": np.full(25, 14.5), "mean_y": np.full(25, 6.5), "opacity": np.ones(25)}
    many["opacity"] = np.ones(25)
    lists = _build([few, many], np.ones((2, 25), bool), grid, capacity)
    assert lists.num_intersections.tolist() == [25, 250]
    assert lists.starts[0].tolist() == [0] * 4 + [25] * 7
    assert lists.starts[1, -1] == min(250, capacity)
    nearest = [np.argsort(image["depth"], kind="stable") for image in (few, many)]
    np.testing.assert_array_equal(lists.splats[0, :25], nearest[0])
    for tile in range(grid.count):
        listed = lists.splats[1, slice(*lists.starts[1, tile : tile + 2])]
        np.testing.assert_array_equal(listed, nearest[1][: min(25, capacity // grid.count)])
