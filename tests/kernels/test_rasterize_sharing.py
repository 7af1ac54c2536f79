"""Splats that scenes share in part: mapped inside of a vmap over cameras, and pulled back twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions
from tests.kernels import triton_scene as ts

SIZE = (8, 16)
OPTIONS = RasterizeOptions(capacity=512, on_overflow="count")
VIEWS, INNER = 3, 2
MAPPED = ("means", "scales", "opacities", "features")  # inside; the cameras are, outside


def _inputs() -> tuple[dict, dict, dict]:
    scenes = [ts.make_scene(seed, splats=12, size=SIZE) for seed in range(INNER)]
    mapped = {name: jnp.stack([scene[name] for scene in scenes]) for name in MAPPED}
    views = ts.make_scene(cameras=VIEWS, size=SIZE)
    cameras = {name: views[name][:, None] for name in ("viewmats", "intrinsics", "background")}
    return {"quats": scenes[0]["quats"]}, mapped, cameras


@pytest.mark.slow
@pytest.mark.parametrize("implementation", [pytest.param("triton", marks=ts.MARKS), "xla"])
def test_each_picture_has_its_own_splats_and_camera(implementation):
    """Rows of splats repeat in the order of scenes, in pictures and in gradients.

    Two pulls back are mapped, too, over cotangents alone: nothing else of them is.
    """
    shared, mapped, cameras = _inputs()
    shape = (VIEWS, INNER, 1, *SIZE, 3)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)), jnp.float32)

    def image(shared, mapped, cameras, backend=implementation):
        return ts.render({**shared, **mapped, **cameras}, backend, SIZE, OPTIONS).image

    @jax.jit
    def together(arrays, weights):
        over_scenes = jax.vmap(image, (None, 0, None))
        images, pull_back = jax.vjp(jax.vmap(over_scenes, (None, None, 0)), *arrays)
        return images, jax.vmap(pull_back)(weights)

    @jax.jit
    def one(arrays, weights):
        pictures, pull_back = jax.vjp(lambda *given: image(*given, "reference"), *arrays)
        return pictures, [pull_back(weight) for weight in weights]

    images, grads = jax.tree.map(np.asarray, together((shared, mapped, cameras), weights))
    expected = jax.tree.map(np.zeros_like, grads)
    for view in range(VIEWS):
        camera = {name: array[view] for name, array in cameras.items()}
        for inner in range(INNER):
            splats = {name: array[inner] for name, array in mapped.items()}
            picture, rows = one((shared, splats, camera), weights[:, view, inner])
            ts.assert_same(images[view, inner], picture, f"picture {view}, {inner}")
            for index, (of_shared, of_mapped, of_camera) in enumerate(rows):
                expected[0]["quats"][index] += of_shared["quats"]
                for name, gradient in of_mapped.items():
                    expected[1][name][index, inner] += gradient
                for name, gradient in of_camera.items():
                    expected[2][name][index, view] += gradient
    assert np.mean(np.abs(images[0] - images[1])) > 0.01, "the cameras must differ"
    for actual, wanted in zip(grads, expected, strict=True):
        for name, gradient in actual.items():
            ts.assert_same(gradient, wanted[name], f"gradient of {name}")
