"""Holds the Triton rasterizer against the dense oracle on the GPU at hand.

    python -m benchmarks.gpu_parity --out=DIR/parity.json
    python -m benchmarks.gpu_parity --first=3 --out=DIR/parity.json        only the first three
    python -m benchmarks.gpu_parity --skip=3 --out=DIR/parity_rest.json    the others
    TRITON_INTERPRET=1 python -m benchmarks.gpu_parity --rehearse    tiny scenes, on a CPU

Random scenes with splats from a fraction of a pixel to the whole screen, both modes, 1 to 33
channels, several cameras; gradients of all eight arrays; then runs with `deterministic=True` that
must agree bit by bit. Scenes too large for the dense oracle are held against the xla backend. Both
compute in float64 here.

A threshold or a tie in depth that rounding decides otherwise flips single pixels. So pixels off by
more than 1e-4 are counted, at most 1 in 1000 may be, and they are left out of the loss of a second
run, whose images and gradients must agree to a relative L2 of 1e-4.
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
OFF_BY = 1e-4  # a pixel with a larger difference is off
MAX_OFF = 1e-3  # share of pixels that may be off
RUNS = 20  # that must agree bit by bit


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
    Case("large", 200_000, (512, 512), log_scale=(-6.5, -4.0), oracle="xla"),
    Case("33 channels, antialiased", 1500, (64, 76), channels=33, mode="antialiased"),
    Case("over hundreds of tiles", 80, (280, 260), log_scale=(-6.0, 1.0)),
    Case("antialiased", 4000, (100, 140), mode="antialiased"),
    Case("opaque, large", 1500, (96, 96), log_scale=(-2.5, 0.5), opacity=1.0),
    Case("needles", 2000, (96, 96), log_scale=(-9.0, 4.0)),
    Case("one channel", 2000, (64, 96), channels=1),
    Case("8 channels, 4 cameras", 1500, (64, 64), channels=8, cameras=4),
    Case("large, 2 cameras", 50_000, (200, 300), cameras=2, log_scale=(-6.0, -3.0), oracle="xla"),
)
TINY = (
    Case("tiny", 12, (8, 8), log_scale=(-3.0, -1.5)),
    Case("tiny, 6 channels", 16, (16, 24), channels=6, log_scale=(-3.0, -1.5), runs=1),
    Case("tiny, xla", 12, (8, 8), log_scale=(-3.0, -1.5), oracle="xla", runs=1),
    Case("tiny, 2 cameras", 12, (8, 8), cameras=2, log_scale=(-3.0, -1.5), runs=1),
)


def make_arrays(case: Case) -> tuple[jax.Array, ...]:
    """The eight arrays of a case."""
    height, width = case.size
    intrinsics = cases.pinhole((1.3 * width, 1.2 * height), (0.5 * width, 0.48 * height))
    scene = cases.random_scene(
        0,
        cases.turned_views(0.3 * np.arange(case.cameras), 3.0),
        intrinsics,
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
    """Jitted (mask (C, H, W), *arrays) -> (gradients, ((image, alpha, depth), overflow)).

    Gradients of a fixed random functional of the pixels where the mask is 1.
    """
    options = kernels.RasterizeOptions(
        mode=case.mode,
        on_overflow="count",
        capacity=propose(case, arrays, implementation),
        deterministic=deterministic,
    )

    def functional(mask, *arrays):
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
            shape = leaf.shape  # weights are made inside: as constants they would bloat programs
            weights = jax.random.normal(jax.random.key(index), shape, jnp.float32)
            shown = mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))
            total = total + jnp.sum(leaf * weights * shown)
        return total, (outputs, out.stats.overflow)

    return jax.jit(jax.grad(functional, argnums=tuple(range(1, 9)), has_aux=True))


def exact_evaluator(case: Case, arrays: tuple):
    """`evaluator` of the case's oracle, in float64 inside.

    In float32 a sum over all pixels, such as the gradient of a camera, uses up half of the bound.
    """

    def exact(arrays: tuple) -> list[jax.Array]:
        return [jnp.asarray(np.asarray(array), jnp.float64) for array in arrays]

    with jax.enable_x64(True):
        run = evaluator(case, tuple(exact(arrays)), case.oracle)

    def oracle(*arrays):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, run(*exact(arrays)))

    return oracle


def agreeing_pixels(outputs: tuple, expected: tuple) -> np.ndarray:
    """1 where no channel, alpha or depth is off, else 0 (also if not finite), (C, H, W) float32."""
    agree = True
    for one, other in zip(outputs, expected, strict=True):
        close = np.abs(np.asarray(one) - np.asarray(other)) <= OFF_BY
        agree = agree & (np.all(close, axis=-1) if close.ndim == 4 else close)
    return agree.astype(np.float32)


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


def compare(case: Case, arrays: tuple, run, oracle) -> dict:
    """Share of pixels that are off, errors of the others and of their gradients, overflow."""
    everywhere = jnp.ones((case.cameras, *case.size), jnp.float32)
    outputs = run(everywhere, *arrays)[1][0]
    mask = agreeing_pixels(outputs, oracle(everywhere, *arrays)[1][0])
    grads, (outputs, overflow) = run(mask, *arrays)
    expected_grads, (expected, _) = oracle(mask, *arrays)
    names = ("image", "alpha", "depth", *(f"gradient of {name}" for name in cases.ARGUMENTS))

    def shown(images: tuple) -> tuple:
        return tuple(np.asarray(leaf)[mask > 0] for leaf in images)

    pairs = zip((*shown(outputs), *grads), (*shown(expected), *expected_grads), strict=True)
    return {
        "errors": {name: relative_l2(*pair) for name, pair in zip(names, pairs, strict=True)},
        "off_share": float(1 - np.mean(mask)),
        "alpha_mean": float(np.mean(outputs[1])),
        "overflow": int(np.sum(overflow)),
    }


def passes(result: dict) -> bool:
    """The gate: single pixels may flip, nothing else may differ."""
    return bool(
        max(result["errors"].values()) < BOUND
        and result["off_share"] <= MAX_OFF
        and result["bit_identical_runs"]
        and not result["overflow"]
    )


def check(case: Case) -> dict:
    """Errors of one case, and whether repeated runs agree bit by bit."""
    start = time.perf_counter()
    arrays = make_arrays(case)
    run = evaluator(case, arrays, "triton", deterministic=True)
    oracle = exact_evaluator(case, arrays)
    result = {"case": dataclasses.asdict(case)} | compare(case, arrays, run, oracle)
    everywhere = jnp.ones((case.cameras, *case.size), jnp.float32)
    identical = bit_identical(run, (everywhere, *arrays), case.runs)
    result["bit_identical_runs"] = case.runs if identical else 0
    worst = max(result["errors"], key=result["errors"].get)
    result |= {
        "worst": result["errors"][worst],
        "pass": passes(result),
        "seconds": time.perf_counter() - start,
    }
    print(
        f"{'ok  ' if result['pass'] else 'FAIL'} {case.name}: {result['worst']:.1e} ({worst}); "
        f"{result['off_share']:.2%} of the pixels off; "
        f"{f'{case.runs} runs bit-identical' if identical else 'runs differ'}",
        flush=True,
    )
    return result


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_string("out", None, "Result file (JSON).")
    flags.DEFINE_integer("first", None, "Only the first cases, so many.", lower_bound=1)
    flags.DEFINE_integer("skip", 0, "Leave out the first cases, so many.", lower_bound=0)
    flags.DEFINE_float("seconds", 480.0, "Start no further case after so long.")
    flags.DEFINE_bool("rehearse", False, "Tiny scenes, to try this script without a GPU.")


def main(argv: list[str]) -> int:
    """Command line."""
    del argv
    values = flags.FLAGS
    deadline = time.monotonic() + values.seconds
    chosen = (TINY if values.rehearse else CASES)[: values.first][values.skip :]
    record = provenance.describe("gpu_parity", interpreted=values.rehearse)
    record |= {"bound": BOUND, "cases": []}
    for case in chosen:
        if time.monotonic() > deadline:
            print("out of time; the remaining cases are not checked", flush=True)
            break
        record["cases"].append(check(case))
        if values.out:  # after every case, so that a run cut short keeps what it has
            provenance.write(Path(values.out), record)
    failed = [result["case"]["name"] for result in record["cases"] if not result["pass"]]
    if failed:
        raise cli.UserError(f"parity: {', '.join(failed)} beyond the bounds")
    return 0 if len(record["cases"]) == len(chosen) else provenance.NOT_WHOLE


if __name__ == "__main__":
    define_flags()
    cli.run(main)
