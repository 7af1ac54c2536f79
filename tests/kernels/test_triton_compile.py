"""What can be proved about the GPU without one: kernels compile for it, programs lower for it.

Each test runs in a process of its own, because a process that interprets kernels cannot compile.
"""

import json
import re
from concurrent import futures

import pytest

from benchmarks import compiled_kernels, provenance, table
from kernels import triton_compile
from tests import own_process
from tests.kernels import triton_scene as ts

NUM_KERNELS = 12  # of a loss and gradient with up to three channels
NUM_FORWARD_KERNELS = 8  # two of limits, projection, two of bins, emission, ranges, blending

pytestmark = ts.NEEDS_TRITON


def _python(code: str) -> str:
    """Output of a program on four virtual CPU devices."""
    return own_process.python(code, XLA_FLAGS="--xla_force_host_platform_device_count=4")


@pytest.fixture(scope="module", autouse=True)
def plugin():
    try:
        import jax_cuda13_plugin  # noqa: F401
    except ImportError:
        pytest.skip("jax-cuda13-plugin is not installed: pip install --no-deps jax-cuda13-plugin")


def test_a_gradient_lowers_for_cuda_with_every_kernel_inside_and_nothing_spills():
    code = """
import dataclasses, json, re
from benchmarks import compiled_kernels as ck
compile_kernel, launches = ck.triton_compile.compile_kernel, []
def spy(*arguments):
    launches.append(arguments)
    return compile_kernel(*arguments)
ck.triton_compile.compile_kernel = spy
text = ck.lower(3, "antialiased")
kernels = ck.triton_compile.compiled_kernels()
entries = [dict(ck.cubin.resources(c), name=l.name) for l, c in kernels]
ptx = [c.ptx.split(".version")[1].split()[0] for _, c in kernels]
typed = len(re.findall(r"@triton_kernel_call_ffi\\(.*mhlo\\.backend_config = \\{", text))
calls = text.count("triton_kernel_call_ffi")
sorts = [part.split("stablehlo.return")[0] for part in text.split("stablehlo.sort")[1:]]
loads = {l.name: c.ptx.count("ld.global") for l, c in kernels}
# Lines of the source aside, which may be another checkout's in Triton's cache.
instructions = lambda compiled: re.sub(r"\\.(file|loc)\\b.*", "", compiled.ptx.split(".section")[0])
staged = {
    launch.name: instructions(compile_kernel(launch, *rest)) == instructions(
        compile_kernel(dataclasses.replace(launch, num_stages=launch.num_stages + 3), *rest)
    )
    for launch, *rest in launches if launch.name in ("blend_kernel", "blend_backward_kernel")
}
fused = [l.name for l, c in kernels if "fma" in c.ptx]
shared = re.findall(r"output_tuple_indices = \\[(\\d+)\\],\\s*operand_index = (\\d+)", text)
print(json.dumps(
    [calls, typed, text.count("callback"), entries, ptx, sorts, loads, staged, fused, shared]
))
"""
    calls, typed, callbacks, entries, ptx, sorts, loads, staged, fused, shared = json.loads(
        _python(code).splitlines()[-1]
    )
    assert calls == NUM_KERNELS and callbacks == 0
    assert typed == calls, "only calls of the typed interface go into command buffers"
    assert len(entries) == NUM_KERNELS
    assert not [e["name"] for e in entries if e["spill_bytes"]], "kernels spill registers"
    (sort,) = sorts  # by tile; XLA sorts pairs by radix only if it sees just this
    assert sort.partition(")")[0].count("%") == 2 and "is_stable = true" in sort
    assert re.findall(r"compare +(\w+), .*, +(\w+) :", sort) == [("LT", "UNSIGNED")], sort
    assert set(ptx) == {"8.7"}, "newer PTX than CUDA 12.8 knows"
    # Triton may move the loads of a chunk's splats into every thread: ten times as many.
    assert loads["blend_kernel"] < 20 and loads["blend_backward_kernel"] < 60, loads
    assert loads["emit_kernel"] < 40, loads
    # What an earlier kernel emptied: tallies, the counts of what is emitted, ranges.
    assert shared == [["6", "8"], ["4", "6"], ["0", "4"]], "an output begins as no operand"
    # The projection, which is compiled without them, too, has some: of the logarithm.
    assert "blend_kernel" in fused and "sample_kernel" not in fused, "depths must be the same bits"
    # Why the tuned table has no number of stages: the loops over lists are `while` loops.
    assert staged == {"blend_kernel": True, "blend_backward_kernel": True}


