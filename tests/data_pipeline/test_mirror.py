"""Samples seen in a mirror."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import types
from instant_gs.data import format as data_format
from instant_gs.data import mirror, pipeline
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import unwrap


def _view():
    rng = np.random.default_rng(0)
    intrinsics = np.asarray(camera_lib.intrinsics(), np.float32).copy()
    intrinsics[0, 1:] += 0.2, 0.1  # a camera with skew that looks aside
    return types.View(
        image=rng.integers(0, 255, (8, 8, 3), np.uint8),
        alpha=rng.integers(0, 255, (8, 8), np.uint8),
        regions=rng.integers(0, 7, (8, 8), np.uint8),
        cam2world=np.asarray(camera_lib.look_at(0.5, 0.2, roll_rad=0.1), np.float32),
        intrinsics=intrinsics,
        coefficients=rng.random(52).astype(np.float32),
    )


def test_the_mirrored_camera_sees_mirrored_points_at_mirrored_pixels():
    view = _view()
    other = mirror.mirrored(view)
    points = np.random.default_rng(1).uniform(-0.2, 0.2, (20, 3)).astype(np.float32)

    def seen(view, points):
        camera = types.Camera(jnp.asarray(view.cam2world), jnp.asarray(view.intrinsics))
        return [np.asarray(a) for a in unwrap.project(jnp.asarray(points), camera)]

    x, y = seen(view, points)
    x_mirrored, y_mirrored = seen(other, points * np.array([-1, 1, 1], np.float32))
    np.testing.assert_allclose(x_mirrored, -x, atol=1e-5)
    np.testing.assert_allclose(y_mirrored, y, atol=1e-5)
    assert np.linalg.det(other.cam2world[:3, :3]) == pytest.approx(1, abs=1e-5)
    for name in ("image", "alpha", "regions"):
        np.testing.assert_array_equal(getattr(other, name)[:, 0], getattr(view, name)[:, -1])


def test_left_and_right_coefficients_change_places():
    view = _view()
    value = dict(zip(data_format.COEFFICIENT_NAMES, view.coefficients, strict=True))
    coefficients = mirror.mirrored(view).coefficients
    found = dict(zip(data_format.COEFFICIENT_NAMES, coefficients, strict=True))
    for left, right in [
        ("eyeBlinkLeft", "eyeBlinkRight"),
        ("eyeLookInLeft", "eyeLookInRight"),  # towards the nose stays towards the nose
        ("jawLeft", "jawRight"),
        ("mouthUpperUpLeft", "mouthUpperUpRight"),
    ]:
        assert found[left] == value[right] and found[right] == value[left]
    assert found["jawOpen"] == value["jawOpen"] and found["tongueOut"] == value["tongueOut"]


def test_two_mirrors_are_none():
    view = _view()
    twice = mirror.mirrored(mirror.mirrored(view))
    for name, array in vars(view).items():
        np.testing.assert_allclose(getattr(twice, name), array, atol=1e-6)
        assert getattr(twice, name).dtype == array.dtype


def test_the_pipeline_mirrors_whole_samples_as_often_as_asked(packed_pack):
    def batches(share, count=1):
        loader = pipeline.make_loader(
            packed_pack, "train", batch_size=16, driven_per_sample=2, mirror=share, seed=4
        )
        return [next(loader) for _ in range(count)]

    plain, always = batches(0.0)[0], batches(1.0)[0]
    for name, view in vars(plain).items():
        jax.tree.map(np.testing.assert_array_equal, mirror.mirrored(view), getattr(always, name))
    flags = []
    for some, plain in zip(batches(0.25, 12), batches(0.0, 12), strict=True):
        unchanged = (some.source.image == plain.source.image).all((1, 2, 3))
        np.testing.assert_array_equal(
            unchanged, (some.driver.image == plain.driver.image).all((1, 2, 3, 4))
        )
        flags.append(~unchanged)
    assert 0.12 < np.mean(flags) < 0.38  # 192 samples: 0.25 ± 4 deviations
    with pytest.raises(ValueError, match=r"mirror: expected 0 to 1, got 1\.5"):
        batches(1.5)
