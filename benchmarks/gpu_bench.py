"""Times the Triton rasterizer on the GPU at hand, stage by stage and whole, beside gsplat.

    python -m benchmarks.gpu_bench --out=DIR/h100.json [--gsplat_python=python3] [--minutes=8]
    TRITON_INTERPRET=1 python -m benchmarks.gpu_bench --rehearse --out=/tmp/rehearsal.json

Ours: many calls inside one jitted loop, and the profiler's sum over kernels. gsplat 1.5.3: CUDA
events around its own calls, and its profiler's sum, in a process of its own over the same arrays
(`benchmarks.gsplat_side`), if --gsplat_python has it. Writes after every case, so that a run cut
short keeps what it has.
"""

import dataclasses
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import kernels
from benchmarks import provenance
from instant_gs import cli
from kernels import tune
from kernels.rasterize import api, triton_backend, triton_bwd, triton_config, triton_fwd
from kernels.types import Operands, RasterizeConfig

_OUT = flags.DEFINE_string("out", None, "Result file (JSON).", required=True)
_GSPLAT = flags.DEFINE_string("gsplat_python", None, "Python that can import torch and gsplat.")
_MINUTES = flags.DEFINE_float("minutes", 8.0, "Start no further case after so long.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny sizes, to try this script without a GPU.")
_LOOPS = flags.DEFINE_integer("loops", 30, "Calls in each timed loop.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Case:
    """A timed scene of small splats; the first is the one that targets are set for.

    `stages`: every stage is timed by itself, too.
    """

    splats: int = 200_000
    size: int = 512
    cameras: int = 1
    channels: int = 3
    stages: bool = False


CASES = (
    Case(stages=True),
    Case(cameras=8),
    Case(channels=32, stages=True),
    Case(splats=20_000),
    Case(splats=1_000_000),
    Case(size=256),
    Case(size=1024),
    Case(splats=20_000, size=256, cameras=8),
    Case(splats=1_000_000, size=1024),
)


def shrunk() -> tuple[Case, ...]:
    """Cases at sizes for Triton's interpreter; the last two only combine what others have."""
    return tuple(
        dataclasses.replace(
            case,
            splats=max(2, case.splats // 50_000),
            size=case.size // 64,
            cameras=min(2, case.cameras),
        )
        for case in CASES[:7]
    )


def _config(case: Case, arrays) -> tuple[RasterizeConfig, int]:
    """Configuration with the capacity that fits, and the tile intersections of all images."""
    options = kernels.RasterizeOptions(on_overflow="count")
    stats = kernels.rasterize(
        *arrays, image_size=(case.size, case.size), options=options, implementation="triton"
    ).stats
    capacity = api.propose_from_count(int(jnp.max(stats.num_intersections)))
    options = dataclasses.replace(options, capacity=capacity)
    config = RasterizeConfig(options, case.size, case.size, capacity)
    return config, int(jnp.sum(stats.num_intersections))


def microseconds(function, arrays: tuple, vary: int) -> float:
    """Time of one call, see `kernels.tune.measure`; a rehearsal measures once."""
    loops, repeats = (1, 1) if _REHEARSE.value else (_LOOPS.value, 5)
    return 1e6 * tune.measure(function, arrays, vary, loops, repeats=repeats)


def stages(case: Case, arrays, config: RasterizeConfig) -> dict[str, float]:
    """Microseconds of each stage by itself, its inputs at hand."""
    operands = Operands(*(array[None] for array in arrays))
    kernel = triton_config.choose(config, case.channels)
    sizes = triton_fwd.sizes_of(operands, config, kernel.tile)
    output, residuals = jax.jit(lambda o: triton_backend.forward(o, config))(operands)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), residuals)
    records, depths, counts, boxes = jax.jit(lambda o: triton_fwd._project(o, config, kernel))(
        operands
    )
    order = jax.jit(triton_fwd._depth_order)(depths)
    lists = {name: getattr(flat, name) for name in ("ranges", "splats", "slots")}
    cotangents = (output.image, output.transmittance, output.depth)
    rows = jax.jit(
        lambda r: triton_bwd._blend_backward(operands, r, cotangents, sizes, config, kernel)
    )(residuals)
    grads = jax.jit(lambda r, m: triton_bwd._gather(r, *m, sizes, kernel)[0])(residuals, rows)

    def timed(function, *inputs, vary=0) -> float:
        return microseconds(function, inputs, vary)

    keys, slots = flat.keys.reshape(-1), flat.slots.reshape(-1)
    return {
        "project": timed(
            lambda views: triton_fwd._project(operands._replace(viewmats=views), config, kernel),
            operands.viewmats,
        ),
        "depth sort": timed(triton_fwd._depth_order, depths),
        "emit": timed(
            lambda boxes: triton_fwd._emit(order, records, counts, boxes, sizes, kernel)[1][0],
            boxes,
        ),
        "tile sort": timed(
            lambda keys: jax.lax.sort((keys, slots), num_keys=1, is_stable=True)[0], keys
        ),
        "blend": timed(
            lambda ranges: triton_fwd._blend(
                operands, flat.records, dict(lists, ranges=ranges), sizes, config, kernel
            ),
            flat.ranges,
        ),
        "blend backward": timed(
            lambda ranges: triton_bwd._blend_backward(
                operands, residuals._replace(ranges=ranges), cotangents, sizes, config, kernel
            ),
            residuals.ranges,
        ),
        "gather": timed(
            lambda first: triton_bwd._gather(
                residuals._replace(first_slots=first), *rows, sizes, kernel
            ),
            residuals.first_slots,
        ),
        "project backward": timed(
            lambda views: triton_bwd._project_backward(
                operands._replace(viewmats=views), residuals.emitted, grads, sizes, config, kernel
            ),
            operands.viewmats,
        ),
    }


