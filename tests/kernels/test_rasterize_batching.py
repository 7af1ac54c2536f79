"""vmap, sharing, sharding, recompilation: what the compiled program does, and does not, contain."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import kernels
from tests.kernels import quick

_SCENES, _VIEWS = 3, 2
_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def _image(backend, helpers):
    def render(means, features, viewmats, rest):
        quats, scales, opacities, intrinsics = rest
        output = kernels.rasterize(
            means,
            quats,
            scales,
            opacities,
            features,
            viewmats,
            intrinsics,
            image_size=(helpers.HEIGHT, helpers.WIDTH),
            options=helpers.OPTIONS,
            implementation=backend,
        )
        return output.image[0]

    return render


def _inputs(helpers):
    scenes = [helpers.make_scene(seed) for seed in range(_SCENES)]
    means = np.stack([scene.means for scene in scenes])
    features = np.stack([scene.features for scene in scenes])
    viewmats = helpers.make_scene(cameras=_VIEWS).viewmats[:, None]
    rest = (scenes[0].quats, scenes[0].scales, scenes[0].opacities, scenes[0].intrinsics)
    return helpers.as_float32((means, features, viewmats, rest))


def _nested(render):
    """Scenes outside, views inside; views share means, scenes share views, all share the rest."""
    over_views = jax.vmap(render, in_axes=(None, None, 0, None))
    return jax.vmap(over_views, in_axes=(0, 0, None, None))


def test_nested_vmap_with_shared_operands_equals_loop(backend, helpers):
    render = _image(backend, helpers)
    inputs = _inputs(helpers)
    weights = np.random.default_rng(0).normal(
        size=(_SCENES, _VIEWS, helpers.HEIGHT, helpers.WIDTH, helpers.CHANNELS)
    )
    weights = jnp.asarray(weights, jnp.float32)

    def batched_loss(inputs):
        images = _nested(render)(*inputs)
        return jnp.sum(images * weights), images

    def single_loss(means, features, viewmat, rest, weight):
        image = render(means, features, viewmat, rest)
        return jnp.sum(image * weight), image

    (_, images), grads = jax.jit(jax.value_and_grad(batched_loss, has_aux=True))(inputs)
    single = jax.jit(jax.value_and_grad(single_loss, argnums=(0, 1, 2, 3), has_aux=True))
    means, features, viewmats, rest = inputs
    expected = jax.tree.map(lambda array: np.zeros(array.shape), inputs)
    for s in range(_SCENES):
        for v in range(_VIEWS):
            (_, image), grad = single(means[s], features[s], viewmats[v], rest, weights[s, v])
            np.testing.assert_allclose(images[s, v], image, atol=1e-6)
            # The gradient of what is shared is the sum over those who share it.
            expected[0][s] += grad[0]
            expected[1][s] += grad[1]
            expected[2][v] += grad[2]
            for total, part in zip(expected[3], grad[3], strict=True):
                total += np.asarray(part)
    assert 0.1 < float(np.mean(images)) < 0.9
    for actual, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        assert helpers.relative_error(actual, wanted) < 1e-5


def test_gradients_inside_vmap_stay_apart(backend, helpers):
    """vmap of grad over views: one gradient of the shared means for each view, not their sum."""
    render = _image(backend, helpers)
    means, features, viewmats, rest = _inputs(helpers)

    def gradient(viewmat):
        return jax.grad(lambda m: jnp.sum(render(m, features[0], viewmat, rest) ** 2))(means[0])

    together = jax.jit(jax.vmap(gradient))(viewmats)
    assert together.shape == (_VIEWS, *means[0].shape)
    one_by_one = jax.jit(gradient)
    for view in range(_VIEWS):
        assert helpers.relative_error(together[view], one_by_one(viewmats[view])) < 1e-5


def test_vmap_over_nothing_gives_nothing(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    render = helpers.render_function("xla").__wrapped__

    def loss(means):
        return jnp.sum(render(means, *scene[1:]).image)

    nothing = jnp.zeros((0, *scene.means.shape))
    image = jax.vmap(lambda means: render(means, *scene[1:]).image)(nothing)
    assert image.shape == (0, 1, helpers.HEIGHT, helpers.WIDTH, helpers.CHANNELS)
    assert jax.vmap(jax.grad(loss))(nothing).shape == nothing.shape


def test_vmap_is_one_launch_and_backward_sorts_no_list(helpers):
    """Sorts in the lowered program: as many for a batch as for one; the backward adds only the
    ordering of tiles by length."""
    render = _image("xla", helpers)
    means, features, viewmats, rest = _inputs(helpers)

    def count(function, *arrays):
        return jax.jit(function).lower(*arrays).as_text().count('"stablehlo.sort"')

    one = count(render, means[0], features[0], viewmats[0], rest)
    assert one > 0
    assert count(_nested(render), means, features, viewmats, rest) == one

    def loss(means, features, viewmats, rest):
        return jnp.sum(_nested(render)(means, features, viewmats, rest))

    assert count(jax.grad(loss, argnums=(0, 1, 2)), means, features, viewmats, rest) == one + 1


def test_shared_operands_are_not_copied(helpers):
    render = _image("xla", helpers)
    means, _, viewmats, rest = _inputs(helpers)
    channels = 11  # a size that nothing else in the program has
    features = jnp.ones((helpers.NUM_SPLATS, channels))
    batched = jax.vmap(render, in_axes=(0, None, None, None))
    text = jax.jit(batched).lower(means, features, viewmats[0], rest).as_text()
    assert f"tensor<{helpers.NUM_SPLATS}x{channels}xf32>" in text
    for copied in (
        f"tensor<{_SCENES}x{helpers.NUM_SPLATS}x{channels}xf32>",
        f"tensor<{_SCENES * helpers.NUM_SPLATS}x{channels}xf32>",
    ):
        assert copied not in text, f"shared features became {copied}"


def test_scenes_of_a_loop_are_those_alone(backend, helpers):
    """On a GPU XLA may hand slices of stacked arrays to a kernel: 256 bytes a splat array's row."""
    scenes = [helpers.as_float32(helpers.make_scene(seed, num_splats=64)) for seed in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *scenes)

    def render(scene):
        given = {"image_size": (helpers.HEIGHT, helpers.WIDTH), "implementation": backend}
        output = kernels.rasterize(**scene._asdict(), **given, options=helpers.OPTIONS)
        return output.image, output.stats.num_intersections

    images, counts = jax.jit(lambda scenes: jax.lax.map(render, scenes))(stacked)
    for index, scene in enumerate(scenes):
        image, count = jax.jit(render)(scene)
        np.testing.assert_allclose(images[index], image, atol=1e-6)
        np.testing.assert_array_equal(counts[index], count)


