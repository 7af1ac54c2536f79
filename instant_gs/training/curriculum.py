"""What changes during training: who learns, at which size, and which losses count how much."""

import dataclasses

import jax.numpy as jnp

from instant_gs.config import Config

#: Losses that a network computes: before their first step they cost nothing, not even compiling.
JUDGED = ("lpips", "identity", "adversarial")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of steps that share one compiled step.

    Attributes:
        name: "motion", in which the motion encoder learns to read expressions, or "avatar".
        image_size: Side in pixels of what is rendered and compared; 0 in "motion".
        judges: The losses of ``JUDGED`` that count.
    """

    name: str
    image_size: int = 0
    judges: tuple[str, ...] = ()


def at(step: int, config: Config) -> Phase:
    """The phase of a step.

    Args:
        step: Steps taken before it, from 0, in all phases together.
        config: "motion" takes its first ``motion_pretrain.steps``; in "avatar"
            ``train.resolutions``, ``loss`` and ``loss.start`` decide.
    """
    step = step - config.motion_pretrain.steps
    if step < 0:
        return Phase("motion")
    size = config.model.image_size
    for start, side in config.train.resolutions:
        size = side if step >= start else size
    judges = tuple(
        name
        for name in JUDGED
        if getattr(config.loss, name) and step >= getattr(config.loss.start, name)
    )
    return Phase("avatar", size, judges)


def phases(config: Config) -> list[Phase]:
    """All phases of a run, in order."""
    starts = {0} | {start for start, _ in config.train.resolutions}
    starts |= {getattr(config.loss.start, name) for name in JUDGED}
    first = config.motion_pretrain.steps
    steps = [first + start for start in sorted(starts) if start < config.train.steps]
    return list(dict.fromkeys(at(step, config) for step in [0, *steps]))


def never_reached(config: Config) -> list[str]:
    """What a configuration plans for steps that the run does not have, a line each."""
    lines, steps = [], config.train.steps
    for loss, start in dataclasses.asdict(config.loss.start).items():
        if getattr(config.loss, loss) and start >= steps:
            lines.append(
                f"loss.{loss} never counts: loss.start.{loss}={start} is beyond the run's "
                f"train.steps={steps}; lower the start, or set loss.{loss}=0"
            )
    missed = [size for start, size in config.train.resolutions if start >= steps]
    if missed:
        sizes = ", ".join(str(size) for size in missed)
        lines.append(
            f"side {sizes} is never trained: train.resolutions has it begin beyond the run's "
            f"train.steps={steps}"
        )
    return lines


def weight(loss: str, step, config: Config):
    """The weight of a loss.

    Args:
        loss: Its name, a field of ``config.LossSteps``.
        step: () int, steps of the avatar phase before this one, traced or not.
        config: Its weight, start and ramp.

    Returns:
        A float where nothing changes, else () float32: 0 before the start, then growing to the
        configured weight, which it has from the ramp's last step on.
    """
    full = getattr(config.loss, loss)
    start, ramp = getattr(config.loss.start, loss), getattr(config.loss.ramp, loss)
    if not start and not ramp:
        return full
    return full * jnp.clip((step - start + 1) / max(ramp, 1), 0.0, 1.0)
