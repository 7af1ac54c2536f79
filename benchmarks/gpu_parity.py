"""Holds the Triton rasterizer against the dense oracle on the GPU at hand.

    python -m benchmarks.gpu_parity --out=DIR/parity.json
    python -m benchmarks.gpu_parity --small      one small scene, for compute-sanitizer
    TRITON_INTERPRET=1 python -m benchmarks.gpu_parity --rehearse    tiny scenes, on a CPU

Random scenes with splats from a fraction of a pixel to the whole screen, both modes, 1 to 33
channels, several cameras; gradients of all eight arrays; then runs with `deterministic=True` that
must agree bit by bit. Scenes too large for the dense oracle are held against the xla backend.
"""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import kernels
from benchmarks import provenance
from instant_gs import cli
from kernels.rasterize import cases

BOUND = 1e-4  # relative L2
RUNS = 20  # that must agree bit by bit

_OUT = flags.DEFINE_string("out", None, "Result file (JSON).")
_SMALL = flags.DEFINE_bool("small", False, "One small scene only.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny scenes, to try this script without a GPU.")


@dataclasses.dataclass(frozen=True)
class Case:
    """A random scene; `oracle` is the implementation that it is held against."""

    name: str
    splats: int
    size: tuple[int, int]
    channels: int = 3
    cameras: int = 1
    mode: str = "classic"
    log_scale: tuple[float, float] = (-5.0, -2.0)
    opacity: float = 0.95
    oracle: str = "reference"
    runs: int = RUNS


CASES = (
    Case("small splats", 4000, (128, 128)),
    Case("antialiased", 4000, (100, 140), mode="antialiased"),
    Case("opaque, large", 1500, (96, 96), log_scale=(-2.5, 0.5), opacity=1.0),
    Case("needles", 2000, (96, 96), log_scale=(-7.0, -0.5)),
    Case("one channel", 2000, (64, 96), channels=1),
    Case("33 channels", 1500, (64, 64), channels=33),
    Case("8 channels, 4 cameras", 1500, (64, 64), channels=8, cameras=4),
    Case("large", 200_000, (512, 512), log_scale=(-6.5, -4.0), oracle="xla"),
    Case("large, 2 cameras", 50_000, (200, 300), cameras=2, log_scale=(-6.0, -3.0), oracle="xla"),
)
TINY = (
    Case("tiny", 12, (8, 8), log_scale=(-3.0, -1.5)),
    Case("tiny, 6 channels", 16, (16, 24), channels=6, log_scale=(-3.0, -1.5), runs=1),
    Case("tiny, xla", 12, (8, 8), log_scale=(-3.0, -1.5), oracle="xla", runs=1),
)


def make_arrays(case: Case, seed: int = 0) -> tuple[jax.Array, ...]:
    """The eight arrays of a case."""
    height, width = case.size
    intrinsics = cases.pinhole((1.3 * width, 1.2 * height), (0.5 * width, 0.48 * height))
    scene = cases.random_scene(
        seed,
        np.stack([cases.turned_view(0.3 * camera, 3.0) for camera in range(case.cameras)]),
        np.stack([intrinsics] * case.cameras),
        splats=case.splats,
        channels=case.channels,
        log_scale=case.log_scale,
        opacity=(0.02, case.opacity),
    )
    return tuple(jnp.asarray(array, jnp.float32) for array in scene.values())


def propose(case: Case, arrays: tuple, implementation: str) -> int | None:
    """Capacity for a case, measured; the dense oracle needs none."""
    if implementation == "reference":
        return None
    return kernels.propose_capacity(
        *arrays[:7],
        image_size=case.size,
        options=kernels.RasterizeOptions(mode=case.mode),
        implementation=implementation,
    )


def evaluator(case: Case, arrays: tuple, implementation: str, *, deterministic: bool = False):
    """Jitted arrays -> (gradients, ((image, alpha, depth), overflow))."""
    options = kernels.RasterizeOptions(
        mode=case.mode,
        on_overflow="count",
        capacity=propose(case, arrays, implementation),
        deterministic=deterministic,
    )

    def functional(*arrays):
        out = kernels.rasterize(
            *arrays[:7],
            image_size=case.size,
            background=arrays[7],
            options=options,
            implementation=implementation,
        )
        outputs = (out.image, out.alpha, out.depth)
        total = 0.0
        for index, leaf in enumerate(outputs):
            weights = np.random.default_rng(index).normal(size=leaf.shape).astype(np.float32)
            total = total + jnp.sum(leaf * weights)
        return total, (outputs, out.stats.overflow)

    return jax.jit(jax.grad(functional, argnums=tuple(range(8)), has_aux=True))


def relative_l2(value, expected) -> float:
    """Norm of the difference over the norm of what is expected; infinite when not finite."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    error = np.linalg.norm(value - expected) / max(np.linalg.norm(expected), 1e-9)
    return float(error) if np.isfinite(error) else float("inf")


def bit_identical(run, arrays: tuple, runs: int) -> bool:
    """Whether `runs` runs all give the same bits."""
    first = jax.tree.leaves(run(*arrays))
    return all(
        np.array_equal(one, other)
        for _ in range(runs - 1)
        for one, other in zip(first, jax.tree.leaves(run(*arrays)), strict=True)
    )


def check(case: Case) -> dict:
    """Errors of one case, and whether repeated runs agree bit by bit."""
    start = time.perf_counter()
    arrays = make_arrays(case)
    run = evaluator(case, arrays, "triton", deterministic=True)
    grads, (outputs, overflow) = run(*arrays)
    expected_grads, (expected, _) = evaluator(case, arrays, case.oracle)(*arrays)
    names = ("image", "alpha", "depth", *(f"gradient of {name}" for name in cases.ARGUMENTS))
    pairs = zip((*outputs, *grads), (*expected, *expected_grads), strict=True)
    errors = {name: relative_l2(*pair) for name, pair in zip(names, pairs, strict=True)}
    identical = bit_identical(run, arrays, case.runs)
    worst = max(errors, key=errors.get)
    result = {
        "case": dataclasses.asdict(case),
        "errors": errors,
        "worst": errors[worst],
        "bit_identical_runs": case.runs if identical else 0,
        "alpha_mean": float(np.mean(outputs[1])),
        "overflow": int(np.sum(overflow)),
        "pass": bool(errors[worst] < BOUND and identical and not np.any(overflow)),
        "seconds": time.perf_counter() - start,
    }
    verdict = "ok  " if result["pass"] else "FAIL"
    same = f"{case.runs} runs bit-identical" if identical else "runs differ"
    print(f"{verdict} {case.name}: {errors[worst]:.1e} ({worst}); {same}", flush=True)
    return result


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    chosen = TINY if _REHEARSE.value else CASES
    if _SMALL.value:
        chosen = (dataclasses.replace(chosen[0], runs=1),)
    record = provenance.describe("gpu_parity", interpreted=_REHEARSE.value)
    record |= {"bound": BOUND, "cases": []}
    for case in chosen:
        record["cases"].append(check(case))
        if _OUT.value:  # after every case, so that a run cut short keeps what it has
            provenance.write(Path(_OUT.value), record)
    failed = [result["case"]["name"] for result in record["cases"] if not result["pass"]]
    if failed:
        raise cli.UserError(f"parity: {', '.join(failed)} beyond {BOUND}")


if __name__ == "__main__":
    cli.run(main)