def memory_bytes(function, arrays: tuple) -> int:
    """What XLA allocates for one call: arguments, results and everything between."""
    sizes = jax.jit(function).lower(*arrays).compile().memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def kernel_sums(function, arrays: tuple, calls: int = 10) -> dict[str, float]:
    """Microseconds a call that the GPU spends in each kernel, by JAX's profiler."""
    run = jax.jit(function)
    jax.block_until_ready(run(*arrays))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                jax.block_until_ready(run(*arrays))
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    sums: dict[str, float] = {}
    for plane in profile.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                sums[event.name] = sums.get(event.name, 0.0) + event.duration_ns / 1e3 / calls
    return dict(sorted(sums.items(), key=lambda item: -item[1])[:20])


def _gradient(config: RasterizeConfig, size: int):
    """(forward, forward and backward) of the seven arrays."""

    def forward(*arrays):
        return kernels.rasterize(
            *arrays, options=config.options, image_size=(size, size), implementation="triton"
        ).image

    def both(*arrays):
        return jax.grad(lambda *a: jnp.sum(forward(*a) ** 2), argnums=tuple(range(7)))(*arrays)

    return forward, both


def ours(case: Case, arrays) -> dict:
    """Times of the whole and of the stages, in microseconds."""
    config, intersections = _config(case, arrays)
    start = time.perf_counter()
    forward, both = _gradient(config, case.size)
    options = dataclasses.replace(config.options, deterministic=True)
    _, deterministic = _gradient(dataclasses.replace(config, options=options), case.size)
    result = {
        "capacity": config.capacity,
        "intersections": intersections,
        "forward_us": microseconds(forward, arrays, 5),
        "forward_backward_us": microseconds(both, arrays, 5),
        "memory_bytes": memory_bytes(both, arrays),
    }
    if case.stages:
        result["forward_backward_deterministic_us"] = microseconds(deterministic, arrays, 5)
        result["stages_us"] = stages(case, arrays, config)
        try:
            result["kernels_us"] = kernel_sums(both, arrays)
        except Exception as error:  # the profiler's parts differ between machines; times stand
            result["kernels_us"] = {"error": str(error).splitlines()[0]}
    return result | {"compile_and_time_s": time.perf_counter() - start}


def gsplat(case: Case, arrays, python: str) -> dict:
    """gsplat's times over the same arrays, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.npz"
        named = dict(zip(Operands._fields, map(np.asarray, arrays), strict=True))
        np.savez(path, size=case.size, **named)
        command = [python, str(Path(__file__).with_name("gsplat_side.py")), str(path)]
        if _REHEARSE.value:
            command.append("--rehearse")
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode != 0:
        return {"error": run.stderr.strip().splitlines()[-1] if run.stderr else "failed"}
    return json.loads(run.stdout.strip().splitlines()[-1])


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    deadline = time.monotonic() + 60 * _MINUTES.value
    record = provenance.describe("gpu_bench", interpreted=_REHEARSE.value) | {"cases": []}
    for case in shrunk() if _REHEARSE.value else CASES:
        if time.monotonic() > deadline:
            print("out of time; the remaining cases are not measured", flush=True)
            break
        arrays = tune.small_splats(case.splats, case.channels, case.size, cameras=case.cameras)
        entry = {"case": dataclasses.asdict(case), "ours": ours(case, arrays)}
        if _GSPLAT.value:
            entry["gsplat"] = gsplat(case, arrays, _GSPLAT.value)
        record["cases"].append(entry)
        provenance.write(Path(_OUT.value), record)
        print(json.dumps(entry), flush=True)
    failed = [entry["gsplat"] for entry in record["cases"] if "error" in entry.get("gsplat", {})]
    if failed:
        raise cli.UserError(f"gsplat: {failed[0]['error']}")


if __name__ == "__main__":
    cli.run(main)
