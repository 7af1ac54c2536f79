"""Every configuration is valid, and its variant "smoke" trains."""

import functools
import importlib
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from instant_gs import config as config_lib
from instant_gs import models
from instant_gs.geometry import camera
from instant_gs.training import abstract, curriculum, parallel, state, step

FOLDER = Path(__file__).resolve().parent.parent / "configs"
# Those of ablation.py are tested in test_ablation.py.
OTHERS = ("__init__", "smoke", "ablation")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in OTHERS)


def load(name, arg=""):
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_says_what_it_is(name):
    config = load(name)
    config.validate()
    assert config.name == name
    assert type(config).from_json(config.to_json()).to_json() == config.to_json()
    text = importlib.import_module(f"configs.{name}").__doc__
    for word in ("Command:", f"configs/{name}.py", "measured"):
        assert word in text, f"configs/{name}.py: the docstring lacks {word!r}"
    with pytest.raises(ValueError, match=rf"configs/{name}.py: unknown variant 'smok'"):
        load(name, "smok")


@pytest.mark.parametrize("name", ["demo", "small"])
def test_the_weights_that_ship_are_of_its_model(name):
    made = (FOLDER.parent / "instant_gs" / "weights" / name / "config.json").read_text()
    assert config_lib.Config.from_json(made).model == load(name).model


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.learning_rate", -1.0),
        ("optimizer.b1", 7.0),
        ("optimizer.ema_decay", 1.5),
        ("optimizer.multipliers.decoder", -1.0),
        ("adversarial.b2", 1.0),
        ("adversarial.r1", -1.0),
        ("adversarial.group_size", 0),
        ("loss.region", -0.1),
        ("loss.start.adversarial", -1),
        ("data.mirror", 1.5),
        ("data.threads", 0),
        ("data.broken", "go"),
        ("model.image_size", 24),
        ("model.dtype", "float16"),
        ("model.encoder.plane_heads", 3),
        ("model.encoder.unwrap", 8),
        ("model.encoder.looks", 0),
        ("model.gaussians.grid", 0),
        ("motion_pretrain.steps", -1),
        ("seed", -3),
        ("seed", 2**32 - 1),
        ("model.image_size", 16),
        ("model.encoder.resnet_widths", (8, 8, 8, 8)),
        ("model.encoder.resnet_widths", (8, 16, 8, 8, 8)),
        ("model.encoder.aspp_rates", (2, 0)),
        ("model.encoder.tail_widths", (8, -8)),
        ("model.encoder.token_width", 0),
        ("model.encoder.low_blocks", -1),
        ("model.encoder.mlp_ratio", 0),
        ("model.encoder.num_planes", 0),
        ("model.gaussians.rays", 0),
        ("model.gaussians.samples_per_ray", 1),
        ("model.gaussians.feature_width", 0),
        ("model.gaussians.max_offset", float("nan")),
        ("model.gaussians.max_scale", 0.0),
        ("model.motion.image_size", 0),
        ("model.motion.widths", (8, 12)),
        ("model.motion.code_width", -1),
        ("model.motion.residual_scale", float("inf")),
        ("data.cache_gigabytes", -1.0),
        ("loss.l1", float("inf")),
        ("loss.l1", -1),
        ("optimizer.multipliers.decoder", float("inf")),
        ("adversarial.r1", float("inf")),
        ("adversarial.channel_base", 256),
        ("train.steps", 2**31),
        ("train.steps", 2**31 - 1),
        ("loss.start.l1", 2**40),
        ("train.resolutions", (0, 64)),
        ("train.resolutions", 64),
        ("data.packs", (3,)),
        ("data.packs", ("packs/a", "")),
        ("data.packs", "packs/a"),
        ("model.encoder.tail_widths", (8.5,)),
        ("model.encoder.remat", "no"),
        ("model.motion.crop", "0.5"),
        ("data.threads", True),
        ("data.batch_size", 4.0),
        ("name", None),
        ("loss", 1.0),
    ],
)
def test_a_value_that_trains_nothing_is_named(field, value):
    config = config_lib.Config()
    config.motion_pretrain.steps = 1
    *sections, name = field.split(".")
    setattr(functools.reduce(getattr, sections, config), name, value)
    message = rf"{field}: expected .*, got {re.escape(repr(value))}"
    with pytest.raises(config_lib.InvalidConfigError, match=message):
        config.validate()


