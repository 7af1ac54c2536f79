"""What each part of the paper's method is worth: `configs/base.py` with one thing changed.

Command: python train.py --config=configs/ablation.py:spatial --workdir=runs/spatial
    --config.data.packs='("packs/train_512",)'
    or all of them in miniature: python -m benchmarks.ablation --pack=packs/small --out=out/ablation
Hardware, time: as configs/base.py for each. Expected scores: not measured at this size.

full: nothing changed. spatial: the motion moves Gaussians instead of features. ray: Gaussians along
rays instead of plane cells. no_adversarial, no_identity: without that loss. joint: the motion
encoder goes on learning with the avatar instead of being frozen. fan: the paper's own motion
encoder; its weights come by `--motion_encoder` (`python -m instant_gs.convert --help`). fan with
`--init_from=CONVERTED --config.model.gaussians.position=absolute` goes on from theirs whole.
"""

from configs import base
from instant_gs import config as config_lib

VARIANTS = {
    "full": {},
    "spatial": {"model.motion.residual_space": "spatial"},
    "ray": {"model.gaussians.instantiation": "ray"},
    "no_adversarial": {"loss.adversarial": 0.0},
    "no_identity": {"loss.identity": 0.0},
    "joint": {"motion_pretrain.freeze": False},
    # One choice; the other two fields are what that encoder admits.
    "fan": {
        "model.motion.encoder": "fan",
        "model.motion.image_size": 224,
        "motion_pretrain.steps": 0,
    },
}


def get_config(arg: str = "full") -> config_lib.Config:
    """``arg`` names the variant; "spatial,smoke" is its miniature."""
    variant, _, size = (arg or "full").partition(",")
    if variant not in VARIANTS or size not in ("", "smoke"):
        raise ValueError(
            f"configs/ablation.py: unknown variant {arg!r}; expected one of "
            f"{', '.join(VARIANTS)}, or that with ,smoke"
        )
    config = base.get_config(size)
    config.name = f"ablation_{variant}"
    for path, value in VARIANTS[variant].items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = getattr(section, name)
        setattr(section, field, value)
    return config


def shorten(config: config_lib.Config, steps: int) -> None:
    """Squeezes the avatar phase: sizes and losses change at the same share of it as before."""
    ratio = steps / config.train.steps
    config.train.steps = config.train.image_every = config.train.checkpoint_every = steps
    # Where two sizes would begin at one step, the later one does.
    sizes = {int(start * ratio): size for start, size in config.train.resolutions}
    config.train.resolutions = tuple(sizes.items())
    for schedule in (config.loss.start, config.loss.ramp):
        for loss, value in vars(schedule).items():
            setattr(schedule, loss, int(value * ratio))
