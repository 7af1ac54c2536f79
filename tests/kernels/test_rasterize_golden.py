"""Parity with gsplat 1.5.3 through its golden files: images and gradients of every argument."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from tests.kernels import quick

_FOLDER = Path(__file__).parents[1] / "data" / "golden"
_FILES = sorted(_FOLDER.glob("raster_*.npz"))
_KEYS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")


def _evaluate(path: Path, backend: str, dtype) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(actual, expected) of image, alpha and the gradient of every input."""
    data = dict(np.load(path))
    depth_is_last = str(data.get("in_render_mode", "")) == "RGB+ED"
    options = kernels.RasterizeOptions(
        mode=str(data["in_rasterize_mode"]), expected_depth=depth_is_last, capacity=4096
    )

    def render(arrays):
        output = kernels.rasterize(
            *arrays[:7],
            background=arrays[7],
            image_size=(int(data["in_height"]), int(data["in_width"])),
            options=options,
            implementation=backend,
        )
        image = output.image
        if depth_is_last:
            image = jnp.concatenate([image, output.depth[..., None]], axis=-1)
        return image, output.alpha[..., None], output.stats.overflow

    def loss(arrays):
        image, alpha, overflow = render(arrays)
        total = jnp.sum(image * data["cot_v_render_colors"])
        return total + jnp.sum(alpha * data["cot_v_render_alphas"]), (image, alpha, overflow)

    arrays = tuple(jnp.asarray(data[f"in_{key}"], dtype) for key in _KEYS)
    compiler_options = quick.OPTIONS if backend == "reference" else None
    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=compiler_options)
    grads, (image, alpha, overflow) = gradient(arrays)
    assert int(overflow.max()) == 0
    assert 0.05 < float(alpha.mean()) < 0.95, "the scene must be neither empty nor opaque"
    pairs = {
        f"v_{key}": (grad, data[f"out_v_{key}"]) for key, grad in zip(_KEYS, grads, strict=True)
    }
    pairs["image"] = (image, data["out_render_colors"])
    pairs["alpha"] = (alpha, data["out_render_alphas"])
    return jax.tree.map(np.asarray, pairs)


def _check(pairs, helpers, limit: float) -> None:
    for name, (actual, expected) in pairs.items():
        error = helpers.relative_error(actual, expected)
        assert error < limit, f"{name}: relative L2 error {error:.2e}, limit {limit:.0e}"
    actual, expected = pairs["image"]
    off = np.mean(np.any(np.abs(actual - expected) > 1e-4, axis=-1))
    assert off < 1e-3, f"{off:.3%} of the pixels are off by more than 1e-4"


def test_all_golden_files_are_here():
    assert len(_FILES) == 4


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_backend_in_float32(path, backend, helpers):
    _check(_evaluate(path, backend, jnp.float32), helpers, 1e-4)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_reference_in_float64(path, helpers):
    with jax.enable_x64(True):
        pairs = _evaluate(path, "reference", jnp.float64)
    assert pairs["image"][0].dtype == np.float64
    _check(pairs, helpers, 1e-6)
