"""Parity with gsplat 1.5.3 through its golden files: images and gradients of every argument."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.kernels import compare


def _check(pairs, limit: float) -> None:
    for name, (actual, expected) in pairs.items():
        error = compare.relative_error(actual, expected)
        assert error < limit, f"{name}: relative L2 error {error:.2e}, limit {limit:.0e}"
    actual, expected = pairs["image"]
    off = np.mean(np.any(np.abs(actual - expected) > 1e-4, axis=-1))
    assert off < 1e-3, f"{off:.3%} of the pixels are off by more than 1e-4"


def test_all_golden_files_are_here():
    assert len(compare.FILES) == 4


@pytest.mark.parametrize("path", compare.FILES, ids=lambda path: path.stem)
def test_backend_in_float32(path, backend):
    _check(compare.evaluate(path, backend, jnp.float32, capacity=4096), 1e-4)


@pytest.mark.parametrize("path", compare.FILES, ids=lambda path: path.stem)
def test_reference_in_float64(path):
    with jax.enable_x64(True):
        pairs = compare.evaluate(path, "reference", jnp.float64, capacity=4096)
    assert pairs["image"][0].dtype == np.float64
    _check(pairs, 1e-6)
