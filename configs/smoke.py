"""What every configuration's variant "smoke" is: the same run, shrunk to a test of seconds."""

import dataclasses

from instant_gs import config as config_lib


def apply(config: config_lib.Config, arg: str) -> config_lib.Config:
    """What ``get_config(arg)`` returns: the configuration, shrunk if ``arg`` is "smoke".

    Everything that a shrunk model can have stays as it is: precision, losses, kind of Gaussians.

    Raises:
        ValueError: ``arg`` is something else and not empty.
    """
    if arg == "smoke":
        _shrink(config)
    elif arg:
        raise ValueError(
            f"configs/{config.name}.py: unknown variant {arg!r}; expected smoke or nothing"
        )
    return config


def _shrink(config: config_lib.Config) -> None:
    model, encoder = config.model, config.model.encoder
    model.image_size = 32
    model.gaussians.grid = 16
    model.gaussians.rays, model.gaussians.samples_per_ray = 8, 4
    encoder.resnet_widths = (8, 8, 8, 8, 8)
    encoder.token_width = 32
    encoder.aspp_width = 8
    encoder.branch_width = 8
    encoder.tail_widths = (8, 8, 8)
    encoder.unwrap = min(32, encoder.unwrap)
    # The release's encoder has one size only.
    model.motion = dataclasses.replace(
        model.motion, encoder="learned", image_size=32, widths=(8, 8, 8)
    )
    config.loss.lpips_network = "alexnet"
    config.data.batch_size = 4
    config.data.driven_per_sample = 1
    config.motion_pretrain.steps = min(4, config.motion_pretrain.steps)
    config.loss.start = config_lib.LossSteps(adversarial=2)
    config.loss.ramp = config_lib.LossSteps(adversarial=2)
    adversarial = config.adversarial
    adversarial.channel_base, adversarial.channel_max, adversarial.condition_width = 256, 8, 8
    adversarial.group_size = 1  # so that it runs on any number of devices that divides the batch
    config.train = dataclasses.replace(
        config.train,
        steps=4,
        resolutions=(),
        log_every=1,
        image_every=4,
        checkpoint_every=4,
        shard_parameters=1,
    )
