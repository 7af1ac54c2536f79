"""The released network at full size on eight GPUs: 512 x 512, 262,144 Gaussians, batch 32.

Command: python train.py --config=configs/gpu_8x.py --workdir=runs/full
    --config.data.packs='("packs/full",)'        (several hosts: launch/slurm.sh)
Hardware: eight NVIDIA GPUs with 80 GB. Time: not measured. Expected score: not measured.
"""

from configs import base, smoke
from instant_gs import config as config_lib


def get_config(arg: str = "") -> config_lib.Config:
    """``arg`` "smoke" shrinks everything to a test of seconds."""
    config = base.get_config()
    config.name = "gpu_8x"
    config.model.dtype = "bfloat16"
    return smoke.apply(config, arg)
