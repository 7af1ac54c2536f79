"""Times the Triton rasterizer on the GPU at hand, stage by stage and whole, beside gsplat.

    python -m benchmarks.gpu_bench --out=DIR/h100.json [--gsplat_python=python3] [--minutes=8]
    TRITON_INTERPRET=1 python -m benchmarks.gpu_bench --rehearse --out=/tmp/rehearsal.json

Ours: many calls inside one jitted loop. gsplat 1.5.3: CUDA events around its own calls, in a
process of its own over the same arrays (`benchmarks.gsplat_side`), if --gsplat_python has it.
Writes after every case, so that a run cut short keeps what it has.
"""

import dataclasses
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import kernels
from benchmarks import compiled_kernels
from instant_gs import cli
from kernels import tune
from kernels.rasterize import triton_backend, triton_bwd, triton_config, triton_fwd
from kernels.types import Operands, RasterizeConfig

_OUT = flags.DEFINE_string("out", None, "Result file (JSON).", required=True)
_GSPLAT = flags.DEFINE_string("gsplat_python", None, "Python that can import torch and gsplat.")
_MINUTES = flags.DEFINE_float("minutes", 8.0, "Start no further case after so long.")
_REHEARSE = flags.DEFINE_bool("rehearse", False, "Tiny sizes, to try this script without a GPU.")
_LOOPS = flags.DEFINE_integer("loops", 30, "Calls in each timed loop.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Case:
    """A timed scene of small splats; the first is the one that targets are set for."""

    splats: int = 200_000
    size: int = 512
    cameras: int = 1
    channels: int = 3


CASES = (
    Case(),
    Case(cameras=8),
    Case(splats=20_000),
    Case(splats=1_000_000),
    Case(size=256),
    Case(size=1024),
    Case(channels=32),
    Case(splats=20_000, size=256, cameras=8),
    Case(splats=1_000_000, size=1024),
)
TINY = (Case(splats=20, size=16),)


def _config(case: Case, arrays) -> RasterizeConfig:
    options = kernels.RasterizeOptions(on_overflow="count")
    capacity = kernels.propose_capacity(
        *arrays, image_size=(case.size, case.size), options=options, implementation="triton"
    )
    options = dataclasses.replace(options, capacity=capacity)
    return RasterizeConfig(options, case.size, case.size, capacity)


def stages(case: Case, arrays, config: RasterizeConfig, loops: int) -> dict[str, float]:
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
        return 1e6 * tune.measure(function, inputs, vary, loops)

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


def ours(case: Case, arrays, loops: int) -> dict:
    """Times of the whole and of the stages, in microseconds."""
    config = _config(case, arrays)
    images = dict(image_size=(case.size, case.size), implementation="triton")
    start = time.perf_counter()

    def forward(*arrays):
        return kernels.rasterize(*arrays, options=config.options, **images).image

    def both(*arrays):
        return jax.grad(lambda *a: jnp.sum(forward(*a) ** 2), argnums=tuple(range(7)))(*arrays)

    result = {
        "capacity": config.capacity,
        "forward_us": 1e6 * tune.measure(forward, arrays, 5, loops),
        "forward_backward_us": 1e6 * tune.measure(both, arrays, 5, loops),
        "compile_and_time_s": time.perf_counter() - start,
    }
    result["stages_us"] = stages(case, arrays, config, loops)
    return result


def gsplat(case: Case, arrays, python: str) -> dict:
    """gsplat's times over the same arrays, or why there are none."""
    names = ("means", "quats", "scales", "opacities", "features", "viewmats", "intrinsics")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.npz"
        named = dict(zip(names, map(np.asarray, arrays), strict=True))
        np.savez(path, size=case.size, **named)
        command = [python, str(Path(__file__).with_name("gsplat_side.py")), str(path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode != 0:
        return {"error": run.stderr.strip().splitlines()[-1] if run.stderr else "failed"}
    return json.loads(run.stdout.strip().splitlines()[-1])


def _kernels_hash() -> str:
    """The hash that `benchmarks.kernel_status` compares; in a process of its own for its flags."""
    code = "from benchmarks import kernel_status; print(kernel_status.sources_hash())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _write(path: Path, record: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    import triton

    deadline = time.monotonic() + 60 * _MINUTES.value
    loops = 1 if _REHEARSE.value else _LOOPS.value
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "kind": "gpu_bench",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "interpreted": _REHEARSE.value,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "triton": triton.__version__,
        },
        "commit": commit.stdout.strip() or None,
        "kernels_sha256": _kernels_hash(),
        "triton_sources_sha256": compiled_kernels.sources_hash(),
        "cases": [],
    }
    for case in TINY if _REHEARSE.value else CASES:
        if time.monotonic() > deadline:
            print("out of time; the remaining cases are not measured", flush=True)
            break
        arrays = tune.small_splats(case.splats, case.channels, case.size, cameras=case.cameras)
        entry = {"case": dataclasses.asdict(case), "ours": ours(case, arrays, loops)}
        if _GSPLAT.value:
            entry["gsplat"] = gsplat(case, arrays, _GSPLAT.value)
        record["cases"].append(entry)
        _write(Path(_OUT.value), record)
        print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    cli.run(main)
