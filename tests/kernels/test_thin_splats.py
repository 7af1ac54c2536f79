"""Splats a thousand times as long as thick: where determinants spelled out are rounding errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions
from kernels.rasterize import cases
from tests.kernels import triton_scene as ts

SIZE = (24, 28)


def _scene() -> dict[str, np.ndarray]:
    return cases.random_scene(
        4,
        cases.turned_view(0.2, 2.5)[None],
        cases.pinhole((28.0, 26.0), (14.0, 11.5))[None],
        splats=48,
        log_scale=(-9.0, 5.0),
        opacity=(0.05, 0.95),
    )


@pytest.mark.parametrize("implementation", [pytest.param("triton", marks=ts.MARKS), "xla"])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_needles_are_those_of_float64(mode, implementation):
    options = RasterizeOptions(mode=mode, capacity=4096, on_overflow="count")
    single = {name: np.asarray(array, np.float32) for name, array in _scene().items()}
    with jax.enable_x64(True):
        exact = {name: jnp.asarray(array, jnp.float64) for name, array in single.items()}
        expected, expected_grads = jax.tree.map(
            np.asarray, ts.value_and_grad("reference", SIZE, options)(exact)
        )
    out, grads = ts.value_and_grad(implementation, SIZE, options)(single)
    assert np.mean(expected.alpha) > 0.3, "the scene must be seen"
    ts.assert_same(out.image, expected.image, "image", 1e-5)
    for name in ts.NAMES:
        ts.assert_same(grads[name], expected_grads[name], f"gradient of {name}")
