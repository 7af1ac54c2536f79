"""Backends as a parameter, and one small scene whose compiled functions all tests share."""

from __future__ import annotations

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels.rasterize import cases
from tests.kernels import quick
from tests.kernels.compare import relative_error

# The sizes are no multiples of any tile size. One size and one capacity for (almost) every test, so
# that each backend compiles once forward and once backward.
HEIGHT, WIDTH, NUM_SPLATS, CHANNELS = 20, 28, 40, 3
OPTIONS = kernels.RasterizeOptions(capacity=1024)
ARGUMENTS = cases.ARGUMENTS
# Arguments of rasterize in order, with the background last; NumPy float64.
Scene = collections.namedtuple("Scene", ARGUMENTS)


def make_scene(seed: int = 0, num_splats: int = NUM_SPLATS, cameras: int = 1) -> Scene:
    """A box of splats, 1 to 6 pixels wide, 3 units before the camera."""
    viewmats = cases.turned_views(np.zeros(cameras), 3.0)
    viewmats[:, 0, 3] = np.linspace(0.0, 0.3, cameras)
    arrays = cases.random_scene(
        seed,
        viewmats,
        cases.pinhole((30.0, 28.0), (WIDTH / 2, HEIGHT / 2 - 0.7)),
        splats=num_splats,
        channels=CHANNELS,
        box=(1.3, 1.0, 0.8),
        log_scale=(np.log(0.08), np.log(0.5)),
    )
    return Scene(**arrays)


def cotangents(cameras: int = 1) -> tuple[np.ndarray, ...]:
    """Fixed random weights of image, alpha and depth."""
    rng = np.random.default_rng(1)
    shape = (cameras, HEIGHT, WIDTH)
    return tuple(rng.normal(size=s) for s in ((*shape, CHANNELS), shape, shape))


@functools.cache
def render_function(backend: str, options: kernels.RasterizeOptions = OPTIONS):
    """Jitted f(*scene) -> RasterizeOutput."""

    def render(*arrays):
        return kernels.rasterize(
            *arrays[:-1],
            image_size=(HEIGHT, WIDTH),
            background=arrays[-1],
            options=options,
            implementation=backend,
        )

    return jax.jit(render, compiler_options=_compiler_options(backend))


@functools.cache
def gradient_function(backend: str, options: kernels.RasterizeOptions = OPTIONS):
    """Jitted f(scene, cotangents) -> (loss, gradients of all arguments)."""
    render = render_function(backend, options).__wrapped__

    def loss(scene, weights):
        output = render(*scene)
        outputs = (output.image, output.alpha, output.depth)
        return sum(jnp.sum(a * b) for a, b in zip(outputs, weights, strict=True))

    return jax.jit(jax.value_and_grad(loss), compiler_options=_compiler_options(backend))


def _compiler_options(backend: str) -> dict | None:
    return quick.OPTIONS if backend == "reference" else None


def as_float32(tree):
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), tree)


def render(backend: str, scene: Scene, options: kernels.RasterizeOptions = OPTIONS):
    """Renders in float32 and returns NumPy arrays."""
    return jax.tree.map(np.asarray, render_function(backend, options)(*as_float32(scene)))


def gradients(backend: str, scene: Scene, options: kernels.RasterizeOptions = OPTIONS) -> Scene:
    """Gradients in float32 with the standard cotangents, as NumPy arrays."""
    weights = as_float32(cotangents(scene.viewmats.shape[0]))
    _, result = gradient_function(backend, options)(as_float32(scene), weights)
    return jax.tree.map(np.asarray, result)


def assert_same_image(actual, expected, limit: float = 1e-4) -> None:
    """Image, alpha and depth agree; thresholds may flip single pixels (0.1 %), not more."""
    for name in ("image", "alpha", "depth"):
        a, b = getattr(actual, name), getattr(expected, name)
        assert np.isfinite(a).all(), f"{name} is not finite"
        off = np.mean(np.abs(a - b) > 1e-4)
        assert off < 1e-3, f"{name}: {off:.2%} of the values are off by more than 1e-4"
        assert relative_error(a, b) < limit or np.abs(b).max() == 0, f"{name} differs"


@pytest.fixture(params=["xla", pytest.param("triton", marks=pytest.mark.gpu)])
def backend(request) -> str:
    """Every tiled backend; the reference is what they are compared with."""
    return request.param


@pytest.fixture(scope="session")
def helpers():
    """This module's functions (tests are imported without packages)."""
    import types

    return types.SimpleNamespace(**{k: v for k, v in globals().items() if not k.startswith("_")})
