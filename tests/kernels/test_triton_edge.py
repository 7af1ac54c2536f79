"""Cases at the edge: the Triton backend has a defined result for each."""

import dataclasses
import os
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import RasterizeOptions, timing, triton_interpreter, types
from kernels.rasterize import cases
from tests.kernels import triton_scene as ts

pytestmark = ts.MARKS


def test_no_splats():
    scene = ts.make_scene(splats=0)
    out, grads = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)(scene)
    assert np.allclose(out.image, np.broadcast_to(scene["background"], out.image.shape))
    assert not np.any(out.alpha) and int(out.stats.num_intersections[0]) == 0
    assert all(np.all(np.isfinite(grad)) for grad in grads.values())


def test_a_picture_is_the_same_whether_gradients_follow_or_not():
    """Without them splats are sorted, not slots."""
    scene = ts.make_scene(12, cameras=2)
    render = jax.jit(ts.render)
    alone = render(scene)
    followed, _ = jax.vjp(render, scene)
    assert float(alone.alpha.max()) > 0.1
    jax.tree.map(np.testing.assert_array_equal, alone, followed)


def test_none_visible():
    scene = ts.make_scene()
    scene["means"] = scene["means"] + jnp.array([[0.0, 0.0, -50.0]])
    out, grads = ts.assert_parity(scene)
    assert not np.any(out.alpha) and not np.any(grads["means"])


def test_one_splat_over_the_whole_screen():
    scene = ts.make_scene()
    scene["means"] = scene["means"].at[3].set(0.0)
    scene["scales"] = scene["scales"].at[3].set(20.0)
    scene["opacities"] = jnp.zeros(ts.SPLATS).at[3].set(0.6)
    out, _ = ts.assert_parity(scene)
    assert float(out.alpha.min()) > 0.5


def test_depth_ties_keep_the_order_of_the_arrays():
    scene = ts.make_scene(8)
    scene["means"] = scene["means"].at[:, 2].set(0.0) * 0.3
    ts.assert_parity(scene)


def test_opacity_one_and_around_the_threshold():
    scene = ts.make_scene(9)
    near = jnp.float32(1 / 255)
    some = jnp.array([1.0, 1.0, near * 0.99, near * 1.01, near * 2, 0.5, 1.0, 0.9])
    scene["opacities"] = jnp.concatenate([some, some])
    ts.assert_parity(scene)


def test_splats_across_the_near_plane():
    scene = ts.make_scene(10)
    scene["means"] = scene["means"].at[:, 2].add(-4.0)
    ts.assert_parity(scene)


def test_zero_quaternion_is_the_identity():
    scene = ts.make_scene(11)
    scene["quats"] = scene["quats"].at[:4].set(0.0)
    turned = dict(scene, quats=scene["quats"].at[:4].set(jnp.array([[1.0, 0.0, 0.0, 0.0]])))
    run = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)
    out, grads = run(scene)
    assert np.array_equal(out.image, run(turned)[0].image)
    assert not np.any(grads["quats"][:4])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_splats_that_are_not_finite_are_as_if_absent(bad):
    scene = ts.make_scene(12)
    spoilt = dict(scene)
    for index, name in enumerate(ts.NAMES[:5]):
        array = spoilt[name]
        spoilt[name] = array.at[(index,) + (0,) * (array.ndim - 1)].set(bad)
    absent = dict(scene, opacities=scene["opacities"].at[:5].set(0.0))
    run = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)
    (out, grads), (expected, expected_grads) = run(spoilt), run(absent)
    assert np.array_equal(out.image, expected.image)
    for name in ts.NAMES[:5]:
        assert not np.any(grads[name][:5]), f"gradient of {name}"
        assert np.array_equal(grads[name][5:], expected_grads[name][5:]), name


