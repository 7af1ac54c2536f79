"""The public boundary: messages, dispatch, presets."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import kernels
from kernels import device, validation
from kernels.rasterize import api


def _call(helpers, **changes):
    scene = helpers.as_float32(helpers.make_scene())._asdict()
    arguments = {"image_size": (8, 8), **scene, **changes}
    return jax.eval_shape(lambda: kernels.rasterize(**arguments))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"means": jnp.ones((40, 2))}, ValueError, r"means: expected shape \(N, 3\).*\(40, 2\)"),
        ({"quats": jnp.ones((40, 3))}, ValueError, r"quats: expected shape \(40, 4\)"),
        ({"opacities": jnp.ones((40, 1))}, ValueError, r"opacities: expected shape \(40,\)"),
        ({"viewmats": jnp.eye(4)}, ValueError, r"viewmats: expected shape \(C, 4, 4\)"),
        (
            {"intrinsics": jnp.ones((2, 3, 3))},
            ValueError,
            r"intrinsics: expected shape \(1, 3, 3\)",
        ),
        (
            {"background": jnp.ones((3,))},
            ValueError,
            r"background: expected shape \(1, 3\) .*\(3,\); .* add an axis of size 1",
        ),
        (
            {"features": jnp.ones((1, 40, 3))},
            ValueError,
            r"features: expected shape \(N, D\) .*\(1, 40, 3\); map over batches with jax\.vmap",
        ),
        ({"scales": jnp.ones((40, 3), jnp.float8_e4m3fn)}, TypeError, "scales: .*float8_e4m3fn"),
        ({"features": jnp.ones((40, 0))}, ValueError, "at least one channel"),
        ({"features": jnp.ones((40, 3), jnp.uint8)}, TypeError, r"features: .*uint8.*astype"),
        ({"image_size": 64}, ValueError, r"image_size: expected \(height, width\)"),
        ({"image_size": (64, 0)}, ValueError, "image_size"),
        ({"implementation": "cuda"}, ValueError, "implementation: expected one of"),
        ({"implementation": np.array(["xla"])}, ValueError, "implementation: expected one of"),
        ({"options": {"mode": "classic"}}, TypeError, r"options: expected kernels\.Rasteriz"),
        ({"options": kernels.RasterizeOptions(mode="soft")}, ValueError, r"options\.mode"),
        ({"options": kernels.RasterizeOptions(near=0.0)}, ValueError, r"options\.near"),
        ({"options": kernels.RasterizeOptions(capacity=0)}, ValueError, r"options\.capacity"),
        (
            {"options": kernels.RasterizeOptions(capacity=2**30 + 1)},
            ValueError,
            r"options\.capacity",
        ),
        ({"options": kernels.RasterizeOptions(max_alpha=1.5)}, ValueError, r"options\.max_alpha"),
        ({"options": kernels.RasterizeOptions(max_alpha=2e-3)}, ValueError, r"options\.max_alpha"),
        ({"means": None}, TypeError, "means: expected a floating-point array, got NoneType"),
        ({"means": "abc"}, TypeError, "means: expected a floating-point array, got str"),
        ({"means": jnp.ones((41, 3))}, ValueError, r"means: .*N = 40 splats.*\(41, 3\)"),
        ({"features": jnp.ones((41, 3))}, ValueError, r"features: .*N = 40 splats.*\(41, 3\)"),
        ({"image_size": (8, True)}, ValueError, "image_size"),
        (
            {"viewmats": jnp.ones((0, 4, 4)), "intrinsics": jnp.ones((0, 3, 3))},
            ValueError,
            "viewmats: expected at least one camera",
        ),
    ],
)
def test_wrong_arguments_are_named(changes, error, message, helpers):
    with pytest.raises(error, match=message):
        _call(helpers, **changes)


@pytest.mark.parametrize(
    ("cameras", "splats", "capacity"), [(2, 40, 2**30), (60_000, 40_000, 8192)]
)
def test_lists_beyond_32_bits_are_refused(cameras, splats, capacity):
    shapes = ((3,), (4,), (3,), (), (3,))
    arrays = [jax.ShapeDtypeStruct((splats, *shape), jnp.float32) for shape in shapes]
    arrays += [jax.ShapeDtypeStruct((cameras, n, n), jnp.float32) for n in (4, 3)]
    options = kernels.RasterizeOptions(capacity=capacity)
    needed = str(cameras * max(splats, capacity))

    def render(implementation):
        return lambda *arrays: kernels.rasterize(
            *arrays, image_size=(8, 8), options=options, implementation=implementation
        )

    with pytest.raises(NotImplementedError, match=f"'xla' has 32-bit .* got {needed}"):
        jax.eval_shape(render("xla"), *arrays)
    with pytest.raises(NotImplementedError, match="'xla' has 32-bit"):
        jax.eval_shape(render(None), *arrays)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eps2d", "0.3"),
        ("eps2d", jnp.float32(0.3)),  # no hash, so nothing static
        ("near", None),
        ("near", jnp.ones(3)),
        ("far", "x"),
        ("radius_clip", [1]),
        ("min_compensation", "a"),
        ("max_alpha", True),
        ("deterministic", "no"),
        ("expected_depth", 1),
    ],
)
def test_an_option_of_the_wrong_type_is_named(name, value, helpers):
    options = kernels.RasterizeOptions(**{name: value})
    with pytest.raises(TypeError, match=rf"options\.{name}: expected .* of type"):
        _call(helpers, options=options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_alpha": 1.0}, "max_alpha"),  # gradients divide by 1 - alpha
        ({"min_compensation": -0.1}, "min_compensation"),
        ({"min_compensation": 1.1}, "min_compensation"),
        ({"eps2d": -0.1}, "eps2d"),
        ({"eps2d": np.inf}, "eps2d"),
        ({"near": np.nan}, "near"),
        ({"near": 2.0, "far": 2.0}, "far"),
        ({"radius_clip": -1.0}, "radius_clip"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 8.0}, "capacity"),
        ({"tile_size": 8}, "tile_size"),
        ({"tile_size": (8,)}, "tile_size"),
        ({"tile_size": (8, 8, 8)}, "tile_size"),
        ({"tile_size": (8, 0)}, "tile_size"),
        ({"on_overflow": "ignore"}, "on_overflow"),
        ({"on_overflow": np.array(["raise", "count"])}, "on_overflow"),
        ({"mode": np.array(["classic", "antialiased"])}, "mode"),
    ],
)
def test_an_option_out_of_range_is_named(options, name, helpers):
    with pytest.raises(ValueError, match=rf"options\.{name}: expected"):
        _call(helpers, options=kernels.RasterizeOptions(**options))


def test_equal_options_are_one_programs():
    given = {"near": np.float32(0.5), "capacity": np.int64(64), "deterministic": np.True_}
    numpys = validation.check_options(kernels.RasterizeOptions(**given, tile_size=[np.int32(4), 8]))
    pythons = kernels.RasterizeOptions(near=0.5, capacity=64, deterministic=True, tile_size=(4, 8))
    assert numpys == pythons and hash(numpys) == hash(pythons)
    assert type(numpys.capacity) is int and type(numpys.tile_size[0]) is int


def test_numpy_numbers_are_numbers(helpers):
    options = kernels.RasterizeOptions(eps2d=np.float32(0.3), near=1, deterministic=np.bool_(True))
    assert _call(helpers, options=options).image.shape[1:3] == (8, 8)


def test_numbers_of_numpy_are_as_good_as_pythons(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    given = {"near": np.float32(0.5), "capacity": np.int64(4096), "deterministic": np.True_}
    for implementation, tile in (("xla", {"tile_size": (np.int32(8), 8)}), ("reference", {})):
        options = kernels.RasterizeOptions(**given, **tile)
        call = {"image_size": (8, 8), "implementation": implementation, "options": options}
        image = kernels.rasterize(**scene._asdict(), **call).image
        assert image.shape == (1, 8, 8, 3), implementation


def test_strict_promotion_and_half_precision_go_together(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    scene = scene._replace(features=scene.features.astype(jnp.bfloat16))

    def loss(means, implementation):
        options = kernels.RasterizeOptions(mode="antialiased", expected_depth=True)
        output = kernels.rasterize(
            **scene._replace(means=means)._asdict(),
            **{"image_size": (8, 8), "options": options, "implementation": implementation},
        )
        return output.image.sum() + output.depth.sum()

    for implementation in ("xla", "reference"):
        expected = jax.grad(loss)(scene.means, implementation)
        with jax.numpy_dtype_promotion("strict"):
            gradient = jax.grad(loss)(scene.means, implementation)
        np.testing.assert_array_equal(gradient, expected, err_msg=implementation)


@pytest.mark.parametrize("implementation", [None, "xla"])
def test_a_second_derivative_says_what_can_do_it(implementation, helpers):
    scene = helpers.as_float32(helpers.make_scene())

    def loss(opacities, implementation):
        given = scene._replace(opacities=opacities)._asdict()
        output = kernels.rasterize(**given, image_size=(8, 8), implementation=implementation)
        return (output.image**2).sum()

    for twice in (jax.hessian(loss), jax.grad(lambda *a: jax.grad(loss)(*a).sum())):
        with pytest.raises(TypeError, match=r"once, in reverse mode.*implementation='reference'"):
            twice(scene.opacities, implementation)
    assert jnp.isfinite(jax.hessian(loss)(scene.opacities, "reference")).all()


def test_an_exported_program_can_be_kept(helpers):
    scene = helpers.as_float32(helpers.make_scene())
    options = kernels.RasterizeOptions(capacity=4096)
    render = jax.jit(lambda *a: kernels.rasterize(*a, image_size=(8, 8), options=options))
    # On a GPU it has custom calls that JAX keeps only if told to.
    calls = export.DisabledSafetyCheck.custom_call("triton_kernel_call_ffi")
    kept = export.export(render, disabled_checks=[calls])(*scene[:7]).serialize()
    output = export.deserialize(kept).call(*scene[:7])
    assert isinstance(output, kernels.RasterizeOutput)
    np.testing.assert_array_equal(output.image, render(*scene[:7]).image)
    np.testing.assert_array_equal(output.stats.overflow, 0)


def test_lists_are_arrays(helpers):
    assert _call(helpers, means=[[0.0, 0.0, 1.0]] * helpers.NUM_SPLATS).image.shape[1:3] == (8, 8)


def test_shapes_of_the_output(helpers):
    scene = helpers.as_float32(helpers.make_scene(cameras=2))
    output = jax.eval_shape(
        lambda *a: kernels.rasterize(*a[:7], image_size=(9, 13), background=a[7]), *scene
    )
    assert output.image.shape == (2, 9, 13, helpers.CHANNELS)
    assert output.alpha.shape == output.depth.shape == (2, 9, 13)
    assert output.stats.overflow.shape == (2,)


def test_presets():
    assert kernels.RasterizeOptions.preset("gsplat-1.5") == kernels.RasterizeOptions()
    inria = kernels.RasterizeOptions.preset("inria", mode="antialiased")
    assert (inria.max_alpha, inria.min_compensation, inria.mode) == (0.99, 0.005, "antialiased")
    assert kernels.RasterizeOptions.preset("gsplat-1.6") == kernels.RasterizeOptions(max_alpha=0.99)
    with pytest.raises(ValueError, match="preset: expected one of"):
        kernels.RasterizeOptions.preset("gsplat")
    with pytest.raises(dataclasses.FrozenInstanceError):
        inria.near = 1.0
    assert hash(inria) == hash(kernels.RasterizeOptions.preset("inria", mode="antialiased"))


def test_a_backend_that_refuses_is_passed_over_but_a_named_one_raises(monkeypatch, helpers):
    def refuse(operands, config):
        raise NotImplementedError("not mine")

    load = api._load
    monkeypatch.setattr(device, "is_nvidia", lambda: True)
    monkeypatch.setattr(api, "_load", lambda name: refuse if name == "triton" else load(name))
    assert _call(helpers).image.shape == (1, 8, 8, helpers.CHANNELS)
    with pytest.raises(NotImplementedError, match="not mine"):
        _call(helpers, implementation="triton")

    monkeypatch.setattr(api, "_load", lambda name: refuse)
    with pytest.raises(ExceptionGroup, match="no rasterizer backend"):
        _call(helpers)


def test_an_error_of_a_backend_is_not_mistaken_for_a_refusal(monkeypatch, helpers):
    def broken(operands, config):
        raise ValueError("a bug")

    monkeypatch.setattr(api, "_load", lambda name: broken)
    with pytest.raises(ValueError, match="a bug"):
        _call(helpers)


def test_determinism_is_refused_where_additions_are_atomic(monkeypatch, helpers):
    options = kernels.RasterizeOptions(deterministic=True)
    monkeypatch.setattr(device, "platform", lambda: "gpu")
    with pytest.raises(NotImplementedError, match=r"options\.deterministic: .* atomics"):
        _call(helpers, implementation="xla", options=options)
