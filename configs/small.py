"""A small model for one GPU and an hour: 256 x 256, 65,536 anchored Gaussians.

Command:
    python -m instant_gs.teacher.procedural --pack=packs/small --identities=1000 --image_size=256
    python -m instant_gs.data.pack --source=packs/small --out=packs/small_256 --image_size=256
    python train.py --config=configs/small.py --workdir=runs/small
        --config.data.packs='("packs/small_256",)'
Hardware: one NVIDIA GPU with 24 GB or more. Time: meant to be an hour, not measured.
Expected score: not measured.
"""

from configs import smoke
from instant_gs import config as config_lib


def get_config(arg: str = "") -> config_lib.Config:
    """``arg`` "smoke" shrinks everything to a test of seconds."""
    config = config_lib.Config(name="small")
    config.model = config_lib.ModelConfig(
        image_size=256,
        dtype="bfloat16",
        encoder=config_lib.EncoderConfig(
            resnet_widths=(48, 48, 96, 160, 256),
            aspp_width=160,
            aspp_rates=(6, 12, 18),
            token_width=512,
            low_blocks=2,
            low_heads=4,
            plane_heads=4,
            branch_width=96,
            tail_widths=(128, 96, 96),
            num_planes=1,
            conv_init="he",
            shortcut=True,
            unwrap=256,
            looks=2,
        ),
        gaussians=config_lib.GaussianConfig(
            grid=256, position="anchored", cull="none", feature_width=32, hidden_width=64
        ),
        motion=config_lib.MotionConfig(image_size=96, residual_scale=0.1),
    )
    config.data = config_lib.DataConfig(
        batch_size=8, driven_per_sample=2, cross_identity=0.5, same_expression=0.1
    )
    config.loss = config_lib.LossConfig(
        l1=1.0,
        lpips=0.5,
        lpips_network="alexnet",
        identity=0.0,
        region=2.0,
        mask=0.2,
        adversarial=0.0,
        driven=1.5,
    )
    config.motion_pretrain = config_lib.MotionPretrainConfig(steps=6000, learning_rate=1e-3)
    config.optimizer = config_lib.OptimizerConfig(
        learning_rate=3e-4,
        final_learning_rate_ratio=0.05,
        warmup_steps=200,
        clip_norm=1.0,
        multipliers=config_lib.Multipliers(
            decoder=5.0, motion_decoder=2.0, reprojection=5.0, refinement=5.0
        ),
    )
    config.train = config_lib.TrainConfig(steps=12_000, log_every=50, image_every=1000)
    return smoke.apply(config, arg)
