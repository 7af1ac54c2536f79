"""What the options do, on every backend: a row of splats whose numbers are known beforehand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions
from tests.kernels import triton_scene as ts

BACKENDS = [pytest.param("triton", marks=ts.MARKS), "xla", "reference"]
SIZE, FOCAL, FILTER, FLOOR = (16, 32), 50.0, 0.5, 0.3
OPTIONS = RasterizeOptions(
    mode="antialiased",
    max_alpha=0.6,
    min_compensation=FLOOR,
    eps2d=FILTER,
    near=2.0,
    far=8.0,
    radius_clip=2.0,
    on_overflow="count",
)
ROUND, DOT = (1.0, 1.0), (1e-4, 1e-4)  # standard deviations on the screen, pixels
# (row, column) of the pixel at the centre, depth, standard deviations, opacity.
SPLATS = {
    "at_near": ((4, 4), 2.0, ROUND, 0.5),
    "before_near": ((4, 4), 1.999, ROUND, 0.5),
    "at_far": ((4, 12), 8.0, ROUND, 0.5),
    "behind_far": ((4, 12), 8.001, ROUND, 0.5),
    "opaque": ((4, 20), 3.0, ROUND, 0.95),
    "opaque_behind": ((4, 20), 4.0, ROUND, 0.95),
    "dot": ((12, 4), 3.0, DOT, 0.8),
    "faint_dot": ((12, 12), 3.0, DOT, 0.3),  # two pixels wide both ways: clipped
    "wide": ((12, 20), 3.0, (1.0, 1e-4), 0.3),  # two pixels one way only
    "high": ((12, 28), 3.0, (1e-4, 1.0), 0.3),
}


def _scene() -> dict:
    """Flat splats that face the camera, so that the screen shows their scales."""
    places, depths, deviations, opacities = zip(*SPLATS.values(), strict=True)
    depths = np.array(depths)
    means = np.concatenate(
        [np.array(places)[:, ::-1] * depths[:, None] / FOCAL, depths[:, None]], 1
    )
    scales = np.concatenate([deviations * depths[:, None] / FOCAL, np.zeros((len(SPLATS), 1))], 1)
    arrays = {
        "means": means,
        "quats": np.tile([1.0, 0.0, 0.0, 0.0], (len(SPLATS), 1)),
        "scales": scales,
        "opacities": opacities,
        "features": np.random.default_rng(0).uniform(size=(len(SPLATS), 3)),
        "viewmats": np.eye(4)[None],
        "intrinsics": np.array([[[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]]]),
        "background": np.zeros((1, 3)),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("implementation", BACKENDS)
def test_each_does_what_its_description_says(implementation):
    out, grads = ts.value_and_grad(implementation, SIZE, OPTIONS)(_scene())
    alpha, depth = np.asarray(out.alpha[0]), np.asarray(out.depth[0])
    kept = 1.0 / (1.0 + FILTER)  # share of its opacity that the filter leaves a round splat
    expected = {
        "at_near": (0.5 * kept, 0.5 * kept * 2.0),
        "at_far": (0.5 * kept, 0.5 * kept * 8.0),
        "opaque": (0.6 + 0.4 * 0.6, 0.6 * 3.0 + 0.4 * 0.6 * 4.0),
        "dot": (0.8 * FLOOR, 0.8 * FLOOR * 3.0),
        "faint_dot": (0.0, 0.0),
        "wide": (0.3 * FLOOR, 0.3 * FLOOR * 3.0),
        "high": (0.3 * FLOOR, 0.3 * FLOOR * 3.0),
    }
    assert 0.95 * kept > 0.6, "the limit must be passed"
    for name, numbers in expected.items():
        place = SPLATS[name][0]
        np.testing.assert_allclose((alpha[place], depth[place]), numbers, rtol=1e-4, err_msg=name)
    beside = {
        "at_near": ((5, 4), 0.5 * kept * math.exp(-0.5 * kept)),
        "wide": ((12, 21), 0.3 * FLOOR * math.exp(-0.5 * kept)),
        "high": ((13, 28), 0.3 * FLOOR * math.exp(-0.5 * kept)),
    }
    for name, (place, number) in beside.items():
        np.testing.assert_allclose(alpha[place], number, rtol=1e-4, err_msg=name)
    names = list(SPLATS)
    for name in ("before_near", "behind_far", "faint_dot"):
        for array in ts.NAMES[:5]:
            assert not np.any(grads[array][names.index(name)]), f"{name}: gradient of {array}"


@pytest.mark.parametrize("implementation", BACKENDS[:2])
def test_gradients_follow_them(implementation):
    _, grads = ts.value_and_grad(implementation, SIZE, OPTIONS)(_scene())
    _, expected = ts.value_and_grad("reference", SIZE, OPTIONS)(_scene())
    for name in ts.NAMES:
        ts.assert_same(grads[name], expected[name], f"gradient of {name}")


@pytest.mark.parametrize("implementation", BACKENDS[:2])
@pytest.mark.parametrize(("tile", "tiles"), [((4, 8), 5 * 4), ((8, 4), 3 * 7)])
def test_tiles_have_the_height_and_width_asked_for(tile, tiles, implementation):
    """A splat over the whole picture touches each of them once."""
    options = RasterizeOptions(tile_size=tile, capacity=64, on_overflow="count")
    scene = {name: array[:1] for name, array in _scene().items()}
    scene["scales"] = jnp.full((1, 3), 99.0)
    out = ts.render(scene, implementation, (20, 28), options)
    assert int(out.stats.num_intersections[0]) == tiles
