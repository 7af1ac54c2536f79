"""Teacher forcing: photos are unwrapped as the teacher's cameras see them, nearly."""

import types as python_types

import jax
import numpy as np
import pytest

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.training import objective

COUNT = 64


class _Encoded(Exception):
    """Carries the camera that the encoder was given."""


class _Model:
    def __init__(self, config):
        self.config = config

    def encode(self, params, photo, *, photo_camera, keys):
        raise _Encoded(photo_camera)


def _camera_given(config, keys):
    poses = np.stack([camera_lib.look_at(yaw, 0.1) for yaw in np.linspace(-1, 1, COUNT)])
    intrinsics = np.broadcast_to(camera_lib.intrinsics(), (COUNT, 3, 3))
    image = np.zeros((COUNT, 4, 4, 3), np.uint8)
    source = types.View(image, None, None, poses.astype(np.float32), intrinsics, None)
    batch = python_types.SimpleNamespace(source=source)
    with pytest.raises(_Encoded) as caught:
        objective.animated_and_rest(_Model(config.model), {}, batch, keys, config)
    return poses, caught.value.args[0]


def test_the_known_camera_is_turned_a_little_around_the_head(config):
    config.motion_pretrain.teacher_forcing = True
    poses, exact = _camera_given(config, None)
    np.testing.assert_allclose(exact.cam2world, poses, atol=1e-6)

    poses, turned = _camera_given(config, jax.random.split(jax.random.key(0), COUNT))
    turned = np.asarray(turned.cam2world)
    turn = turned[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1)
    angle = np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1))
    spread = np.sqrt((angle**2).mean() / 3)  # about each of three axes
    np.testing.assert_allclose(spread, objective.CAMERA_NOISE, rtol=0.25)
    np.testing.assert_allclose(turned[:, :3, 3], -camera_lib.RADIUS * turned[:, :3, 2], atol=1e-5)


def test_without_it_the_camera_is_read_from_the_photo(config):
    config.motion_pretrain.teacher_forcing = False
    assert _camera_given(config, None)[1] is None
