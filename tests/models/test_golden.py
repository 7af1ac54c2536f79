"""The model, at full size, against numbers of the authors' implementation.

Weights are the synthetic checkpoint's, through the converter; one encoding serves every test.
"""

import functools
import math
import pathlib
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import convert
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import avatar_model, encoder, gaussian_decoder
from tests.models import synthetic_checkpoint

SEED = 0
TOLERANCE = 1e-4  # relative L2, float32 on a CPU
GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / f"model_seed{SEED}.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def released():
    """The converted model: its configuration and parameters."""
    loaded = convert.from_state_dicts(
        synthetic_checkpoint.state_dict("E", SEED), synthetic_checkpoint.state_dict("M", SEED)
    )
    return loaded.config.model, loaded.params


@pytest.fixture(scope="module")
def encoded(released):
    """Planes (1, 3, 256, 256, 96) and the three inner activations of the photo encoder."""
    config, params = released
    image = synthetic_checkpoint.image(SEED, config.image_size).transpose(1, 2, 0)[None]
    backbone = encoder.Backbone(config.encoder, config.gaussians.feature_width)
    kept = ("aspp", "low", "high")

    @jax.jit
    def run(params, image):
        return backbone.apply(
            {"params": params},
            image,
            capture_intermediates=lambda module, _: module.name in kept,
            mutable=["intermediates"],
        )

    planes, state = run(params["backbone"], image)
    inner = {name: value["__call__"][0][0] for name, value in state["intermediates"].items()}
    return planes, inner


@pytest.fixture(scope="module")
def animated(released, encoded, golden):
    """Everything behind the planes, at the 260 sampled Gaussians."""

    class Encoded(avatar_model.AvatarModel):
        def planes(self, params, image, photo_camera=None):
            return encoded[0]

    config, params = released
    model, index = Encoded(config), golden["index"]
    avatar = jax.jit(model.encode)(params, jnp.zeros(()))
    kept = int(avatar.keep.sum())
    avatar = jax.tree.map(lambda leaf: leaf[:, index], avatar)
    codes = golden["code_source"][None], golden["code_driving"][None]
    gaussians, residual = model.animate(params, avatar, *codes)
    motion = model.motion(params, *codes)
    return python_types.SimpleNamespace(
        avatar=avatar,
        kept=kept,
        rest=model.rest(params, avatar),
        gaussians=gaussians,
        residual=residual,
        folded=model.animate_folded(params, model.fold(avatar), motion),
        decode=functools.partial(model._decode, params),
    )


def check(got, want):
    got = np.asarray(got, np.float64).reshape(want.shape)
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert np.linalg.norm(want) > 0, "the reference is all zeros and proves nothing"
    assert error < TOLERANCE, f"relative L2 {error:.2e}"


def test_planes(encoded, golden):
    planes = np.moveaxis(np.asarray(encoded[0][0], np.float64), -1, 1)
    check(planes[:, :, 5::16, 7::16], golden["planes"])
    check(planes.mean((2, 3)), golden["planes_mean"])
    check(planes.std((2, 3)), golden["planes_std"])


@pytest.mark.parametrize(("name", "module"), [("deep", "aspp"), ("low", "low"), ("high", "high")])
def test_activations(encoded, golden, name, module):
    channels_first = np.moveaxis(np.asarray(encoded[1][module]), -1, 0)
    check(channels_first[:, 3::16, 5::16], golden[f"act_{name}"])


def test_features(animated, golden):
    check(animated.avatar.features, golden["feature"])
    check(animated.avatar.motion_basis, golden["motion_basis"])
    assert animated.kept == int(golden["kept"]), "Gaussians that survive the filter"


@pytest.mark.parametrize("stage", ["dec", "anim", "folded"])
def test_gaussians(animated, golden, stage):
    gaussians = {"dec": animated.rest, "anim": animated.gaussians, "folded": animated.folded}[stage]
    prefix = "dec" if stage == "dec" else "anim"
    check(gaussians.means, golden[f"{prefix}_delta"])
    check(gaussians.colors, golden[f"{prefix}_rgb"])
    check(gaussians.scales, golden[f"{prefix}_scaling"])
    check(gaussians.quats, golden[f"{prefix}_rotation"])
    features = animated.avatar.features + (0 if stage == "dec" else animated.residual)
    sigma = golden[f"{prefix}_sigma"]
    check(gaussian_decoder.density(animated.decode(features)), sigma)
    opacity = np.where(np.asarray(animated.avatar.keep)[0], 1 - np.exp(-sigma[:, 0]), 0)
    check(gaussians.opacities, opacity)


def test_residual(animated, golden):
    check(animated.residual, golden["residual"])


def test_motion_codes(released, golden):
    config, params = released
    crops = np.stack([synthetic_checkpoint.image(seed, 224) for seed in (100, 200)])
    model = avatar_model.build(config)
    codes = jax.jit(model.motion_code)(params, crops.transpose(0, 2, 3, 1))
    check(codes[0], golden["code_source"])
    check(codes[1], golden["code_driving"])


def test_cameras(golden):
    pose = camera_lib.orbit_camera(0.0, 0.0)
    frontal = np.concatenate([np.ravel(pose.cam2world), np.ravel(pose.intrinsics)])
    check(frontal, golden["camera_frontal"])
    # The release's vertical parameter v, pi/2 in front, is no angle: cos(elevation) = 1 - 2v/pi.
    vertical = math.pi / 2 - 0.2
    elevation = math.pi / 2 - math.acos(1 - 2 * vertical / math.pi)
    check(camera_lib.look_at(0.3, elevation), golden["camera_yaw0.3_pitch-0.2"])
