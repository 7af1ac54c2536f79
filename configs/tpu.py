"""The released network at full size on a TPU slice of eight chips: 512 x 512, batch 32.

Command: TPU=my-slice ZONE=us-east5-b launch/tpu_pod.sh --config=configs/tpu.py
    --workdir=/mnt/runs/full --config.data.packs='("/mnt/packs/full",)'
Hardware: meant for eight TPU v5p chips (95 GB each), not tried. With little effort XLA
plans 10.5 GB a chip (docs/training.md, "Does the full size fit?"). Time, expected score: not
measured.

The rasterizer is the one for every platform, "xla", which keeps more in memory than the GPU
kernels; a chip therefore takes its four samples one by one, and the discriminator, which would
compare the samples of a group, has none to compare.
"""

from configs import base, smoke
from instant_gs import config as config_lib


def get_config(arg: str = "") -> config_lib.Config:
    """``arg`` "smoke" shrinks everything to a test of seconds."""
    config = base.get_config()
    config.name = "tpu"
    config.model.dtype = "bfloat16"
    config.train.accumulate = 4
    config.adversarial.group_size = 1
    return smoke.apply(config, arg)
