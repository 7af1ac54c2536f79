"""The gate of the GPU's parity check: single pixels may flip, anything else fails."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gpu_parity

CASE = gpu_parity.Case("forty splats", 40, (128, 128), log_scale=(-5.0, -3.0))


def scene(first_depth: float) -> tuple:
    """The first two splats are small, one over the other, and differ in colour."""
    means, quats, scales, opacities, features, *rest = gpu_parity.make_arrays(CASE)
    means = means.at[:2].set(jnp.array([[0.0, 0.0, first_depth], [0.004, 0.0, 0.0]]))
    scales, opacities = scales.at[:2].set(0.003), opacities.at[:2].set(0.8)
    features = features.at[:2].set(jnp.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.4]]))
    return (means, quats, scales, opacities, features, *rest)


@pytest.fixture(scope="module")
def evaluate():
    return gpu_parity.evaluator(CASE, scene(0.0), "reference")


def compare(evaluate, arrays, shift: float, brighter: float = 1.0) -> dict:
    """The oracle against itself with the first splat's depth or all colours changed."""

    def run(mask, means, *rest):
        means = means.at[0, 2].add(shift)
        return evaluate(mask, means, *rest[:3], rest[3] * brighter, *rest[4:])

    result = gpu_parity.compare(CASE, arrays, run, evaluate)
    return result | {"bit_identical_runs": 1}


def test_two_splats_that_change_places_pass(evaluate):
    result = compare(evaluate, scene(-1e-6), 2e-6)
    assert 0 < result["off_share"] < gpu_parity.MAX_OFF, "the order must have changed"
    assert gpu_parity.passes(result), result


def test_a_small_difference_everywhere_fails(evaluate):
    result = compare(evaluate, scene(-1e-6), 0.0, brighter=1 + 3e-4)
    assert not gpu_parity.passes(result)
    assert gpu_parity.passes(compare(evaluate, scene(-1e-6), 0.0))


def test_many_pixels_off_fail():
    images = np.zeros((1, 50, 40, 3), np.float32)
    other = images.copy()
    other[0, 0, :3, 1] = (2e-4, np.nan, 5e-5)
    mask = gpu_parity.agreeing_pixels((images, images[..., 0]), (other, images[..., 0]))
    assert mask.shape == (1, 50, 40) and list(mask[0, 0, :4]) == [0, 0, 1, 1]
    good = {"errors": {"image": 1e-6}, "bit_identical_runs": 20, "overflow": 0}
    assert gpu_parity.passes(good | {"off_share": 1e-3})
    assert not gpu_parity.passes(good | {"off_share": 1.1e-3})
