"""The Triton backend against the dense oracle and the golden files: values and all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions
from tests.kernels import compare
from tests.kernels import triton_scene as ts

pytestmark = ts.MARKS

GOLDEN_NAMES = ("classic_64", "antialiased_80x52", "near_plane_offcentre_depth", "two_cameras_5ch")


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_modes(mode):
    out, _ = ts.assert_parity(
        ts.make_scene(splats=48), options=RasterizeOptions(mode=mode, on_overflow="count")
    )
    assert 0.1 < float(out.alpha.mean()) < 0.9, "a scene that shows nothing proves nothing"


@pytest.mark.parametrize("channels", [1, 5, 18, 34])  # the last ones more than a program blends
def test_channels(channels):
    ts.assert_parity(ts.make_scene(1, channels=channels))


def test_skewed_intrinsics():
    scene = ts.make_scene(22)
    scene["intrinsics"] = scene["intrinsics"].at[0, 0, 1].set(7.0).at[0, 1, 0].set(-5.0)
    ts.assert_parity(scene)


def test_several_cameras_sum_gradients_of_shared_splats():
    ts.assert_parity(ts.make_scene(2, cameras=3))


def test_expected_depth_and_preset():
    options = RasterizeOptions.preset(
        "inria", mode="antialiased", expected_depth=True, on_overflow="count"
    )
    ts.assert_parity(ts.make_scene(3), options=options)


@pytest.mark.parametrize("eps2d", [0.0, 1.5])
def test_filter_and_depth_bounds(eps2d):
    options = RasterizeOptions(
        mode="antialiased", eps2d=eps2d, near=3.8, far=4.5, on_overflow="count"
    )
    scene = ts.make_scene(21)
    depths = scene["means"] @ scene["viewmats"][0, 2, :3] + scene["viewmats"][0, 2, 3]
    assert 0 < np.sum(depths < 3.8) and 0 < np.sum(depths > 4.5), "both bounds must cut"
    out, _ = ts.assert_parity(scene, options=options)
    assert float(out.alpha.max()) > 0.05


@pytest.mark.parametrize("size", [(1, 1), (7, 25)])
def test_sizes_that_are_no_multiple_of_the_tile(size):
    ts.assert_parity(ts.make_scene(4, size=size), size=size)


@pytest.mark.parametrize("tile", [(4, 8), (16, 16)])
def test_same_image_for_every_tile_size(tile):
    scene = ts.make_scene(5)
    options = RasterizeOptions(tile_size=tile, on_overflow="count")
    ts.assert_parity(scene, options=options)


@pytest.mark.parametrize("tile", [(12, 12), (64, 1), (2, 2)])
def test_tile_sizes_that_kernels_lack_are_refused(tile):
    options = RasterizeOptions(tile_size=tile, on_overflow="count")
    with pytest.raises(NotImplementedError, match="tile_size"):
        ts.render(ts.make_scene(splats=4), options=options)


def test_float64_is_refused():
    scene = ts.make_scene(splats=4)
    with jax.enable_x64(True):
        scene = {name: jnp.asarray(np.asarray(a), jnp.float64) for name, a in scene.items()}
        with pytest.raises(NotImplementedError, match="float32"):
            ts.render(scene)


def test_opaque_stack_stops_like_the_oracle():
    scene = ts.make_scene(6)
    scene["opacities"] = jnp.full(ts.SPLATS, 0.97)
    scene["scales"] = jnp.broadcast_to(jnp.array([0.5, 0.4, 0.3]), (ts.SPLATS, 3))
    out, _ = ts.assert_parity(scene)
    assert float(out.alpha.max()) > 0.999


def test_runs_are_bit_identical():
    scene = ts.make_scene(7)
    run = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)
    first = jax.tree.leaves(run(scene))
    for _ in range(20 if ts.HAS_GPU else 1):
        for one, other in zip(first, jax.tree.leaves(run(scene)), strict=True):
            assert np.array_equal(one, other), "two runs differ"


def _moved(scene: dict, name: str, direction: np.ndarray, step: float) -> dict:
    scene = {key: np.asarray(array, np.float64) for key, array in scene.items()}
    scene[name] = scene[name] + step * direction
    return {key: jnp.asarray(array) for key, array in scene.items()}


def test_gradients_are_slopes():
    """Along random directions, one array at a time; the slope is the oracle's in float64."""
    scene, step = ts.make_scene(16), 1e-6
    _, grads = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)(scene)
    with jax.enable_x64(True):
        loss = jax.jit(lambda scene: ts.functional("reference", ts.SIZE, ts.COUNT)(scene)[0])
        for seed, name in enumerate(ts.NAMES):
            direction = np.random.default_rng(seed).normal(size=scene[name].shape)
            if name in ("viewmats", "intrinsics"):
                direction[:, -1] = 0.0  # the last rows are constant
            direction /= np.linalg.norm(direction)
            ends = [float(loss(_moved(scene, name, direction, sign * step))) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope) > 1e-4, f"{name}: the direction must matter"
            actual = float(np.sum(np.asarray(grads[name], np.float64) * direction))
            assert np.isclose(actual, slope, rtol=2e-3, atol=1e-4), f"{name}: {actual} for {slope}"


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden(name):
    (path,) = (path for path in compare.FILES if path.stem == f"raster_{name}")
    pairs = compare.evaluate(path, "triton", jnp.float32, tile_size=(16, 16))
    for what, pair in pairs.items():
        ts.assert_same(*pair, f"{name}: {what}")
    actual, expected = pairs["image"]
    off = np.mean(np.abs(actual - expected) > 1e-4)
    assert off < 1e-3, f"{name}: {off:.2%} of the values off by more than 1e-4"
    errors = {what: compare.relative_error(*pair) for what, pair in pairs.items()}
    worst = max(ts.NAMES, key=errors.get)
    print(f"{name}: image {errors['image']:.1e}, worst gradient {errors[worst]:.1e} ({worst})")
