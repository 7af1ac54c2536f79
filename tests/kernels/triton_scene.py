"""Scenes and comparisons shared by the tests of the Triton backend.

Importing this module before Triton makes kernels run in Triton's interpreter on machines without a
GPU; with one they run on it. Scenes are tiny: the interpreter is a thousand times slower. With
PTX_MACHINE=1 in the environment they run compiled, by `ptx_machine`.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions, device, rasterize, triton_compile, triton_interpreter
from kernels.rasterize import cases
from tests.kernels import compare, ptx_backend, quick

HAS_GPU = device.is_nvidia()
if os.environ.get("PTX_MACHINE"):
    ptx_backend.install()
elif not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"
NEEDS_TRITON = pytest.mark.skipif(not triton_compile.has_triton(), reason="triton is not installed")
# Where there is a GPU these tests verify the kernels on it: `python -m benchmarks.kernel_status`.
MARKS = [NEEDS_TRITON, pytest.mark.gpu] if HAS_GPU else [NEEDS_TRITON]

NAMES = cases.ARGUMENTS
COUNT = RasterizeOptions(on_overflow="count")
SIZE = (16, 16)
SPLATS = 16  # most tests share these sizes, and with them one compilation


def make_scene(
    seed: int = 0,
    splats: int = SPLATS,
    channels: int = 3,
    cameras: int = 1,
    size=SIZE,
    focal=1.2,
    **others,
) -> dict[str, jax.Array]:
    """Random splats around the origin, seen from a distance of 4; `others` of `random_scene`."""
    height, width = size
    scene = cases.random_scene(
        seed,
        cases.turned_views(0.4 * np.arange(cameras), 4.0),
        cases.pinhole((focal * width, 1.1 * focal * height), (0.52 * width, 0.47 * height)),
        splats=splats,
        channels=channels,
        opacity=(0.05, 0.98),
        **others,
    )
    return {name: jnp.asarray(array, jnp.float32) for name, array in scene.items()}


def render(scene, implementation="triton", size=SIZE, options=COUNT):
    """`kernels.rasterize` of a scene as a dictionary."""
    return rasterize(**scene, image_size=size, options=options, implementation=implementation)


def functional(implementation: str, size, options):
    """Scene -> (a fixed random functional of image, alpha and depth, output)."""

    def loss(scene):
        out = render(scene, implementation, size, options)
        total = 0.0
        for index, leaf in enumerate((out.image, out.alpha, out.depth)):
            weights = np.random.default_rng(index).normal(size=leaf.shape)
            total = total + jnp.sum(leaf * jnp.asarray(weights, jnp.float32))
        return total, out

    return loss


@functools.cache
def value_and_grad(implementation: str, size, options):
    """Jitted scene -> (output, gradients of `functional`)."""
    loss = functional(implementation, size, options)

    def both(scene):
        grads, out = jax.grad(loss, has_aux=True)(scene)
        return out, grads

    return jax.jit(both, compiler_options=None if HAS_GPU else quick.OPTIONS)


def assert_same(value, expected, what: str, bound: float = 1e-4) -> None:
    """Fails, saying what differs, unless the relative L2 error is small or both vanish."""
    assert np.all(np.isfinite(value)), f"{what}: not finite"
    if np.linalg.norm(expected) < 1e-7:
        assert np.linalg.norm(value) < 1e-5, f"{what}: {np.linalg.norm(value)} instead of zero"
        return
    error = compare.relative_error(value, expected)
    assert error < bound, f"{what}: relative L2 error {error:.2e}, allowed {bound:.0e}"


def assert_parity(
    scene, size=SIZE, options=COUNT, bound: float = 1e-4, against: str = "reference"
) -> tuple:
    """Image, alpha, depth and all gradients of Triton against the dense oracle, or `xla`."""
    out, grads = value_and_grad("triton", size, options)(scene)
    if against == "reference":
        options = dataclasses.replace(options, tile_size=None, capacity=None)
    expected, expected_grads = value_and_grad(against, size, options)(scene)
    for name in ("image", "alpha", "depth"):
        assert_same(getattr(out, name), getattr(expected, name), name, bound)
    for name in NAMES:
        assert_same(grads[name], expected_grads[name], f"gradient of {name}", bound)
    return out, grads


_GUARD = 1 << 16  # bytes before and after each array


class GuardedTensor(triton_interpreter.HostTensor):
    """An array between guards: reading one gives NaN or a huge number, writing one is found out.

    Neighbours have different guards, so that copying one guard into another shows, too.
    """

    made = 0

    def __init__(self, array: np.ndarray) -> None:
        type(self).made += 1
        self.original = array
        self.byte = (0xFF, 0x7F)[self.made % 2]
        self.memory = np.full(array.nbytes + 2 * _GUARD, self.byte, np.uint8)
        inside = self.memory[_GUARD : _GUARD + array.nbytes]
        super().__init__(inside.view(array.dtype).reshape(array.shape))
        self.array[...] = array

    def copy_(self, other) -> None:  # what the interpreter calls after a launch
        del other
        size = self.array.nbytes
        for guard in (self.memory[:_GUARD], self.memory[_GUARD + size :]):
            if np.any(guard != self.byte):
                raise RuntimeError("a kernel wrote outside an array")
        self.original[...] = self.array
