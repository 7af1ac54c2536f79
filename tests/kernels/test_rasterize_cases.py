"""What every backend must survive, against the dense reference."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from tests.kernels import triton_scene


def _zero_visible(scene, rng):
    return scene._replace(means=scene.means - np.array([[0.0, 0.0, 10.0]]))


def _all_transparent(scene, rng):
    return scene._replace(opacities=np.zeros_like(scene.opacities))


def _larger_than_screen(scene, rng):
    scales = scene.scales.copy()
    scales[0] = 40.0
    return scene._replace(scales=scales)


def _ties_in_depth(scene, rng):
    means = scene.means.copy()
    means[:, 2] = np.where(np.arange(len(means)) % 2, 0.25, 0.0)
    return scene._replace(means=means)


def _opaque(scene, rng):
    return scene._replace(opacities=np.ones_like(scene.opacities))


def _around_the_threshold(scene, rng):
    factors = rng.choice([0.5, 0.99, 1.01, 1.5], size=scene.opacities.shape)
    return scene._replace(opacities=factors / 255.0)


def _near_plane_straddle(scene, rng):
    means = scene.means.copy()
    means[::2, 2] = -3.0 + rng.uniform(-0.3, 0.5, size=len(means[::2]))
    return scene._replace(means=means)


def _zero_quaternion(scene, rng):
    quats = scene.quats.copy()
    quats[::3] = 0.0
    return scene._replace(quats=quats)


def _needles(scene, rng):
    scales = scene.scales * np.array([[4.0, 0.02, 0.02]])
    return scene._replace(scales=scales)


def _needles_from_outside(scene, rng):
    """Four pixels outside at each side, as thin along it as the filter makes them."""
    means, quats, scales = scene.means.copy(), scene.quats.copy(), scene.scales.copy()
    means[:4] = [[-1.8, 0, 0], [1.8, 0, 0], [0, -1.425, 0], [0, 1.575, 0]]
    quats[:4] = [1, 0, 0, 0]
    scales[:4] = [[0.3, 0.01, 0.01]] * 2 + [[0.01, 0.3, 0.01]] * 2
    opacities = np.where(np.arange(len(means)) < 4, 0.9, 0.0)
    return scene._replace(means=means, quats=quats, scales=scales, opacities=opacities)


_SCENES = {
    f.__name__.strip("_"): f
    for f in (
        _zero_visible,
        _all_transparent,
        _larger_than_screen,
        _ties_in_depth,
        _opaque,
        _around_the_threshold,
        _near_plane_straddle,
        _zero_quaternion,
        _needles,
        _needles_from_outside,
    )
}


@pytest.mark.parametrize("name", _SCENES)
def test_image_and_gradients_equal_reference(name, backend, helpers):
    scene = _SCENES[name](helpers.make_scene(), np.random.default_rng(5))
    actual, expected = (helpers.render(b, scene) for b in (backend, "reference"))
    empty = name in ("zero_visible", "all_transparent")
    assert expected.alpha.max() == 0 if empty else 1e-4 < expected.alpha.mean() < 0.999
    assert actual.stats.overflow.max() == 0
    helpers.assert_same_image(actual, expected)
    grads, expected_grads = (helpers.gradients(b, scene) for b in (backend, "reference"))
    for argument in helpers.ARGUMENTS:
        a, b = getattr(grads, argument), getattr(expected_grads, argument)
        assert np.isfinite(a).all(), f"gradient of {argument} is not finite"
        if np.abs(b).max() == 0:
            assert np.abs(a).max() == 0, f"gradient of {argument} must be exactly 0"
        else:
            assert helpers.relative_error(a, b) < 1e-3, f"gradient of {argument}"


@pytest.mark.parametrize("argument", ["means", "quats", "scales", "opacities", "features"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_splat_that_is_not_finite_contributes_nothing(argument, value, backend, helpers):
    scene = helpers.make_scene()
    array = getattr(scene, argument).copy()
    array[3] = value
    broken = scene._replace(**{argument: array})
    opacities = scene.opacities.copy()
    opacities[3] = 0.0
    without = scene._replace(opacities=opacities)
    helpers.assert_same_image(helpers.render(backend, broken), helpers.render(backend, without))
    grads = helpers.gradients(backend, broken)
    expected = helpers.gradients(backend, without)
    for name in helpers.ARGUMENTS:
        a, b = getattr(grads, name), getattr(expected, name)
        assert np.isfinite(a).all(), f"gradient of {name}"
        assert helpers.relative_error(a, b) < 1e-5, f"gradient of {name}"
    assert np.abs(getattr(grads, argument)[3]).max() == 0


def test_a_splat_with_features_that_are_not_finite_spoils_no_empty_picture(backend, helpers):
    """The first camera sees nothing; its empty list is read with the broken splat."""
    scene = helpers.make_scene(cameras=2)
    scene.viewmats[0, 2, 3] = -9.0
    absent = scene._replace(opacities=np.where(np.arange(len(scene.means)), scene.opacities, 0.0))
    features = scene.features.copy()
    features[0] = np.nan
    broken = scene._replace(features=features)
    helpers.assert_same_image(
        helpers.render(backend, broken), helpers.render(backend, absent), limit=1e-6
    )
    grads, expected = (helpers.gradients(backend, one) for one in (broken, absent))
    for name in helpers.ARGUMENTS:
        a, b = getattr(grads, name), getattr(expected, name)
        assert np.isfinite(a).all(), f"gradient of {name}"
        assert helpers.relative_error(a, b) < 1e-6, f"gradient of {name}"


def test_zero_splats(backend, helpers):
    scene = helpers.make_scene(num_splats=0)
    output = helpers.render(backend, scene)
    assert output.alpha.max() == 0
    background = np.broadcast_to(scene.background[:, None, None], output.image.shape)
    np.testing.assert_allclose(output.image, background, rtol=1e-6)
    grads = helpers.gradients(backend, scene)
    assert grads.means.shape == (0, 3)
    assert np.abs(grads.background).max() > 0


def test_capacity_full_and_overflow(backend, helpers):
    scene = helpers.make_scene(seed=2)
    exact = helpers.render(backend, scene)
    needed = int(exact.stats.num_intersections[0])
    assert needed > 40

    def with_capacity(capacity):
        return dataclasses.replace(helpers.OPTIONS, capacity=capacity)

    full = helpers.render(backend, scene, with_capacity(needed))
    assert full.stats.overflow[0] == 0
    assert full.stats.capacity[0] == needed
    np.testing.assert_array_equal(full.image, exact.image)

    over = helpers.render(backend, scene, with_capacity(needed - 1))
    assert over.stats.overflow[0] == 1, "one intersection too many must be counted as one"
    assert over.stats.num_intersections[0] == needed

    few = helpers.render(backend, scene, with_capacity(7))
    assert few.stats.num_intersections[0] == needed
    assert few.stats.overflow[0] == needed - 7
    assert np.isfinite(few.image).all()


def test_overflow_drops_the_farthest(backend, helpers):
    scene = helpers.make_scene(seed=3)
    nearest_first = np.argsort(scene.means[:, 2])
    opacities = scene.opacities.copy()
    opacities[nearest_first[15:]] = 0.0
    near = helpers.render(backend, scene._replace(opacities=opacities))
    count = int(near.stats.num_intersections[0])
    options = dataclasses.replace(helpers.OPTIONS, capacity=count)
    kept = helpers.render(backend, scene, options)
    assert kept.stats.overflow[0] > 0
    np.testing.assert_array_equal(kept.image, near.image)


def test_overflow_raises_outside_jit(backend, helpers):
    arrays = helpers.as_float32(helpers.make_scene(seed=2))
    options = kernels.RasterizeOptions(capacity=7)

    def render(options):
        return helpers.render_function(backend, options).__wrapped__(*arrays)

    with pytest.raises(OverflowError, match=r"options\.capacity: \d+ tile intersections needed"):
        render(options)
    counted = render(dataclasses.replace(options, on_overflow="count"))
    assert int(counted.stats.overflow[0]) > 0


@pytest.mark.parametrize("tile_size", [(16, 16), (4, 8)])
def test_same_image_for_every_tile_size(tile_size, backend, helpers):
    scene = helpers.make_scene(seed=4)
    options = dataclasses.replace(helpers.OPTIONS, tile_size=tile_size, capacity=2048)
    try:
        actual = helpers.render(backend, scene, options)
    except NotImplementedError as refusal:
        pytest.skip(f"{backend} has no such tile: {refusal}")
    helpers.assert_same_image(actual, helpers.render(backend, scene), limit=1e-5)


@pytest.mark.parametrize("argument", range(8))
def test_gradient_equals_finite_difference(argument, backend, helpers):
    """Along a random direction of one argument; the difference is the reference's in float64."""
    scene = helpers.make_scene(seed=6)
    weights = helpers.cotangents()
    direction = np.random.default_rng(argument).normal(size=scene[argument].shape)
    if helpers.ARGUMENTS[argument] in ("viewmats", "intrinsics"):
        direction[:, -1] = 0.0  # the last rows are constant
    direction *= 1e-2 * np.linalg.norm(scene[argument]) / np.linalg.norm(direction)
    step = 1e-4
    losses = []
    with jax.enable_x64(True):
        for sign in (1, -1):
            moved = list(scene)
            moved[argument] = scene[argument] + sign * step * direction
            moved = type(scene)(*(jnp.asarray(a, jnp.float64) for a in moved))
            output = helpers.render_function("reference")(*moved)
            outputs = (output.image, output.alpha, output.depth)
            losses.append(sum(float(np.sum(a * b)) for a, b in zip(outputs, weights, strict=True)))
    difference = (losses[0] - losses[1]) / (2 * step)
    gradient = getattr(helpers.gradients(backend, scene), helpers.ARGUMENTS[argument])
    slope = float(np.sum(gradient.astype(np.float64) * direction))
    assert abs(slope) > 1e-4, "the direction must matter"
    np.testing.assert_allclose(slope, difference, rtol=2e-3, atol=1e-5)