@pytest.mark.parametrize("implementation", ["triton", "xla", "reference"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["viewmats", "intrinsics"])
def test_a_camera_that_is_not_finite_sees_nothing(name, bad, implementation):
    scene = ts.make_scene()
    scene[name] = scene[name].at[0].set(bad)
    out, grads = ts.value_and_grad(implementation, ts.SIZE, ts.COUNT)(scene)
    assert not np.any(out.alpha) and np.all(np.isfinite(out.image))
    for array in ts.NAMES[:7]:
        assert not np.any(grads[array]), f"gradient of {array}"


def test_a_number_that_no_camera_uses_may_be_anything():
    scene = ts.make_scene()
    spoilt = dict(scene)
    spoilt["viewmats"] = scene["viewmats"].at[:, 3, 0].set(np.nan)
    spoilt["intrinsics"] = scene["intrinsics"].at[:, 2, 2].set(np.nan)
    run = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)
    (out, grads), (expected, expected_grads) = run(spoilt), run(scene)
    assert np.array_equal(out.image, expected.image)
    for name in ts.NAMES[:5]:
        assert np.array_equal(grads[name], expected_grads[name]), name


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_what_is_far_beside_the_picture_leaves_no_nan(implementation):
    run = ts.value_and_grad(implementation, ts.SIZE, ts.COUNT)
    scene = ts.make_scene()
    for name, index, value in (("intrinsics", (0, 0, 2), 1e20), ("means", (3, 0), 1e38)):
        _, grads = run(dict(scene, **{name: scene[name].at[index].set(value)}))
        for array in ts.NAMES[:7]:
            assert np.all(np.isfinite(grads[array])), f"{name}: gradient of {array}"


@pytest.mark.parametrize("implementation", ["triton", "xla", "reference"])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_splat_too_large_for_float32_is_as_if_absent(mode, implementation):
    """Its covariance overflows: gradients of zero must not meet infinity."""
    run = ts.value_and_grad(implementation, ts.SIZE, dataclasses.replace(ts.COUNT, mode=mode))
    scene = ts.make_scene(18)
    out, grads = run(dict(scene, opacities=scene["opacities"].at[0].set(0.0)))
    for huge in (1e10, 1e20, 3e38, jnp.array([0.1, 1e20, 0.1])):
        spoilt, spoilt_grads = run(dict(scene, scales=scene["scales"].at[0].set(huge)))
        ts.assert_same(spoilt.image, out.image, "image", 1e-6)
        for name in ts.NAMES:
            ts.assert_same(spoilt_grads[name], grads[name], f"gradient of {name}", 1e-6)
        for name in ts.NAMES[:5]:
            assert not np.any(spoilt_grads[name][0]), f"gradient of {name}"


_HUGE_CAMERAS = {
    "focal_length": lambda view, k: (view, k.at[0, 0].set(1e30)),
    "largest_focal_length": lambda view, k: (view, k.at[1, 1].set(3e38)),
    "centre": lambda view, k: (view, k.at[0, 2].set(3e38)),
    "centre_in_focal_lengths": lambda view, k: (view, k.at[0, 2].set(1e23).at[0, 0].set(1e-37)),
    "pose": lambda view, k: (view.at[:3].multiply(1e20), k),
}


@pytest.mark.parametrize("implementation", ["triton", "xla", "reference"])
def test_a_camera_too_large_for_float32_sees_nothing(implementation):
    run = ts.value_and_grad(implementation, ts.SIZE, ts.COUNT)
    scene = ts.make_scene(19, cameras=2)
    away = scene["viewmats"].at[1, 2, 3].set(-100.0)
    expected_grads = run({**scene, "viewmats": away})[1]
    for what, enlarge in _HUGE_CAMERAS.items():
        view, k = enlarge(scene["viewmats"][1], scene["intrinsics"][1])
        pair = dict(scene)
        pair["viewmats"] = scene["viewmats"].at[1].set(view)
        pair["intrinsics"] = scene["intrinsics"].at[1].set(k)
        out, grads = run(pair)
        assert not np.any(out.alpha[1]), what
        for name in ts.NAMES[:5]:
            ts.assert_same(grads[name], expected_grads[name], f"{what}: gradient of {name}", 1e-6)
        for name in ("viewmats", "intrinsics"):
            assert not np.any(grads[name][1]), f"{what}: gradient of {name}"