def test_a_program_for_cuda_can_be_kept_with_its_gradient():
    """As docs/kernels.md says: JAX asks to be told that custom calls will mean the same later."""
    code = """
import jax, jax.numpy as jnp
from jax import export
import kernels
def render(*arrays):
    return kernels.rasterize(*arrays, image_size=(16, 16), implementation="triton")
shapes = ((9, 3), (9, 4), (9, 3), (9,), (9, 3), (1, 4, 4), (1, 3, 3))
arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
calls = export.DisabledSafetyCheck.custom_call("triton_kernel_call_ffi")
program = export.export(jax.jit(render), platforms=["cuda"], disabled_checks=[calls])(*arrays)
kept = export.deserialize(program.serialize(vjp_order=1))
for program in (kept, kept.vjp()):
    print(program.platforms, program.mlir_module().count("@triton_kernel_call_ffi("))
"""
    forward, both = _python(code).splitlines()[-2:]
    assert forward == f"('cuda',) {NUM_FORWARD_KERNELS}"
    assert both == f"('cuda',) {NUM_KERNELS}"


def test_every_gpu_has_a_ptx_version_that_its_compiler_takes():
    """A PTX version older than the GPU ends the process in LLVM."""
    code = """
import numpy as np
from kernels import triton_compile
from tests.kernels import triton_toy
launch = triton_compile.Launch(
    triton_toy.scale_kernel, (1, 1, 1), (("count", 1), ("factor", 1.0)), (("BLOCK", 8),)
)
for capability in triton_compile.PTX_VERSIONS:
    ptx = triton_compile.compile_kernel(launch, [np.float32] * 2, capability).ptx
    print(capability, ptx.split(".version")[1].split()[0])
"""
    rows = dict(line.split() for line in _python(code).splitlines() if " 8." in line)
    assert {int(cc): int(version.replace(".", "")) for cc, version in rows.items()} == (
        triton_compile.PTX_VERSIONS
    )
    assert set(compiled_kernels.CAPABILITIES) <= set(triton_compile.PTX_VERSIONS)
    assert set(triton_compile.SHARED_BYTES) == set(triton_compile.PTX_VERSIONS)


def test_tiles_too_large_for_a_gpus_shared_memory_are_refused():
    code = """
import jax, jax.numpy as jnp
import kernels
options = kernels.RasterizeOptions(tile_size=(32, 32), on_overflow="count")
def loss(*arrays):
    return jnp.sum(kernels.rasterize(
        *arrays, image_size=(64, 64), options=options, implementation="triton").image)
shapes = ((9, 3), (9, 4), (9, 3), (9,), (9, 3), (1, 4, 4), (1, 3, 3))
arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
try:
    jax.jit(jax.grad(loss)).trace(*arrays).lower(lowering_platforms=("cuda",))
except NotImplementedError as error:
    print(error)
"""
    said = own_process.python(code, KERNELS_CUDA_CAPABILITY="89")
    assert "needs 131072 bytes of shared memory, compute capability 89 has 101376" in said


@pytest.mark.parametrize(
    ("how", "scenes"), [("rasterize_sharded", 2), ("shard_map", 2), ("unmapped", 8)]
)
def test_a_sharded_render_lowers_for_cuda_to_kernels_of_local_scenes(how, scenes):
    """By this library's wrapper, and by a shard_map of the caller's that tracks what varies.

    XLA cannot split an opaque call: one over the whole batch would cost an all-gather. That there
    is no explicit communication either is what the words of collectives show.
    """
    code = f"""
import jax, jax.numpy as jnp, re
from jax.sharding import PartitionSpec as P
import kernels
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
shapes = ((8, 50, 3), (8, 50, 4), (8, 50, 3), (8, 50), (8, 50, 3), (8, 1, 4, 4), (8, 1, 3, 3))
settings = dict(image_size=(16, 16), implementation="triton")
def rasterize_sharded(*arrays):
    return kernels.rasterize_sharded(*arrays, mesh=mesh, **settings).image
def local(*a):
    return jax.vmap(lambda *a: kernels.rasterize(*a, **settings).image)(*a)
unmapped = jax.jit(local)
shard_map = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
def both(weights, *arrays):
    image, pull_back = jax.vjp({how}, *arrays)
    return image, pull_back(weights)
sharding = jax.sharding.NamedSharding(mesh, P("data"))
shapes = ((8, 1, 16, 16, 3), *shapes)
arrays = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=sharding) for s in shapes]
text = jax.jit(both).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
calls = [line for line in text.splitlines() if "@triton_kernel_call_ffi(" in line]
print(len(calls))
print(sorted(set(re.findall(r"tensor<(\\d+)x50x8xf32>", "".join(calls)))))  # records: of all images
print(sorted(set(re.findall(r"stablehlo\\.(all_\\w+|collective_\\w+|reduce_scatter)", text))))
"""
    calls, images, collectives = _python(code).splitlines()[-3:]
    assert int(calls) == NUM_KERNELS, "one launch of each kernel, not one per scene"
    assert images == f"['{scenes}']", "scenes that one device's kernels render"
    assert collectives == "[]"


