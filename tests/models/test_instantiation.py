"""Where Gaussians come from: by cell or along rays, against a slow and separate computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import types
from instant_gs.geometry import camera as camera_lib
from instant_gs.models import instantiation
from tests.models import ray_oracle, small

RAYS, SAMPLES = 6, 8


@pytest.fixture(scope="module")
def planes():
    """(3, 16, 16, 4): smooth, so that interpolation matters little where it is not tested."""
    return jax.random.normal(jax.random.key(0), (3, 16, 16, 4))


def test_planes_are_sampled_in_the_released_order(planes):
    inside = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
    around = np.random.default_rng(1).uniform(-0.7, 0.7, (40, 3))
    points = np.concatenate([inside, around]).astype(np.float32)
    got = instantiation.sample_planes(planes, jnp.asarray(points))
    assert small.relative(got, ray_oracle.read_planes(planes, points)) < 1e-5
    assert not instantiation.sample_planes(planes, jnp.full((1, 3), 0.9)).any()


def test_plane_mode_averages_and_doubles():
    """One cell a pixel, row-major; bilinear without aligned corners."""
    planes = jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 4))
    got = instantiation.plane_features(planes, 16).reshape(2, 16, 16, 4)
    mean = np.asarray(planes.mean(1))
    # Cell (5, 8) lies at pixel (2.25, 3.75) of the small image.
    want = 0.75 * (0.25 * mean[:, 2, 3] + 0.75 * mean[:, 2, 4])
    want += 0.25 * (0.25 * mean[:, 3, 3] + 0.75 * mean[:, 3, 4])
    assert np.allclose(got[:, 5, 8], want, atol=1e-5)
    assert np.allclose(got[:, 0, 0], mean[:, 0, 0], atol=1e-6), "the border is held"


@pytest.mark.parametrize("lens", [None, [[2.9, 0.3, 0.45], [0, 3.6, 0.55], [0, 0, 1]]])
def test_rays_of_the_reference_camera_and_of_any(lens):
    camera = camera_lib.orbit_camera(0.3, 0.2)
    if lens:
        camera = types.Camera(camera.cam2world, np.array(lens, np.float32))
    origin, direction = instantiation.camera_rays(camera, RAYS)
    place, want = ray_oracle.rays(camera.cam2world, camera.intrinsics, RAYS)
    assert np.allclose(origin, place, atol=1e-6) and np.allclose(direction, want, atol=1e-6)


def test_fine_samples_follow_the_density():
    generator = np.random.default_rng(0)
    depth = np.sort(generator.uniform(2.25, 3.5, (5, SAMPLES)), -1).astype(np.float32)
    sigma = generator.exponential(1.0, (5, SAMPLES)).astype(np.float32)
    uniform = generator.uniform(0, 1, (5, SAMPLES)).astype(np.float32)
    weight = instantiation._weights(jnp.asarray(sigma))
    got = jax.vmap(instantiation._importance_sample)(depth, weight, uniform)
    want = [ray_oracle.fine_depths(*ray) for ray in zip(depth, sigma, uniform, strict=True)]
    assert np.allclose(got, want, atol=1e-4)


@pytest.fixture(scope="module")
def ray_depth(planes):
    """Distances (rays, 2 * samples) of an empty scene, and the points."""
    camera = camera_lib.orbit_camera(0.0, 0.0, fov_degrees=camera_lib.FOV_LEGACY_DEGREES)
    points = instantiation.ray_points(
        planes,
        camera,
        lambda features: features[:, 0] * 0,
        jax.random.key(0),
        rays=RAYS,
        samples=24,
    ).reshape(RAYS * RAYS, 48, 3)
    return jnp.linalg.norm(points - jnp.array([0, 0, 2.7])[None, None], axis=-1), points


def test_depths_are_the_released_ones(ray_depth):
    depth, points = ray_depth
    coarse, fine = depth[:, :24], depth[:, 24:]
    step = 1.25 / 23
    offset = coarse - jnp.linspace(2.25, 3.5, 24)[None]
    assert -1e-5 < offset.min() and offset.max() < step + 1e-5, "up to 3.554, not 3.5"
    assert 0.4 * step < offset.mean() < 0.6 * step and offset.std() > 0.2 * step
    assert fine.min() > 2.25 and fine.max() < 3.5 + step
    assert points.shape == (36, 48, 3)
    assert points[0, 0, 0] < 0 < points[0, 0, 1], "the first ray is the top left one"


def test_ray_mode_is_deterministic_with_static_shapes():
    model = small.build(instantiation="ray")
    params, image = small.params(model), small.image()
    encode = jax.jit(model.encode)
    first, second = encode(params, image), encode(params, image)
    count = 6 * 6 * 2 * 8
    assert first.features.shape == first.motion_basis.shape == (1, count, 48)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, first, second)))
    other = encode(params, image, keys=jax.random.split(jax.random.key(1), 1))
    assert jnp.abs(other.features - first.features).max() > 0.01, "the key decides the samples"
    model_of_cells = small.build(instantiation="plane")
    both = encode(params, jnp.concatenate([image, image]))
    np.testing.assert_allclose(both.features[1], first.features[0], atol=1e-4)
    cells = jax.jit(model_of_cells.encode)(params, image)
    assert cells.features.shape == (1, 32 * 32, 48), "one set of parameters serves both modes"
    gaussians = model.rest(params, first)
    assert jnp.abs(gaussians.means).max() < 1
    raw = model._decode(params, first.features)[..., 11:14]
    assert jnp.array_equal(gaussians.means, jnp.tanh(raw)), "the ray's point is not used"


def test_ray_mode_agrees_with_plain_numpy():
    """From planes to Gaussians, the same random numbers in both."""
    model = small.build(instantiation="ray", cull="source")
    params, image, key = small.params(model), small.image(), jax.random.key(3)
    camera = camera_lib.orbit_camera(0.3, -0.2, fov_degrees=camera_lib.FOV_LEGACY_DEGREES)
    batched = jax.tree.map(lambda leaf: leaf[None], camera)
    avatar = jax.jit(model.encode)(params, image, camera=batched, keys=key[None])
    keys = jax.random.split(key)  # coarse, fine
    jitter, uniform = (np.asarray(jax.random.uniform(k, (RAYS * RAYS, SAMPLES))) for k in keys)
    planes = np.asarray(jax.jit(model.planes)(params, image)[0])
    want = ray_oracle.features(
        planes, params["decoder"], camera.cam2world, camera.intrinsics, jitter, uniform
    )
    got = np.concatenate([avatar.features[0], avatar.motion_basis[0]], -1)
    assert np.std(want) > 0.05 and np.abs(got - want).max() < 2e-4 * np.abs(want).max()
    raw = ray_oracle.decode(params["decoder"], want[:, :48])
    sigma, gaussians = ray_oracle.density(raw), model.rest(params, avatar)
    certain = np.abs(sigma - 1 / 255) > 1e-5
    assert np.array_equal((sigma >= 1 / 255)[certain], np.asarray(avatar.keep[0])[certain])
    shown = np.where(avatar.keep[0], 1 - np.exp(-sigma), 0)
    assert np.abs(gaussians.opacities[0] - shown).max() < 1e-3
    assert np.abs(gaussians.means[0] - np.tanh(raw[:, 11:14])).max() < 1e-3