def test_widths_that_colours_pass_through_are_wide_enough():
    config = config_lib.Config()
    gaussians = config.model.gaussians
    gaussians.feature_width, gaussians.hidden_width = 1, 1
    config.validate()
    gaussians.position = "anchored"
    with pytest.raises(
        ValueError, match=r"(?s)feature_width: .* least 3.*hidden_width: .* least 6"
    ):
        config.validate()
    gaussians.feature_width, gaussians.hidden_width = 3, 6
    config.validate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model": {"image_size": "big"}}', "config.model.image_size: expected int, got 'big'"),
        ('{"seed": true}', "config.seed: expected int, got True"),
        ('{"model": 3}', "config.model: expected fields of ModelConfig, got 3"),
        ('{"model": ', "Expecting value"),
        ('{"data": {"mirrors": 1}}', r"config.data: unknown fields \['mirrors'\]; expected a"),
    ],
)
def test_damaged_text_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        config_lib.Config.from_json(text)


def test_what_the_released_networks_cannot_do_is_named():
    config = config_lib.Config()
    config.model.motion.encoder, config.model.motion.image_size = "fan", 96
    config.motion_pretrain.steps, config.motion_pretrain.teacher_forcing = 5, True
    config.model.gaussians.instantiation, config.model.encoder.num_planes = "ray", 4
    config.model.encoder.unwrap = 16
    with pytest.raises(ValueError) as caught:
        config.validate()
    fields = [line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert fields == [
        "model.encoder.num_planes",
        "model.encoder.unwrap",
        "model.motion.(image_size, code_width)",
        "motion_pretrain.steps",
        "motion_pretrain.teacher_forcing",
    ]


@pytest.mark.parametrize("crop", [0.0, -0.5, 1.01])
def test_a_driving_crop_that_is_no_share_of_the_picture_is_named(crop):
    config = config_lib.Config()
    config.model.motion.crop = crop
    with pytest.raises(ValueError, match=rf"motion\.crop: expected .*\(0, 1\], got {crop}"):
        config.validate()


def test_a_driving_crop_that_a_narrow_view_does_not_show_is_named():
    config = config_lib.Config()
    config.model.fov_degrees = camera.FOV_LEGACY_DEGREES
    config.model.motion.crop = 0.81
    with pytest.raises(ValueError) as caught:
        config.validate()
    assert str(caught.value).splitlines()[1:] == [
        "  model.motion.crop: expected a share of the wide picture's side in (0, 0.805], because "
        "model.fov_degrees=18.837 shows no more of it, got 0.81"
    ]
    config.model.motion.crop = 0.805
    config.validate()
    assert 0.99 < models.build(config.model).crop_share <= 1
    config.model.fov_degrees, config.model.motion.crop = 0.0, 2.0
    with pytest.raises(ValueError, match=r"(?s)fov_degrees: .*motion\.crop: expected .*\(0, 1\]"):
        config.validate()


def test_a_configuration_from_before_a_field_existed_reads_as_before():
    values = json.loads(load("demo", "").to_json())
    del values["model"]["motion"]["crop"], values["model"]["encoder"]["looks"]
    old = config_lib.Config.from_json(json.dumps(values)).model
    assert (old.motion.crop, old.encoder.looks) == (0.62, 1)


def test_a_whole_number_is_a_share():
    config = config_lib.Config.from_json('{"data": {"mirror": 1}}')
    config.validate()
    assert config.data.mirror == 1


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # ml_collections'
def test_every_field_can_be_set_by_flag_and_a_typo_is_an_error(monkeypatch):
    def parsed(option):
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        # ml_collections looks there for the fields that are set.
        monkeypatch.setattr("sys.argv", ["train.py", f"--config={FOLDER}/demo.py", option])
        values(sys.argv)
        return values.config.optimizer.multipliers

    factors = parsed("--config.optimizer.multipliers.decoder=2")
    assert (factors.decoder, factors.motion_decoder, factors.backbone) == (2.0, 4.0, 1.0)
    with pytest.raises(KeyError, match="decodr"):
        parsed("--config.optimizer.multipliers.decodr=2")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "demo"])
def test_its_smoke_variant_takes_a_step(name):
    """The demo's takes many, in tests/training."""
    config = load(name, "smoke")
    config.validate()
    config.loss.lpips = 0.0  # quicker to compile
    mesh = parallel.make_mesh(config.data.batch_size, jax.devices()[:1])
    model = models.build(config.model)
    batch = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), abstract.batch(config, mesh))
    fresh = parallel.place(state.create(model, config), mesh)
    after, metrics = step.make(model, config, curriculum.Phase("motion"), mesh)(fresh, batch)
    assert int(after.step) == 1 and np.isfinite(float(metrics["loss"]))
