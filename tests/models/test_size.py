"""Sizes, starts, number types and rematerialisation of the networks."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import config, convert, models
from instant_gs.inference import avatar
from instant_gs.models import checkpoint_map, encoder, fan, gaussian_decoder, layer, motion
from tests.models import small


@pytest.fixture(scope="module")
def shapes():
    """Shapes of the released model's parameters."""
    model = models.build(convert.released_config().model)
    return jax.eval_shape(model.init, jax.random.key(0))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameter_counts(shapes):
    backbone = shapes["backbone"]
    assert count(backbone["resnet"]) == 11_173_184
    assert count(backbone["aspp"]) == 4_718_592
    assert count(backbone["low"]) == 19_645_696
    assert count(backbone["high"]) == 811_776
    assert count(backbone["planes"]) == 17_681_728
    assert count(shapes["decoder"]) == 6_838
    assert count(shapes["motion_decoder"]) == 110_016
    assert count({k: v for k, v in shapes.items() if k != "motion_encoder"}) == 54_147_830
    assert count(shapes["motion_encoder"]["params"]) == 61_665_393
    assert count(shapes["motion_encoder"]["batch_stats"]) == 15_112
    assert count(shapes["motion_encoder"]["constants"]) == 512


@pytest.mark.parametrize(("part", "number"), [("E", 126), ("M", 407)])
def test_every_parameter_has_one_key(shapes, part, number):
    entries = checkpoint_map.entries(part)
    paths = [entry.path for entry in entries if entry.path]
    assert len(entries) == number and len(set(paths)) == len(paths)
    expected = shapes["motion_encoder"]
    if part == "E":
        expected = {name: tree for name, tree in shapes.items() if name != "motion_encoder"}
    leaves = jax.tree.leaves_with_path(expected)
    assert {tuple(key.key for key in path) for path, _ in leaves} == set(paths)


def test_the_released_model_takes_and_gives_these_shapes(shapes):
    """Item by item what the README's Python section and the methods' docstrings say."""
    engine = avatar.InstantAvatar(convert.released_config(), shapes, "none")

    def shape(method, *inputs):
        structs = (jax.ShapeDtypeStruct(size, jnp.float32) for size in inputs)
        return jax.tree.map(jnp.shape, jax.eval_shape(method, shapes, *structs))

    assert shape(engine._planes, (2, 512, 512, 3)) == (2, 3, 256, 256, 96)
    assert shape(engine._crop_code, (2, 224, 224, 3)) == (2, 512)
    assert shape(engine._motion_code, (2, 512, 512, 3)) == (2, 512)
    motion = shape(engine._motion, (2, 512), (2, 512))
    assert motion.scale == motion.shift == (2, 48), "96 numbers a frame"
    assert shape(engine._encode, (512, 512, 3)).motion_basis == (262_144, 48)


@pytest.mark.parametrize(("instantiation", "number"), [("plane", 262_144), ("ray", 196_608)])
def test_static_number_of_gaussians(shapes, instantiation, number):
    released = convert.released_config(legacy=instantiation == "ray").model
    assert released.gaussians.instantiation == instantiation
    assert released.raster_mode == ("antialiased" if instantiation == "ray" else "classic")
    image = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    avatar = jax.eval_shape(models.build(released).encode, shapes, image)
    assert avatar.features.shape == avatar.motion_basis.shape == (2, number, 48)
    assert avatar.keep.shape == (2, number)


@pytest.mark.parametrize("conv_init", ["torch", "he"])
def test_convolutions_start_as_configured(conv_init):
    image = jnp.zeros((1, 4, 4, 16))
    conv = layer.Conv(32, conv_init=conv_init).init(jax.random.key(0), image)["params"]
    fan_in = 9 * 16
    if conv_init == "torch":
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < jnp.abs(conv["kernel"]).max() <= bound
        assert 0.5 * bound < jnp.abs(conv["bias"]).max() <= bound
    else:
        assert 0.9 < conv["kernel"].std() / math.sqrt(2 / fan_in) < 1.1
        assert not conv["bias"].any()


def test_stem_starts_as_released():
    """Three channels' start, copied cyclically to five and scaled by 3/5."""
    stem = encoder._stem_init(jax.random.key(0), (7, 7, 5, 64))
    bound = 0.6 / math.sqrt(3 * 49)
    assert jnp.array_equal(stem[:, :, 3:], stem[:, :, :2])
    assert 0.9 * bound < jnp.abs(stem).max() <= bound