@pytest.mark.parametrize("centre", [7.3, 0.0, float(ts.SIZE[1])])
def test_a_camera_without_a_focal_length_gives_gradients(centre):
    """The limits of its Jacobian are infinite; with the centre at an edge, too, they are NaN."""
    if centre != 7.3 and os.environ.get("TRITON_INTERPRET") == "1":
        release = metadata.version("triton").split(".")[:2]
        if tuple(map(int, release)) < (3, 9):
            pytest.skip("3.6's interpreter lets NaN through a maximum: see test_triton_compiled")
    scene = ts.make_scene(20)
    row = jnp.array([0.0, 0.0, centre])
    out, _ = ts.assert_parity(dict(scene, intrinsics=scene["intrinsics"].at[0, 0].set(row)))
    assert np.any(out.alpha)


def test_one_executable_for_all_scenes_of_the_same_shapes():
    run = ts.value_and_grad("triton", ts.SIZE, ts.COUNT)
    scene = ts.make_scene()
    empty = dict(scene, opacities=jnp.zeros_like(scene["opacities"]))
    large = dict(scene, scales=scene["scales"] * 30.0)

    def need(scene):
        return int(run(scene)[0].stats.num_intersections[0])

    need(scene)
    with timing.CompileCounter() as compiled:
        needs = [need(scene) for scene in (empty, scene, large)]
    assert needs[0] == 0 < needs[1] < needs[2], "the scenes must differ"
    assert compiled.count == 0, "a new scene compiled something"


