"""Training on several devices is training on one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instant_gs import models, rendering
from instant_gs.data import pipeline
from instant_gs.training import curriculum, objective, parallel, state, step


def _setting(config):
    config.loss.lpips = 0.0  # quicker to compile; it is a mean over images like the other losses
    model = models.build(config.model)
    data = config.data
    loader = pipeline.make_loader(
        data.packs,
        "train",
        batch_size=data.batch_size,
        driven_per_sample=data.driven_per_sample,
        seed=0,
        image_size=config.model.image_size,
    )
    return model, state.create(model, config), next(loader)


def _one_step(model, config, phase, fresh, batch, devices, shards=1, accumulate=1):
    config.train.accumulate = accumulate
    mesh = parallel.make_mesh(
        config.data.batch_size, jax.devices()[:devices], shards=shards, accumulate=accumulate
    )
    fresh = parallel.place(jax.tree.map(np.asarray, fresh), mesh)
    start = {"motion": 0, "avatar": config.motion_pretrain.steps}[phase]
    take = step.make(model, config, curriculum.at(start, config), mesh)
    batch = parallel.split(batch, mesh)
    compiled = take.lower(fresh, batch).compile()
    after, metrics = compiled(fresh, batch)
    moments = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(after.optimizers[phase])])
    for leaf, place in zip(
        jax.tree.leaves(after), jax.tree.leaves(parallel.shardings(after, mesh)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), "it lies where the old one did"
    return moments, jax.tree.map(float, metrics), compiled.as_text()


def _check_alike(one, other):
    (moments, metrics, _), (moments_of_other, metrics_of_other, _) = one, other
    for name in ("loss", "gradient_norm"):
        assert metrics[name] == pytest.approx(metrics_of_other[name], rel=1e-5)
    # Of the gradients, in Adam's memory of them: the step itself is only about their signs.
    difference = np.linalg.norm(moments - moments_of_other)
    assert difference < 1e-4 * np.linalg.norm(moments)


def _collectives(text):
    return set(re.findall(r"(all-reduce|all-gather|all-to-all|collective-permute)\(", text))


NEEDS_FOUR = pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 virtual CPU devices")


@NEEDS_FOUR
@pytest.mark.slow
@pytest.mark.parametrize("phase", ["motion", "avatar"])
def test_four_devices_take_the_step_of_one(config, phase, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED_SIZE", 512)
    model, fresh, batch = _setting(config)
    one = _one_step(model, config, phase, fresh, batch, 1)
    four = _one_step(model, config, phase, fresh, batch, 4)
    _check_alike(one, four)
    # Only sums of gradients and metrics travel.
    assert _collectives(four[2]) == {"all-reduce"}
    shared = _one_step(model, config, phase, fresh, batch, 4, shards=4)
    _check_alike(one, shared)
    # Besides them parameters, gathered: nothing of pictures, features or the rasterizer.
    assert _collectives(shared[2]) == {"all-reduce", "all-gather"}
    sizes = {leaf.size for leaf in jax.tree.leaves(fresh.params)}
    for results in re.findall(r"= (.*?) all-gather\(", shared[2]):
        for shape in re.findall(r"\w+\[([\d,]+)\]", results):
            assert np.prod([int(length) for length in shape.split(",")]) in sizes, results


@NEEDS_FOUR
def test_a_batch_in_parts_makes_the_step_of_the_whole(config):
    model, fresh, batch = _setting(config)
    one = _one_step(model, config, "motion", fresh, batch, 1)
    parts = _one_step(model, config, "motion", fresh, batch, 2, accumulate=2)
    _check_alike(one, parts)
    found, found_in_parts = (metrics["coefficient_r2"] for _, metrics, _ in (one, parts))
    assert found_in_parts == pytest.approx(found, rel=1e-4)
    everything = [view.coefficients.reshape(-1, 52) for view in vars(batch).values()]
    variance = np.concatenate(everything).var(0).mean()
    assert found == pytest.approx(1 - one[1]["coefficient_mse"] / variance, rel=1e-3)


def test_overflow_is_that_of_an_image_in_parts_of_any_size(config, monkeypatch):
    config.loss.lpips = 0.0
    model, _, batch = _setting(config)
    size = config.model.image_size

    def render(gaussians, camera, **_):
        lead = camera.intrinsics.shape[:2]
        image = jnp.zeros((*lead, size, size, 3))
        return rendering.Rendered(image, image[..., 0], image[..., 0], jnp.full(lead, 6))

    posed = objective.Posed(None, jnp.zeros((1, 1, 1, 1)), None)
    monkeypatch.setattr(objective, "animated_and_rest", lambda *_: posed)
    monkeypatch.setattr(rendering, "render", render)
    for samples in (1, config.data.batch_size):
        part = jax.tree.map(lambda a, samples=samples: a[:samples], batch)
        _, metrics = objective.avatar_objective(
            model, config, {}, size, {"model": {}}, part, None, 0
        )
        assert metrics["overflow"] == 6


def test_groups_of_the_discriminator_that_would_be_cut_are_a_clear_error(config):
    each = config.data.batch_size // jax.device_count()
    config.loss.adversarial, config.adversarial.group_size = 0.1, each
    assert parallel.mesh_of(config).size == jax.device_count()
    config.adversarial.group_size = each + 1
    with pytest.raises(
        ValueError, match=rf"group_size={each + 1}: expected a divisor of the {each}"
    ):
        parallel.mesh_of(config)
    config.data.batch_size, config.train.accumulate = 4 * jax.device_count(), 2
    config.adversarial.group_size = 4
    with pytest.raises(ValueError, match=r"group_size=4: expected a divisor of the 2 samples"):
        parallel.mesh_of(config)
    config.loss.adversarial = 0.0
    parallel.mesh_of(config)


def test_hosts_draw_the_keys_that_one_would(monkeypatch):
    """Two hosts take every second sample, and their parts lie one behind the other."""
    key = jax.random.key(0)
    one = jax.random.key_data(parallel.sample_keys(key, 6))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    two = jax.random.key_data(parallel.sample_keys(key, 6))
    np.testing.assert_array_equal(two, one[np.array([0, 2, 4, 1, 3, 5])])


def test_a_batch_that_cannot_be_split_is_a_clear_error():
    with pytest.raises(ValueError, match=r"data\.batch_size=3: expected a multiple of the 2 dev"):
        parallel.make_mesh(3, jax.devices()[:1] * 2)
    with pytest.raises(ValueError, match=r"train\.shard_parameters=3: expected a divisor"):
        parallel.make_mesh(4, jax.devices()[:1] * 4, shards=3)
    with pytest.raises(ValueError, match=r"multiple of the 2 devices times train\.accumulate=3"):
        parallel.make_mesh(4, jax.devices()[:1] * 2, accumulate=3)
