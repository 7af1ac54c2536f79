"""The paper's configuration and its ablations: valid, one difference each, and a table of them."""

import dataclasses

import pytest

from benchmarks import ablation_table
from configs import ablation, base
from instant_gs import config as config_lib
from instant_gs.inference import avatar
from instant_gs.training import curriculum


def differences(first, second, path=""):
    """Dotted names of the fields that differ."""
    found = []
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if dataclasses.is_dataclass(a):
            found += differences(a, b, f"{path}{field.name}.")
        elif a != b:
            found.append(path + field.name)
    return found


def test_the_base_is_the_papers():
    config = base.get_config()
    config.validate()
    assert (config.model.image_size, config.data.batch_size) == (512, 32)
    assert (config.optimizer.learning_rate, config.train.steps) == (1e-4, 250_000)
    sizes = [size for _, size in config.train.resolutions]
    assert sizes[0] == 64 and sizes[-1] == 512 and sizes == sorted(sizes)
    assert config.loss.adversarial == 0.025
    last_change = config.train.resolutions[-1][0]
    assert last_change < config.loss.start.adversarial == config.train.steps // 2


@pytest.mark.parametrize("size", ["", ",smoke"])
@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_an_ablation_changes_what_it_says(variant, size):
    config = ablation.get_config(variant + size)
    config.validate()
    full = base.get_config(size.strip(","))
    expected = {"name"} | set(ablation.VARIANTS[variant])
    assert set(differences(full, config)) <= expected
    assert len(ablation.VARIANTS[variant]) <= 1 or variant == "fan"
    if variant not in ("full", "fan"):
        assert len(differences(full, config)) == 2


@pytest.mark.parametrize("variant", ablation.MINIATURES)
def test_a_miniature_differs_by_one_field_and_takes_the_shipped_motion_encoder(variant):
    config = ablation.get_config(f"{variant},mini")
    config.validate()
    reference = ablation.get_config("no_unwrap,mini" if variant == "ray" else "full,mini")
    changed = set(differences(reference, config)) - {"name"}
    expected = set(ablation.VARIANTS.get(variant, ablation.MINIATURES[variant]))
    assert changed == expected and (len(changed) == 1 or variant in ("full", "no_unwrap"))
    shipped = avatar.SHIPPED_WEIGHTS / "config.json"
    shipped = config_lib.Config.from_json(shipped.read_text()).model.motion
    shipped = dataclasses.replace(shipped, residual_space=config.model.motion.residual_space)
    assert shipped == config_lib.Config.from_json(config.to_json()).model.motion


def test_a_shorter_miniature_still_has_a_discriminator():
    config = ablation.get_config("full,mini")
    ablation.set_steps(config, 10)
    config.validate()
    assert config.train.steps == 10 and curriculum.never_reached(config) == []
    assert (config.loss.start.adversarial, config.loss.ramp.adversarial) == (5, 1)
    assert [phase.judges for phase in curriculum.phases(config)] == [
        ("lpips",), ("lpips", "adversarial"),
    ]  # fmt: skip


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match=r"spatial.*ray"):
        ablation.get_config("spacial")
    with pytest.raises(ValueError, match="with ,mini"):
        ablation.get_config("fan,mini")
    with pytest.raises(ValueError, match="smoke or nothing"):
        base.get_config("tiny")


def test_the_table_says_what_was_measured():
    facts = {"command": "python -m benchmarks.ablation", "commit": "abc", "device": "cpu"}
    row = {"variant": "full", "psnr": 20.0, "lpips": 0.1, "error_eyes_mouth": None}
    row |= {"against_no_motion": 0.9, "share_improved": 0.75, "cpu_seconds": 61.2}
    row |= {"steps": 12, "seed": 3, "cases": 4}
    text = ablation_table.markdown([row], facts)
    assert "| full | 20.00 | 0.100 | not measured | 0.900 | 0.75 | 61 |" in text
    assert "4 cases after 12 steps, seed 3" in text and "commit abc" in text