def test_deterministic_gradients_are_bit_identical(backend, helpers):
    options = dataclasses.replace(helpers.OPTIONS, deterministic=True)
    scene = helpers.make_scene(seed=7)
    first, second = (helpers.gradients(backend, scene, options) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
    expected = helpers.gradients("reference", scene)
    for a, b in zip(first, expected, strict=True):
        assert helpers.relative_error(a, b) < 1e-4


def test_antialiased_with_expected_depth_equals_reference(backend, helpers):
    options = kernels.RasterizeOptions.preset(
        "inria", mode="antialiased", expected_depth=True, capacity=1024, radius_clip=2.0
    )
    scene = helpers.make_scene(seed=8)
    actual, expected = (helpers.render(b, scene, options) for b in (backend, "reference"))
    assert 0.1 < expected.alpha.mean() < 0.99
    helpers.assert_same_image(actual, expected)


def test_many_channels_equal_reference(backend, helpers):
    """More channels than are summed one by one, and half precision in."""
    scene = helpers.make_scene(seed=9)
    features = np.random.default_rng(0).random((helpers.NUM_SPLATS, 19))
    arrays = helpers.as_float32(scene._replace(features=features))

    def render(implementation):
        return jax.jit(
            lambda *a: (
                kernels.rasterize(
                    *a,
                    image_size=(helpers.HEIGHT, helpers.WIDTH),
                    options=helpers.OPTIONS,
                    implementation=implementation,
                ).image
            )
        )(*arrays[:4], arrays[4].astype(jnp.bfloat16), *arrays[5:7])

    actual, expected = render(backend), render("reference")
    assert actual.dtype == jnp.float32
    assert actual.shape == (1, helpers.HEIGHT, helpers.WIDTH, 19)
    assert helpers.relative_error(actual, expected) < 1e-5


@pytest.mark.slow
def test_gradients_of_many_blocks_and_channels_equal_reference():
    """Nine tiles, two a block, of two cameras; more channels than are summed one by one."""
    size = (130, 150)
    options = kernels.RasterizeOptions(capacity=1024, tile_size=(64, 64), on_overflow="count")
    scene = triton_scene.make_scene(3, cameras=2, channels=10, size=size)
    ends = [
        triton_scene.value_and_grad(backend, size, options)(scene)
        for backend in ("xla", "reference")
    ]
    (actual, grads), (expected, expected_grads) = jax.tree.map(np.asarray, ends)
    triton_scene.assert_same(actual.image, expected.image, "image")
    for name in triton_scene.NAMES:
        triton_scene.assert_same(grads[name], expected_grads[name], f"gradient of {name}")


@pytest.mark.slow
def test_float64_stays_float64():
    scene = {
        name: np.asarray(array, np.float64) for name, array in triton_scene.make_scene(5).items()
    }
    options = kernels.RasterizeOptions(mode="antialiased", capacity=1024, on_overflow="count")
    with jax.enable_x64(True):
        (out, grads), (expected, expected_grads) = (
            triton_scene.value_and_grad(backend, triton_scene.SIZE, options)(scene)
            for backend in ("xla", "reference")
        )
    for name in ("image", "alpha", "depth"):
        assert getattr(out, name).dtype == np.float64, name
        triton_scene.assert_same(getattr(out, name), getattr(expected, name), name, 1e-10)
    for name in triton_scene.NAMES:
        assert grads[name].dtype == np.float64, name
        triton_scene.assert_same(grads[name], expected_grads[name], f"gradient of {name}", 1e-10)
