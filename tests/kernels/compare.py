"""What results are compared with, gsplat's golden files, and by which error."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from kernels.rasterize import cases
from tests.kernels import quick

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("raster_*.npz"))
_KEYS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")


def evaluate(path: Path, backend: str, dtype, **options) -> dict[str, tuple]:
    """(actual, expected) of image, alpha and, by its name, the gradient of every argument."""
    data = dict(np.load(path))
    depth_is_last = str(data.get("in_render_mode", "")) == "RGB+ED"
    options = kernels.RasterizeOptions(
        mode=str(data["in_rasterize_mode"]), expected_depth=depth_is_last, **options
    )

    def loss(arrays):
        output = kernels.rasterize(
            *arrays[:7],
            background=arrays[7],
            image_size=(int(data["in_height"]), int(data["in_width"])),
            options=options,
            implementation=backend,
        )
        image, alpha = output.image, output.alpha[..., None]
        if depth_is_last:
            image = jnp.concatenate([image, output.depth[..., None]], axis=-1)
        total = jnp.sum(image * data["cot_v_render_colors"])
        total += jnp.sum(alpha * data["cot_v_render_alphas"])
        return total, (image, alpha, output.stats.overflow)

    arrays = tuple(jnp.asarray(data[f"in_{key}"], dtype) for key in _KEYS)
    compiler_options = quick.OPTIONS if backend == "reference" else None
    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=compiler_options)
    grads, (image, alpha, overflow) = gradient(arrays)
    assert int(overflow.max()) == 0
    assert 0.05 < float(alpha.mean()) < 0.95, "the scene must be neither empty nor opaque"
    actual = (image, alpha, *grads)
    names = ("render_colors", "render_alphas", *(f"v_{key}" for key in _KEYS))
    pairs = zip(actual, (data[f"out_{name}"] for name in names), strict=True)
    names = ("image", "alpha", *cases.ARGUMENTS)
    return jax.tree.map(np.asarray, dict(zip(names, pairs, strict=True)))


def relative_error(actual, expected) -> float:
    """Norm of the difference over the norm of what is expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))
