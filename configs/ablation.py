"""What each part of the paper's method is worth: `configs/base.py` with one thing changed.

Command: python train.py --config=configs/ablation.py:spatial --workdir=runs/spatial
    --config.data.packs='("packs/train_512",)'
    or in miniature, all of them: python -m benchmarks.ablation --pack=packs/ablation_96 --out=out
Hardware, time: as configs/base.py for each. Expected scores: not measured at this size; of the
miniature see docs/training.md.

full: nothing changed. spatial: the motion moves Gaussians instead of features. ray: Gaussians along
rays instead of plane cells. no_adversarial, no_identity: without that loss. joint: the motion
encoder goes on learning with the avatar instead of being frozen. fan: the paper's own motion
encoder; its weights come by `--motion_encoder` (`python -m instant_gs.convert --help`). fan with
`--init_from=CONVERTED --config.model.gaussians.position=absolute` goes on from theirs whole.

The miniature ("spatial,mini") is `configs/demo.py` at 64 x 64 with 2,304 Gaussians: photos are
unwrapped, so that heads appear within minutes, and motion codes are the shipped motion encoder's,
whose pictures must not be smaller. It has the adversarial loss, from half of the steps on, and no
identity loss, which would be nine tenths of a step. Rays cannot read an unwrapped photo: "ray" is
to be compared with "no_unwrap" there.
"""

from configs import base, demo
from instant_gs import config as config_lib

VARIANTS = {
    "full": {},
    "spatial": {"model.motion.residual_space": "spatial"},
    "ray": {"model.gaussians.instantiation": "ray"},
    "no_adversarial": {"loss.adversarial": 0.0},
    "no_identity": {"loss.identity": 0.0},
    "joint": {"motion_pretrain.freeze": False},
    # One choice; the other fields are what that encoder admits and how the release cuts faces out.
    "fan": {
        "model.motion.encoder": "fan",
        "model.motion.image_size": 224,
        "model.motion.crop": 0.52,
        "motion_pretrain.steps": 0,
    },
}
_NO_UNWRAP = {"model.encoder.unwrap": 0, "model.encoder.num_planes": 3}
MINIATURES = {
    **{name: VARIANTS[name] for name in ("full", "spatial", "no_adversarial", "joint")},
    "no_unwrap": _NO_UNWRAP,
    "ray": _NO_UNWRAP | VARIANTS["ray"],
}
MINIATURE_STEPS = 800


def get_config(arg: str = "full") -> config_lib.Config:
    """``arg`` names the variant; ",smoke" behind it is a test of seconds, ",mini" a miniature."""
    variant, _, size = (arg or "full").partition(",")
    variants = MINIATURES if size == "mini" else VARIANTS
    if variant not in variants or size not in ("", "smoke", "mini"):
        raise ValueError(
            f"configs/ablation.py: unknown variant {arg!r}; expected one of "
            f"{', '.join(VARIANTS)}, or that with ,smoke, or one of {', '.join(MINIATURES)} "
            "with ,mini"
        )
    config = _miniature() if size == "mini" else base.get_config(size)
    config.name = f"ablation_{variant}"
    for path, value in variants[variant].items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = getattr(section, name)
        setattr(section, field, value)
    return config


def _miniature() -> config_lib.Config:
    config = demo.get_config()
    model, encoder = config.model, config.model.encoder
    model.image_size = 64
    model.gaussians.grid = 48
    model.gaussians.rays, model.gaussians.samples_per_ray = 17, 4  # 2,312: about as many
    encoder.resnet_widths = (16, 16, 32, 48, 64)
    encoder.aspp_width, encoder.aspp_rates = 48, (1, 2, 3)
    encoder.token_width, encoder.branch_width, encoder.tail_widths = 128, 32, (32, 32, 32)
    encoder.unwrap = 48
    config.data.driven_per_sample = 2
    config.motion_pretrain.steps = 0
    config.loss.adversarial = 0.025  # the paper's
    adversarial = config.adversarial
    adversarial.channel_base, adversarial.channel_max, adversarial.condition_width = 1024, 64, 64
    set_steps(config, MINIATURE_STEPS)
    return config


def set_steps(config: config_lib.Config, steps: int) -> None:
    """The length of a miniature; the discriminator has the second half of it."""
    train = config.train
    train.steps = train.image_every = steps
    train.log_every, train.checkpoint_every = min(100, steps), min(300, steps)
    config.loss.start.adversarial, config.loss.ramp.adversarial = steps // 2, steps // 10