def test_new_values_do_not_recompile(backend, helpers):
    from kernels import timing

    helpers.render(backend, helpers.make_scene(0))
    with timing.CompileCounter() as compiled:
        helpers.render(backend, helpers.make_scene(1))
    assert compiled.count == 0
    with timing.CompileCounter() as compiled:
        jax.jit(lambda x: x * 3.25 + 1.5)(jnp.ones(3))
    assert compiled.count > 0, "the counter must see compilations"


def _spread_scenes(helpers):
    """Four scenes over a mesh of four devices: (mesh, arrays with a leading batch axis)."""
    devices = jax.devices("cpu")
    if len(devices) < 4:
        pytest.skip("needs 4 virtual CPU devices")
    mesh = jax.make_mesh(
        (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices[:4]
    )
    scenes = [helpers.make_scene(seed) for seed in range(4)]
    arrays = helpers.as_float32([np.stack(array) for array in zip(*scenes, strict=True)])
    return mesh, jax.device_put(arrays, jax.NamedSharding(mesh, PartitionSpec("data")))


def test_sharded_batch_needs_no_collective(helpers):
    mesh, arrays = _spread_scenes(helpers)

    def both(arrays, weights):
        def render(*arrays):
            out = kernels.rasterize_sharded(
                *arrays[:7],
                background=arrays[7],
                mesh=mesh,
                image_size=(helpers.HEIGHT, helpers.WIDTH),
                options=helpers.OPTIONS,
                implementation="xla",
            )
            return out.image, out.alpha, out.depth

        outputs, pull_back = jax.vjp(render, *arrays)
        return outputs[0], pull_back(weights)

    weights = helpers.as_float32([np.stack([w] * 4) for w in helpers.cotangents()])
    sharding = jax.NamedSharding(mesh, PartitionSpec("data"))
    weights = tuple(jax.device_put(weights, sharding))
    compiled = jax.jit(both).lower(arrays, weights).compile()
    text = compiled.as_text()
    assert text.count("while") >= 2, "the program must hold both blending loops"
    for collective in _COLLECTIVES:
        assert collective not in text, f"{collective} in renders of independent scenes"
    images, grads = compiled(arrays, weights)
    assert 0.1 < float(np.mean(images)) < 0.9
    for index in range(4):
        scene = helpers.make_scene(index)
        np.testing.assert_allclose(images[index], helpers.render("xla", scene).image, atol=1e-6)
        for actual, wanted in zip(grads, helpers.gradients("xla", scene), strict=True):
            assert helpers.relative_error(actual[index], wanted) < 1e-5


@pytest.mark.parametrize("backend", ["xla", "reference"])
def test_cameras_of_one_scene_may_be_spread_over_devices(backend, helpers):
    """In a shard_map of the caller's, with its check of what varies; gradients are summed."""
    scene = helpers.as_float32(helpers.make_scene())
    cameras = [np.repeat(np.asarray(a), 4, 0) for a in (scene.viewmats, scene.intrinsics)]
    cameras[0][:, 0, 3] += [0.0, 0.1, 0.2, 0.3]
    arrays = (*scene[:5], *cameras)
    settings = dict(image_size=(helpers.HEIGHT, helpers.WIDTH), implementation=backend)

    def image(*arrays):
        return kernels.rasterize(*arrays, **settings).image

    def loss(*arrays):
        return jnp.sum(image(*arrays) ** 2)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = PartitionSpec("data")
    specs = (*[PartitionSpec()] * 5, spread, spread)
    everything = tuple(range(7))
    images = jax.jit(jax.shard_map(image, mesh=mesh, in_specs=specs, out_specs=spread))(*arrays)
    np.testing.assert_allclose(images, jax.jit(image)(*arrays), atol=1e-6)
    gradient = jax.grad(loss, everything)
    within = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=specs))(*arrays)
    for actual, wanted in zip(within, jax.jit(gradient)(*arrays), strict=True):
        assert helpers.relative_error(actual, wanted) < 1e-5