def test_transformers_start_as_released():
    block = encoder.TransformerBlock(heads=2, reduction=2, mlp_ratio=2, dtype="float32")
    block = block.init(jax.random.key(0), jnp.zeros((1, 2, 2, 128)))["params"]
    embed = encoder.PatchEmbed(128, "float32")
    embed = embed.init(jax.random.key(0), jnp.zeros((1, 4, 4, 16)))["params"]
    assert jnp.all(block["norm1"]["scale"] == 2) and jnp.all(embed["norm"]["scale"] == 1)
    assert 0.95 < block["mlp"]["fc1"]["kernel"].std() / 0.04 < 1.05
    assert 0.95 < embed["proj"]["kernel"].std() / math.sqrt(2 / (9 * 128)) < 1.05
    assert 0.95 < block["attn"]["sr"]["kernel"].std() / (2 * math.sqrt(2 / (4 * 128))) < 1.05
    assert 0.9 < block["mlp"]["dwconv"]["kernel"].std() / (2 * math.sqrt(2 / 9)) < 1.1
    assert not block["mlp"]["fc1"]["bias"].any() and not embed["proj"]["bias"].any()


def test_planes_start_as_the_photo_beside_a_smooth_head_that_has_no_colour():
    module = encoder.Shortcut(features=48, dtype="float32")
    photo = jax.random.normal(jax.random.key(0), (1, 32, 32, 5))
    params = jax.jit(module.init)(jax.random.key(1), photo)
    out = module.apply(params, photo)
    colors = photo.reshape(1, 16, 2, 16, 2, 5).mean((2, 4))[..., :3]
    assert out.shape == (1, 16, 16, 48) and jnp.allclose(out[..., :3], colors, atol=1e-5)
    head = module.apply(params, 0 * photo)[0]
    assert not head[..., :3].any() and 0.4 < head[..., 3:].std() < 0.8
    side_by_side = jnp.corrcoef(head[:, :-1, 3:].ravel(), head[:, 1:, 3:].ravel())[0, 1]
    assert side_by_side > 0.4 and jnp.abs(head[:8, :8].mean() - head[8:, 8:].mean()) > 0.01


def test_decoders_start_as_released():
    """Equalised layers from N(0, 1), AdaLN's from a truncated normal of 0.02 / gain, biases 0."""
    released = convert.released_config().model
    features, code = jnp.zeros((1, 2, 48)), jnp.zeros((1, 512))
    key = jax.random.key(0)
    decoder = gaussian_decoder.GaussianDecoder(released.gaussians).init(key, features)["params"]
    module = motion.MotionDecoder(released.motion, released.gaussians)
    mover = module.init(key, features, code, code)["params"]
    for layers in (decoder, mover):
        assert 0.95 < layers["fc1"]["kernel"].std() < 1.05
        assert 0.95 < layers["fc2"]["kernel"].std() < 1.05
        assert not layers["fc1"]["bias"].any() and not layers["fc2"]["bias"].any()
    adaln = mover["adaln"]
    assert 0.98 < adaln["mapping"]["kernel"].std() / 0.04 < 1.02 and "bias" not in adaln["mapping"]
    assert 0.95 < adaln["proj"]["kernel"].std() / 0.04 < 1.05 and not adaln["proj"]["bias"].any()


def test_a_motion_decoder_from_scratch_starts_still_and_listens_to_its_codes():
    keys = jax.random.split(jax.random.key(0), 4)
    basis = jax.random.normal(keys[0], (1, 20, config.GaussianConfig().feature_width))
    own, driving, other = (jax.random.normal(key, (1, 512)) for key in keys[1:])

    def residuals(position):
        settings = config.GaussianConfig(position=position)
        module = motion.MotionDecoder(config.MotionConfig(), settings)
        params = jax.jit(module.init)(keys[0], basis, own, driving)
        apply = jax.jit(module.apply)
        return apply(params, basis, own, driving), apply(params, basis, own, other)

    released, fresh = residuals("absolute")[0], residuals("anchored")
    assert fresh[0].std() < 0.2 * released.std()
    assert (fresh[0] - fresh[1]).std() > 0.3 * fresh[0].std()


