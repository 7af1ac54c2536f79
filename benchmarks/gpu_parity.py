"""Holds the Triton rasterizer against the dense oracle on the GPU at hand.

    python -m benchmarks.gpu_parity --out=DIR/parity.json
    python -m benchmarks.gpu_parity --small      one small scene, for compute-sanitizer
    TRITON_INTERPRET=1 python -m benchmarks.gpu_parity --rehearse    tiny scenes, on a CPU

Random scenes with splats from a fraction of a pixel to the whole screen, both modes, 1 to 33
channels, several cameras; gradients of all eight arrays; then 20 runs that must agree bit by bit.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import kernels
from instant_gs import cli

BOUND = 1e-4  # relative L2

_OUT = flags.DEFINE_string("out", None, "Result file (JSON).")
_SMALL = flags.DEFINE_bool("small", False, "One small scene only.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny scenes, to try this script without a GPU.")

NAMES = (
    "means",
    "quats",
    "scales",
    "opacities",
    "features",
    "viewmats",
    "intrinsics",
    "background",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A random scene."""

    name: str
    splats: int
    size: tuple[int, int]
    channels: int = 3
    cameras: int = 1
    mode: str = "classic"
    log_scale: tuple[float, float] = (-5.0, -2.0)
    opacity: float = 0.95


CASES = (
    Case("small splats", 4000, (128, 128)),
    Case("antialiased", 4000, (100, 140), mode="antialiased"),
    Case("opaque, large", 1500, (96, 96), log_scale=(-2.5, 0.5), opacity=1.0),
    Case("needles", 2000, (96, 96), log_scale=(-7.0, -0.5)),
    Case("one channel", 2000, (64, 96), channels=1),
    Case("33 channels", 1500, (64, 64), channels=33),
    Case("8 channels, 4 cameras", 1500, (64, 64), channels=8, cameras=4),
)
TINY = (
    Case("tiny", 24, (16, 24), log_scale=(-3.0, -1.5)),
    Case("tiny, 6 channels", 16, (16, 16), channels=6, log_scale=(-3.0, -1.5)),
)


def make_arrays(case: Case, seed: int = 0) -> tuple[jax.Array, ...]:
    """The eight arrays of a case."""
    rng = np.random.default_rng(seed)
    height, width = case.size
    k = np.array([[1.3 * width, 0, 0.5 * width], [0, 1.2 * width, 0.48 * height], [0, 0, 1]])
    views = []
    for camera in range(case.cameras):
        c, s = np.cos(0.3 * camera), np.sin(0.3 * camera)
        view = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 3.0], [0, 0, 0, 1]])
        views.append(view)
    arrays = (
        rng.normal(0, 0.7, (case.splats, 3)),
        rng.normal(size=(case.splats, 4)),
        np.exp(rng.uniform(*case.log_scale, (case.splats, 3))),
        rng.uniform(0.02, case.opacity, case.splats),
        rng.uniform(size=(case.splats, case.channels)),
        np.stack(views),
        np.stack([k] * case.cameras),
        rng.uniform(size=(case.cameras, case.channels)),
    )
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def evaluator(case: Case, implementation: str, capacity: int | None = None):
    """Jitted arrays -> ((image, alpha, depth), gradients, overflow)."""
    options = kernels.RasterizeOptions(mode=case.mode, on_overflow="count", capacity=capacity)

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


def check(case: Case, repeats: int) -> dict:
    """Errors of one case, and whether repeated runs agree bit by bit."""
    start = time.perf_counter()
    arrays = make_arrays(case)
    capacity = kernels.propose_capacity(
        *arrays[:7],
        image_size=case.size,
        options=kernels.RasterizeOptions(mode=case.mode),
        implementation="triton",
    )
    run = evaluator(case, "triton", capacity)
    grads, (outputs, overflow) = run(*arrays)
    expected_grads, (expected, _) = evaluator(case, "reference")(*arrays)
    names = ("image", "alpha", "depth", *(f"gradient of {name}" for name in NAMES))
    pairs = zip((*outputs, *grads), (*expected, *expected_grads), strict=True)
    errors = {name: relative_l2(*pair) for name, pair in zip(names, pairs, strict=True)}
    first = jax.tree.leaves((grads, (outputs, overflow)))
    identical = all(
        np.array_equal(one, other)
        for _ in range(repeats)
        for one, other in zip(first, jax.tree.leaves(run(*arrays)), strict=True)
    )
    worst = max(errors, key=errors.get)
    result = {
        "case": dataclasses.asdict(case),
        "errors": errors,
        "worst": errors[worst],
        "bit_identical_runs": repeats if identical else 0,
        "overflow": int(np.sum(overflow)),
        "pass": bool(errors[worst] < BOUND and identical and not np.any(overflow)),
        "seconds": time.perf_counter() - start,
    }
    verdict = "ok  " if result["pass"] else "FAIL"
    print(f"{verdict} {case.name}: {errors[worst]:.1e} ({worst})", flush=True)
    return result


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    cases = TINY if _REHEARSE.value else CASES[:1] if _SMALL.value else CASES
    results = [check(case, 1 if _REHEARSE.value or _SMALL.value else 20) for case in cases]
    if _OUT.value:
        record = {
            "kind": "gpu_parity",
            "device": jax.devices()[0].device_kind,
            "interpreted": _REHEARSE.value,
            "bound": BOUND,
            "cases": results,
        }
        path = Path(_OUT.value)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    failed = [result["case"]["name"] for result in results if not result["pass"]]
    if failed:
        raise cli.UserError(f"parity: {', '.join(failed)} beyond {BOUND}")


if __name__ == "__main__":
    cli.run(main)