def test_batches_that_devices_cannot_share_are_refused(helpers):
    mesh, arrays = _spread_scenes(helpers)
    with pytest.raises(ValueError, match="axis: expected one of the mesh's axes"):
        kernels.rasterize_sharded(*arrays[:7], mesh=mesh, axis="model", image_size=(8, 8))
    three = [np.asarray(array)[:3] for array in arrays[:7]]
    with pytest.raises(ValueError, match=r"batch size that 4 devices divide, got \{'means': 3"):
        kernels.rasterize_sharded(*three, mesh=mesh, image_size=(8, 8))
    with pytest.raises(ValueError, match=r"expected one leading batch size .*'intrinsics': 3"):
        kernels.rasterize_sharded(*arrays[:6], three[6], mesh=mesh, image_size=(8, 8))


def test_a_sharded_batch_follows_all_arguments(helpers):
    """The axis it is spread over, the options, the backend: only the reference counts nothing."""
    kinds = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("replica", "model"), axis_types=kinds)
    scene = helpers.as_float32(helpers.make_scene(num_splats=3))
    arrays = [jnp.stack([array] * 2) for array in scene[:7]]
    settings = dict(
        image_size=(8, 8),
        options=kernels.RasterizeOptions(capacity=123),
        implementation="reference",
    )

    def spread(*arrays):
        return kernels.rasterize_sharded(*arrays, mesh=mesh, axis="model", **settings)

    out = jax.jit(spread, compiler_options=quick.OPTIONS)(*arrays)
    assert out.image.sharding.is_equivalent_to(
        jax.NamedSharding(mesh, PartitionSpec("model")), out.image.ndim
    )
    assert out.stats.capacity.tolist() == [[123]] * 2
    assert out.stats.num_intersections.tolist() == [[0]] * 2


def test_sharded_batch_on_the_default_mesh_takes_arrays_from_anywhere(helpers):
    """JAX's default axis type asks for arrays that are spread beforehand."""
    scenes = [helpers.make_scene(seed, num_splats=3) for seed in range(4)]
    arrays = [np.stack(array).astype(np.float32) for array in zip(*scenes, strict=True)]
    settings = dict(image_size=(8, 8), implementation="reference")
    expected = jax.vmap(lambda *a: kernels.rasterize(*a, **settings).image)(*arrays[:7])
    mesh = jax.make_mesh((4,), ("data",))

    def spread(*arrays):
        return kernels.rasterize_sharded(*arrays, mesh=mesh, **settings).image

    np.testing.assert_allclose(spread(arrays[0].tolist(), *arrays[1:7]), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(spread)(*arrays[:7]), expected, atol=1e-6)
    gradients = jax.grad(lambda *a: jnp.sum(spread(*a) ** 2), argnums=(0, 6))
    shapes = [shape.shape for shape in jax.eval_shape(gradients, *arrays[:7])]
    assert shapes == [arrays[0].shape, arrays[6].shape], "it has gradients there"


def test_what_is_no_mesh_and_no_array_is_named(helpers):
    mesh, arrays = _spread_scenes(helpers)
    with pytest.raises(TypeError, match=r"mesh: expected a jax\.sharding\.Mesh, got NoneType"):
        kernels.rasterize_sharded(*arrays[:7], mesh=None, image_size=(8, 8))
    with pytest.raises(TypeError, match="means: expected a floating-point array, got NoneType"):
        kernels.rasterize_sharded(None, *arrays[1:7], mesh=mesh, image_size=(8, 8))