def _operands(scenes: int, cameras: int) -> types.Operands:
    shapes = ((1, 8, 3), (1, 8, 4), (1, 8, 3), (1, 8), (1, 8, 3))
    shapes += ((scenes, cameras, 4, 4), (scenes, cameras, 3, 3))
    return types.Operands(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


@pytest.mark.parametrize(
    ("scenes", "size", "capacity", "message"),
    [
        (65_536, (1, 1), 1, "at most 65535 images a call, got 65536"),
        (1, (8, 8 * 32_768), 1, "at most 32767 tiles along a side, got 1 x 32768"),
        (1, (8, 8), 2**28, "32-bit indices"),
        (65_535, (8, 8), 2**13, "32-bit indices"),  # by the four columns of feature rows
    ],
)
def test_calls_beyond_what_indices_and_grids_hold_are_refused(scenes, size, capacity, message):
    from kernels.rasterize import triton_sizes  # after triton_scene has chosen the interpreter

    config = types.RasterizeConfig(ts.COUNT, *size, capacity)
    with pytest.raises(NotImplementedError, match=message):
        triton_sizes.sizes_of(_operands(scenes, 1), config, (8, 8))
    small = types.RasterizeConfig(ts.COUNT, 8, 8 * 32_767, 1)
    assert triton_sizes.sizes_of(_operands(1, 1), small, (8, 8)).tiles_x == 32_767


@pytest.mark.parametrize(
    ("scenes", "side", "dtype"),
    [(16, 512, jnp.uint16), (1, 2048, jnp.uint16), (17, 512, jnp.uint32), (1, 2049, jnp.uint32)],
)
def test_keys_have_16_bits_while_these_number_all_tiles(scenes, side, dtype):
    from kernels.rasterize import triton_sizes  # after triton_scene has chosen the interpreter

    config = types.RasterizeConfig(ts.COUNT, side, side, 1000)
    assert triton_sizes.sizes_of(_operands(scenes, 1), config, (8, 8)).key_dtype == dtype


@pytest.fixture
def guarded(monkeypatch):
    """Every array of every kernel lies between guards; nothing to guard on a GPU."""
    monkeypatch.setattr(triton_interpreter, "HostTensor", ts.GuardedTensor)
    ts.GuardedTensor.made = 0
    yield
    assert ts.HAS_GPU or ts.GuardedTensor.made > 50, "nothing was guarded"


def _one_tile_scene(splats: int) -> dict:
    """Every splat covers the single tile of an 8x8 image: one intersection each."""
    scene = ts.make_scene(13, splats=splats, size=(8, 8))
    scene["scales"] = jnp.broadcast_to(jnp.array([1.5, 1.0, 2.0]), (splats, 3))
    scene["means"] = scene["means"] * 0.3
    scene["opacities"] = jnp.full(splats, 0.2)
    return scene


@pytest.mark.parametrize(("splats", "capacity"), [(24, 24), (24, 23), (100, 1)])
def test_overflow_drops_the_farthest_and_counts(splats, capacity, guarded):
    """None, by one, and by 100 times; no kernel leaves its arrays."""
    scene = _one_tile_scene(splats)
    options = RasterizeOptions(capacity=capacity, on_overflow="count", tile_size=(8, 8))
    out, grads = ts.value_and_grad("triton", (8, 8), options)(scene)
    assert int(out.stats.overflow[0]) == splats - capacity
    assert int(out.stats.num_intersections[0]) == splats
    order = np.argsort(np.asarray(scene["means"])[:, 2], kind="stable")
    front = dict(scene)
    front["opacities"] = jnp.zeros(splats).at[order[:capacity]].set(0.2)
    expected, expected_grads = ts.value_and_grad("reference", (8, 8), ts.COUNT)(front)
    ts.assert_same(out.image, expected.image, "image of the front-most splats")
    for name in ("means", "quats", "scales", "features", "viewmats", "intrinsics", "background"):
        ts.assert_same(grads[name], expected_grads[name], f"gradient of {name}")
    kept = order[:capacity]
    ts.assert_same(grads["opacities"][kept], expected_grads["opacities"][kept], "opacities")
    assert not np.any(np.asarray(grads["means"])[order[capacity:]])


def test_kernels_stay_within_their_arrays(guarded):
    """Odd sizes, several cameras and many channels, between guards."""
    size = (7, 25)
    ts.assert_parity(ts.make_scene(17, cameras=2, channels=5, size=size), size=size)


def test_overflow_is_counted_per_image():
    scene = ts.make_scene(14, splats=24, cameras=2)
    scene["viewmats"] = scene["viewmats"].at[1, 2, 3].add(100.0)  # a camera that sees one dot
    options = RasterizeOptions(capacity=20, on_overflow="count", tile_size=(8, 8))
    out = ts.render(scene, options=options)
    far = {**scene, **{name: scene[name][1:] for name in ("viewmats", "intrinsics", "background")}}
    assert int(out.stats.overflow[0]) > 0
    ts.assert_same(out.image[1], ts.render(far, options=options).image[0], "the other image")


def test_overflow_raises_outside_jit():
    scene = _one_tile_scene(8)
    options = RasterizeOptions(capacity=3, tile_size=(8, 8))
    with pytest.raises(OverflowError, match="capacity"):
        ts.render(scene, size=(8, 8), options=options)


def test_vmap_is_the_loop():
    """Scenes mapped over cameras mapped over opacities; means shared by all."""
    scene = ts.make_scene(15)
    views = jnp.asarray(cases.turned_views([0.0, 0.3], 4.0)[:, None], jnp.float32)
    opacities = jnp.stack([scene["opacities"], scene["opacities"] ** 2])

    def image(viewmats, opacities, means):
        one = dict(scene, viewmats=viewmats, opacities=opacities, means=means)
        return ts.render(one).image

    mapped = jax.vmap(jax.vmap(image, (0, None, None)), (None, 0, None))

    def functional(function, *arrays):
        out = function(*arrays)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    def loop(views, opacities, means):
        rows = [[image(view, opacity, means) for view in views] for opacity in opacities]
        return jnp.stack([jnp.stack(row) for row in rows])

    arrays = (views, opacities, scene["means"])
    values = [jax.jit(f)(*arrays) for f in (mapped, loop)]
    assert np.allclose(*values, rtol=1e-5, atol=1e-6)
    grads = [
        jax.jit(jax.grad(lambda *a, f=f: functional(f, *a), argnums=(0, 1, 2)))(*arrays)
        for f in (mapped, loop)
    ]
    for name, one, other in zip(("views", "opacities", "means"), *grads, strict=True):
        ts.assert_same(one, other, f"gradient of {name}", 1e-5)