def test_the_train_step_lowers_for_cuda_with_one_launch_of_each_kernel():
    code = """
import jax, jax.numpy as jnp
from configs import demo
from instant_gs import models, types
from instant_gs.training import curriculum, parallel, state, step
from kernels import device
device.is_nvidia = lambda: True
config = demo.get_config("smoke")
model, size = models.build(config.model), config.model.image_size
def views(*lead):
    shapes = {"image": (size, size, 3), "alpha": (size, size), "regions": (size, size)}
    numbers = {"cam2world": (4, 4), "intrinsics": (3, 3), "coefficients": (52,)}
    return types.View(
        **{k: jax.ShapeDtypeStruct((*lead, *s), jnp.uint8) for k, s in shapes.items()},
        **{k: jax.ShapeDtypeStruct((*lead, *s), jnp.float32) for k, s in numbers.items()},
    )
batch = types.Batch(views(4), views(4), views(4, 1), views(4, 1))
mesh = parallel.make_mesh(4)
fresh = jax.eval_shape(lambda: state.create(model, config))
phase = curriculum.at(config.motion_pretrain.steps, config)
lowered = step.make(model, config, phase, mesh).trace(fresh, batch)
text = lowered.lower(lowering_platforms=("cuda",)).as_text()
print(text.count("triton_kernel_call_ffi"), text.count("callback"))
"""
    calls, callbacks = _python(code).splitlines()[-1].split()
    # The photos' own views are drawn once before, for the slope of their error (models.refinement).
    expected = 2 * NUM_KERNELS
    assert int(calls) == expected, "all images of a step in one launch of each kernel"
    assert callbacks == "0"


def test_the_animate_step_lowers_for_cuda_with_one_launch_of_each_kernel():
    code = """
import jax, jax.numpy as jnp
from configs import demo
from instant_gs import models, types
from instant_gs.geometry import camera
from instant_gs.inference import avatar as avatar_lib
from kernels import device
device.is_nvidia = lambda: True
config = demo.get_config("smoke")
model, size = models.build(config.model), config.model.image_size
params = jax.eval_shape(model.init, jax.random.key(0))
animator = avatar_lib.InstantAvatar(config, params)
photo = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
avatar = jax.eval_shape(model.encode, params, photo)
avatar = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), avatar)
avatar = jax.eval_shape(model.fold, avatar)
width = config.model.gaussians.feature_width
motion = types.Motion(*[jax.ShapeDtypeStruct((width,), jnp.float32)] * 2)
view = jax.tree.map(jnp.asarray, camera.orbit_camera(0.0, 0.0))
lowered = animator._frame.trace(params, avatar, motion, view, size)
text = lowered.lower(lowering_platforms=("cuda",)).as_text()
print(text.count("triton_kernel_call_ffi"), text.count("callback"))
"""
    calls, callbacks = _python(code).splitlines()[-1].split()
    assert int(calls) == NUM_FORWARD_KERNELS and callbacks == "0"


def test_record_of_compiled_kernels_is_of_these_sources():
    record = json.loads(table.COMPILED.read_text(encoding="utf-8"))
    assert record["sources_sha256"] == provenance.triton_hash(), (
        "the Triton sources changed: python -m benchmarks.compiled_kernels "
        "--out=benchmarks/compiled_kernels.json"
    )
    assert not any(entry["spill_bytes"] for entry in record["kernels"])
    assert {entry["capability"] for entry in record["kernels"]} == set(
        compiled_kernels.CAPABILITIES
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kernel_compiles_for_every_gpu_without_spills():
    def survey(*capabilities) -> list[dict]:
        code = "import json; from benchmarks import compiled_kernels as ck; "
        code += f"print(json.dumps(ck.survey({list(capabilities)})))"
        return json.loads(_python(code).splitlines()[-1])

    half = len(compiled_kernels.CAPABILITIES) // 2
    halves = compiled_kernels.CAPABILITIES[:half], compiled_kernels.CAPABILITIES[half:]
    with futures.ThreadPoolExecutor() as pool:  # two processes for two cores
        first, second = pool.map(lambda some: survey(*some), halves)
    entries = first + second
    spilling = [(e["capability"], e["kernel"]) for e in entries if e["spill_bytes"]]
    assert not spilling and len(entries) >= NUM_KERNELS * len(compiled_kernels.CAPABILITIES)
