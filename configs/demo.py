"""The demo model: 96 x 96, 9,216 anchored Gaussians, trained on a laptop's CPU.

Command: GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python train.py --config=configs/demo.py
    --workdir=runs/demo --config.data.packs='("packs/demo_96",)'
Hardware: two CPU cores. The whole run: not measured. instant_gs/weights/demo took 60,000 motion
steps (5.5 h) and 30,660 avatar steps (11.7 h, one core); their history and scores are in
instant_gs/weights/demo/provenance.json.
"""

from configs import smoke
from instant_gs import config as config_lib


def get_config(arg: str = "") -> config_lib.Config:
    """``arg`` "smoke" shrinks everything to a test of seconds."""
    config = config_lib.Config(name="demo")
    config.model = config_lib.ModelConfig(
        image_size=96,
        encoder=config_lib.EncoderConfig(
            resnet_widths=(32, 32, 64, 96, 128),
            aspp_width=96,
            aspp_rates=(2, 4, 6),
            token_width=256,
            low_blocks=2,
            low_heads=4,
            plane_heads=4,
            branch_width=48,
            tail_widths=(64, 48, 48),
            num_planes=1,
            conv_init="he",
            shortcut=True,
            unwrap=128,
            looks=2,
        ),
        gaussians=config_lib.GaussianConfig(
            grid=96, position="anchored", cull="none", feature_width=32, hidden_width=64
        ),
        motion=config_lib.MotionConfig(widths=(24, 48, 96, 192), residual_scale=0.1),
    )
    config.data = config_lib.DataConfig(
        batch_size=4, driven_per_sample=4, cross_identity=0.5, same_expression=0.1, mirror=0.5
    )
    config.loss = config_lib.LossConfig(
        l1=2.0,
        lpips=0.04,
        lpips_network="alexnet",
        identity=0.0,
        region=1.5,
        mask=1.5,
        adversarial=0.0,
        driven=1.5,
    )
    config.motion_pretrain = config_lib.MotionPretrainConfig(steps=8000, learning_rate=1e-3)
    config.optimizer = config_lib.OptimizerConfig(
        learning_rate=4e-4,
        final_learning_rate_ratio=0.05,
        warmup_steps=100,
        clip_norm=1.0,
        multipliers=config_lib.Multipliers(
            decoder=4.0, motion_decoder=4.0, reprojection=4.0, refinement=4.0
        ),
    )
    config.train = config_lib.TrainConfig(steps=4600)
    return smoke.apply(config, arg)