def test_depthwise_convolution_is_one():
    module = layer.DepthwiseConv3()
    image = jax.random.normal(jax.random.key(0), (2, 5, 7, 6))
    params = module.init(jax.random.key(1), image)
    kernel = params["params"]["kernel"] * layer.TRANSFORMER_GAIN
    want = jax.lax.conv_general_dilated(
        image,
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    assert small.relative(module.apply(params, image), want) < 1e-6


@pytest.fixture(scope="module")
def plain():
    """A small model's parameters, image, planes and gradients, float32, nothing rematerialised."""
    model = small.build()
    params, image = small.params(model), small.image()
    return params, image, *gradients(model)(params, image)


def gradients(model):
    """Planes, and gradients of their mean square in the last module: all compile too long."""

    def run(params, image):
        def loss(last):
            planes = model.planes({"backbone": params["backbone"] | {"planes": last}}, image)
            return (planes**2).mean(), planes

        grads, planes = jax.grad(loss, has_aux=True)(params["backbone"]["planes"])
        return planes, grads

    return jax.jit(run)


def test_remat_changes_nothing(plain):
    params, image, planes_want, grads_want = plain
    model = small.build(encoder=dataclasses.replace(small.ENCODER, remat=True))
    stored = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.structure(stored) == jax.tree.structure(params), "a checkpoint must fit both"
    text = str(jax.make_jaxpr(model.planes)(params, image))
    remats = max(text.count("remat2["), text.count("checkpoint["), text.count("remat["))
    assert remats >= 5, "every part of the backbone is rematerialised"
    planes, grads = gradients(model)(params, image)
    assert small.relative(planes, planes_want) < 1e-5
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_want), strict=True):
        assert jnp.abs(want).max() > 0 and small.relative(got, want) < 1e-3


def test_bfloat16_computes_close_to_float32(plain):
    params, image, planes_want, _ = plain
    model = small.build(dtype="bfloat16")
    stored = jax.eval_shape(model.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(stored))
    planes = jax.jit(model.planes)(params, image)
    assert planes.dtype == jnp.float32
    assert 1e-5 < small.relative(planes, planes_want) < 0.05, "0: nothing ran in bfloat16"


def test_fan_in_bfloat16_stays_frozen():
    """Shapes only: a CPU is slow in bfloat16, and the network has no smaller size."""
    model = fan.FanMotionEncoder("bfloat16")
    crop = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), crop)
    code = jax.eval_shape(model.apply, variables, crop)
    assert code.shape == (1, 512) and code.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    forward = str(jax.make_jaxpr(model.apply)(variables, crop))
    assert "bf16[1,112,112,64]" in forward
    backward = str(jax.make_jaxpr(jax.grad(lambda v, x: model.apply(v, x).sum()))(variables, crop))
    convolutions = forward.count("conv_general_dilated[")
    assert backward.count("conv_general_dilated[") == convolutions == 60, "a gradient passes"


def test_position_code():
    code = fan.position_code().reshape(28, 28, 1024)
    row, column = 3, 20
    frequency = 10000.0 ** (-np.arange(256) / 256)
    assert np.allclose(code[row, column, :256], np.sin(column * frequency), atol=1e-6)
    assert np.allclose(code[row, column, 512:768], np.sin(row * frequency), atol=1e-6)
    assert np.allclose(code[row, column, 768:], np.cos(row * frequency), atol=1e-6)


def test_coordinates_are_pixel_centres():
    out = encoder.with_coordinates(jnp.zeros((1, 512, 256, 3)))
    assert jnp.allclose(out[0, 0, 0, 3:], jnp.array([-1 + 1 / 256, -1 + 1 / 512]))
    assert jnp.allclose(out[0, -1, -1, 3:], jnp.array([1 - 1 / 256, 1 - 1 / 512]))
    assert out[0, 0, 5, 3] > out[0, 0, 4, 3] and out[0, 5, 0, 4] > out[0, 4, 0, 4]


def test_fan_configuration_is_checked():
    wrong = config.Config()
    wrong.model.motion.encoder = "fan"
    wrong.motion_pretrain.steps = 10
    with pytest.raises(ValueError, match=r"image_size.*224(.|\n)*motion_pretrain\.steps"):
        wrong.validate()
    model = models.build(convert.released_config().model)
    with pytest.raises(ValueError, match="motion_encoder=FILE"):
        model.motion_code({"backbone": {}}, jnp.zeros((1, 224, 224, 3)))
    with pytest.raises(ValueError, match="coefficients"):
        model.motion_code_and_coefficients({}, jnp.zeros((1, 224, 224, 3)))
