"""The small model: the demo's network at 256 x 256, with 36,864 anchored Gaussians.

It goes on from the demo's weights, which learned on pictures with a seventh of the pixels: a
curriculum of resolutions. The planes keep their size; what is finer comes from the photo itself,
where the Gaussians read it again and are compared with it (docs/decisions/0014).

Command:
    python -m instant_gs.teacher.procedural --pack=packs/small --identities=1000 --image_size=256
    python -m instant_gs.data.pack --source=packs/small --out=packs/small_256 --image_size=256
    python train.py --config=configs/small.py --workdir=runs/small
        --init_from=demo --config.data.packs='("packs/small_256",)'
Hardware: one NVIDIA GPU with 24 GB or more. Time: meant to be an hour, not measured. Score: not
measured. The shipped weights are the mean of two runs on a CPU core each: batches of 4, 460 steps,
warm-up of 20, 1.4 h; 25.4 dB for held-out people. Their provenance.json has commands and scores.
"""

from configs import demo, smoke
from instant_gs import config as config_lib


def get_config(arg: str = "") -> config_lib.Config:
    """``arg`` "smoke" shrinks everything to a test of seconds."""
    config = demo.get_config()
    config.name = "small"
    config.model.image_size = 256
    config.model.gaussians.grid = 192
    config.model.gaussians.max_scale = 0.025  # twice as many cells a side, each half as wide
    config.data.batch_size = 8
    config.data.driven_per_sample = 3
    config.loss.lpips = 0.2  # at 96 x 96 more than 0.04 dots noses
    config.motion_pretrain.steps = 0  # the demo's encoders stay as they are
    config.motion_pretrain.teacher_forcing = True
    config.train.steps = 12_000
    return smoke.apply(config, arg)
