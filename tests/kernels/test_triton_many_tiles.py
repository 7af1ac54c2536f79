"""Splats of many tiles: all threads of a program share its rows and slots, with the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions, triton_interpreter
from kernels.rasterize import cases
from kernels.types import Operands, RasterizeConfig
from tests.kernels import triton_scene as ts

pytestmark = ts.MARKS

SIZE = (280, 24)  # 70 x 6 tiles: three rounds of rows, two of slots
SPLATS = 70  # of three programs of the emission, of two that gather


def _operands() -> Operands:
    """Dots, and a few splats over the whole picture, for two cameras."""
    rng = np.random.default_rng(3)
    height, width = SIZE
    large = np.isin(np.arange(SPLATS), (5, 30, 31, 66))
    depths = rng.uniform(2.0, 3.0, SPLATS)
    pixels = rng.uniform(-0.5, 0.5, (SPLATS, 2)) * (width, height) * (1 - large[:, None])
    views = np.stack([np.eye(4)] * 2)
    views[1, 2, 3] = 0.5
    focal = 40.0
    operands = Operands(
        means=np.concatenate([pixels * depths[:, None] / focal, depths[:, None]], 1),
        quats=rng.normal(size=(SPLATS, 4)),
        scales=np.where(large[:, None], rng.uniform(3, 9, (SPLATS, 3)), 0.1),
        opacities=rng.uniform(0.3, 1.0, SPLATS),
        features=rng.normal(size=(SPLATS, 3)),
        viewmats=views,
        intrinsics=np.stack([cases.pinhole((focal, focal), (width / 2, height / 2))] * 2),
    )
    return Operands(*(jnp.asarray(array, jnp.float32)[None] for array in operands))


def _emitted_and_gathered(capacity: int) -> tuple:
    """What the emission makes of the splats, and sums over rows of random numbers."""
    from kernels.rasterize import triton_bwd, triton_config, triton_fwd, triton_sizes

    operands = _operands()
    options = RasterizeOptions(on_overflow="count", tile_size=(4, 4))
    config = RasterizeConfig(options, *SIZE, capacity)
    kernel = triton_config.choose(config, 3)
    sizes = triton_sizes.sizes_of(operands, config, kernel.tile)
    rng = np.random.default_rng(0)
    rows = [jnp.asarray(rng.normal(size=(2, capacity, n)), jnp.float32) for n in (8, 4)]

    @jax.jit
    def run(operands, rows):
        limits = triton_fwd._limits(operands, sizes)
        projected = triton_fwd._project(operands, *limits, config, kernel)
        binned = triton_fwd._bin(projected, sizes)
        emission = triton_fwd._emit(projected, binned, sizes, kernel, keep=True)
        residuals = triton_sizes.Residuals(
            projected.records, emission.keys, emission.first_slots, emission.emitted, *[None] * 5
        )
        return emission, triton_bwd._gather(residuals, *rows, sizes, kernel)

    return jax.tree.map(np.asarray, run(operands, rows))


@pytest.mark.parametrize("capacity", [4096, 1500])
def test_all_threads_of_a_program_do_what_one_would(monkeypatch, capacity):
    """Also where the capacity ends inside such a splat; no kernel leaves its arrays."""
    from kernels.rasterize import triton_sizes

    monkeypatch.setattr(triton_interpreter, "HostTensor", ts.GuardedTensor)
    emission, sums = _emitted_and_gathered(capacity)
    whole, part = emission.emitted == 70 * 6, (emission.emitted > 40) & (emission.emitted < 70 * 6)
    assert np.all(whole.sum(1) > 1) and np.all(part.sum(1) == (capacity == 1500))
    monkeypatch.setattr(triton_sizes, "LARGE", 10**6)
    expected, expected_sums = _emitted_and_gathered(capacity)
    for name, array in expected._asdict().items():
        filled = np.arange(capacity) < expected.emitted.sum(1, keepdims=True)
        used = {"slot_splats": filled, "first_slots": expected.emitted > 0}.get(name, slice(None))
        assert np.array_equal(getattr(emission, name)[used], array[used]), name
    for array, other in zip(sums, expected_sums, strict=True):
        ts.assert_same(array, other, "sums over slots", 1e-6)
