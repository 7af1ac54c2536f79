"""Splats a thousand times as long as thick and more: where float32 leaves rounding errors alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions
from kernels.rasterize import cases
from tests.kernels import triton_scene as ts

SIZE = (40, 44)


def _scene(kind: str) -> dict[str, np.ndarray]:
    scene = cases.random_scene(
        4,
        cases.turned_views([0.2], 2.5),
        cases.pinhole((48.0, 46.0), (22.0, 19.5)),
        splats=32,
        log_scale=(-9.0, 5.0),
        opacity=(0.05, 0.95),
    )
    if kind == "needles":
        length = np.exp(np.random.default_rng(7).uniform(-1.0, 3.0, 32))
        scene["scales"] = np.stack([length, np.full(32, 1e-5), np.full(32, 1e-5)], axis=1)
    return {name: np.asarray(array, np.float32) for name, array in scene.items()}


@pytest.mark.parametrize("implementation", [pytest.param("triton", marks=ts.MARKS), "xla"])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("kind", ["plates and needles", "needles"])
def test_they_are_those_of_float64(kind, mode, implementation):
    options = RasterizeOptions(mode=mode, capacity=4096, on_overflow="count")
    single = _scene(kind)
    with jax.enable_x64(True):
        exact = {name: jnp.asarray(array, jnp.float64) for name, array in single.items()}
        expected, expected_grads = jax.tree.map(
            np.asarray, ts.value_and_grad("reference", SIZE, options)(exact)
        )
    out, grads = ts.value_and_grad(implementation, SIZE, options)(single)
    if (kind, mode) != ("needles", "antialiased"):  # which hardly shows anything as thin
        assert np.mean(expected.alpha) > 0.1, "the scene must be seen"
    ts.assert_same(out.image, expected.image, "image", 1e-5)
    for name in ts.NAMES:
        # How thick a splat is that the filter makes as thick as a pixel hardly matters.
        bound = 2e-3 if name == "scales" else 1e-4
        ts.assert_same(grads[name], expected_grads[name], f"gradient of {name}", bound)


@pytest.mark.parametrize("implementation", [pytest.param("triton", marks=ts.MARKS), "xla"])
@pytest.mark.parametrize("scales", [(0.6, 1e-20, 1e-3), (0.6, 1e-19, 1e-19), (1e-20, 1e-20, 1e-20)])
def test_without_the_filter_nothing_is_too_thin(scales, implementation):
    """Their covariance has no inverse in float32: they are as if absent, and give no NaN."""
    scene = ts.make_scene(3)
    thin = scene["scales"].at[::2].set(jnp.array(scales))
    options = RasterizeOptions(eps2d=0.0, on_overflow="count", tile_size=(8, 8))
    run = ts.value_and_grad(implementation, ts.SIZE, options)
    out, grads = run(dict(scene, scales=thin))
    expected, _ = run(dict(scene, opacities=scene["opacities"].at[::2].set(0.0)))
    assert np.array_equal(out.image, expected.image)
    for name in ts.NAMES:
        assert np.all(np.isfinite(grads[name])), f"gradient of {name}"
    assert not np.any(np.asarray(grads["means"])[::2])
