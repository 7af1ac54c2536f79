"""Levels of detail: Gaussians in the order of what they add to pictures, so that any prefix works.

    python -m instant_gs.inference.level_of_detail --source=photo.png --out=levels.json

A Gaussian's importance is the largest sum of blending weights that it has in any picture of a small
set: the avatar under a bank of drivers (``motion_bank``), seen from a few sides. That sum is the
derivative of the summed picture by the Gaussian's colour, so one backward pass measures all of
them. The largest and not the mean: teeth are worth what they are worth while the mouth is open.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from instant_gs import cli, rendering, types
from instant_gs.geometry import camera as camera_lib

#: Gaussians: a phone's browser, what the release's filter leaves of a photo, a laptop's GPU.
LEVELS = (5_000, 29_000, 80_000)

#: Where the avatar is looked at from, degrees.
YAWS_DEGREES = (-30.0, 0.0, 30.0)


@dataclasses.dataclass(frozen=True)
class Level:
    """What a prefix costs in quality.

    Attributes:
        count: Gaussians.
        mean_error: Mean absolute difference to all Gaussians' pictures, in steps of 8 bits.
        worst_error: The same of the worst picture.
        psnr: Of all pictures together, decibels; infinite if they agree.
    """

    count: int
    mean_error: float
    worst_error: float
    psnr: float


def order(engine, avatar: types.Avatar, code_source, bank=None, *, size: int = 0) -> types.Avatar:
    """Sorts an avatar's Gaussians, the most important first, those that are not kept last.

    Args:
        engine: ``avatar.InstantAvatar``.
        avatar: From ``encode``, one item.
        code_source: (C,) motion code of the photo.
        bank: (K, C) codes of drivers; None is the weights' own (``InstantAvatar.bank``).
        size: Side of the pictures in pixels; 0 is ``image_size``.

    Returns:
        The same Gaussians; animated and rendered as before, up to rounding.
    """
    measure, folded = _weights(engine.model, size or engine.image_size), engine.fold(avatar)
    importance = np.zeros(avatar.keep.shape, np.float32)
    for motion, camera in _pictures(engine, code_source, bank):
        seen = np.asarray(measure(engine.params, folded, motion, camera))
        importance = np.maximum(importance, seen)
    ranks = np.argsort(-np.where(avatar.keep, importance, -1.0), kind="stable")
    return jax.tree.map(lambda leaf: leaf[ranks], avatar)


def prefix(avatar: types.Avatar, count: int) -> types.Avatar:
    """The ``count`` most important Gaussians of an avatar from ``order``.

    Raises:
        ValueError: It has fewer, or the count is not positive.
    """
    total = avatar.keep.shape[-1]
    if not 0 < count <= total:
        raise ValueError(f"count: expected 1 to {total}, the avatar's Gaussians, got {count}")
    return jax.tree.map(lambda leaf: leaf[:count], avatar)


def report(
    engine, ordered: types.Avatar, code_source, bank=None, *, counts=LEVELS, size: int = 0
) -> list[Level]:
    """The image error of prefixes against all Gaussians, over the bank and all sides.

    Args:
        engine: ``avatar.InstantAvatar``.
        ordered: From ``order``.
        code_source: (C,) motion code of the photo.
        bank: As for ``order``.
        counts: Lengths of prefixes; those that the avatar does not have are left out.
        size: Side of the pictures in pixels; 0 is ``image_size``.

    Returns:
        Levels, the smallest first; the last holds all Gaussians.
    """
    total, size = ordered.keep.shape[-1], size or engine.image_size

    def draw(count):
        part = engine.fold(prefix(ordered, count))
        for motion, camera in _pictures(engine, code_source, bank):
            picture, _ = engine.frame(part, motion, camera, size)
            yield np.asarray(picture, np.float32)

    truth = np.stack(list(draw(total)))
    levels = []
    for count in [*sorted(count for count in counts if count < total), total]:
        difference = np.stack(list(draw(count))) - truth
        errors = np.abs(difference).mean((1, 2, 3))
        square = float(np.square(difference).mean())
        psnr = 10 * math.log10(255**2 / square) if square > 0 else math.inf
        levels.append(Level(count, float(errors.mean()), float(errors.max()), psnr))
    return levels


def _pictures(engine, code_source, bank) -> Iterator[tuple[types.Motion, types.Camera]]:
    """What is looked at: the photo's own expression and the bank's, each from all sides."""
    codes = [code_source, *(engine.bank if bank is None else bank)]
    view = engine.config.model.fov_degrees
    for code in codes:
        motion = engine.motion(code_source, code)
        for yaw in YAWS_DEGREES:
            yield motion, camera_lib.orbit_camera(math.radians(yaw), 0.0, fov_degrees=view)


@functools.lru_cache(maxsize=4)
def _weights(model, size: int):
    """Compiled: the sum of blending weights of each Gaussian (N,) in one picture."""

    def weights(params, avatar, motion, camera):
        gaussians = model.animate_folded(params, avatar, motion)

        def total(colors):
            painted = dataclasses.replace(gaussians, colors=colors)
            return rendering.render(painted, camera, image_size=(size, size)).image[..., 0].sum()

        return jax.grad(total)(gaussians.colors)[:, 0]

    return jax.jit(weights)


def main(argv: list[str]) -> None:
    """Measures, prints a table and writes it as JSON."""
    from instant_gs import inference, output
    from instant_gs.inference import source

    values = flags.FLAGS
    if len(argv) > 1:
        raise cli.UserError(f"{argv[1]}: not expected; every option has a flag (--help)", 2)
    if not values.source:
        raise cli.UserError("--source is missing; give a photo of one face (--help)", 2)
    if values.out:
        output.check_free(values.out, overwrite=False, option="--out")
    counts = sorted({_count(text) for text in values.levels})
    engine = inference.load(values.weights)
    photo = source.read(
        values.source,
        engine.image_size,
        aligned=values.source_aligned,
        fov_degrees=engine.config.model.fov_degrees,
    ).image
    code = engine.motion_code(photo)
    ordered = order(engine, engine.encode(photo, code), code)
    levels = report(engine, ordered, code, counts=counts)
    print("Gaussians  mean error  worst error  PSNR      (error in steps of 8 bits)")
    for level in levels:
        print(
            f"{level.count:9d}  {level.mean_error:10.3f}  {level.worst_error:11.3f}  "
            f"{level.psnr:5.1f} dB"
        )
    if values.out:
        rows = [dataclasses.asdict(level) for level in levels]
        rows[-1]["psnr"] = None  # JSON knows no infinity
        with output.whole_file(values.out) as temporary:
            temporary.write_text(json.dumps({"levels": rows}, indent=2) + "\n", encoding="utf-8")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise cli.UserError(f"--levels: expected numbers of Gaussians, got {text!r}", 2)
    return int(text)


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Photo of one face.")
    flags.DEFINE_boolean("source_aligned", False, "The photo is a wide crop.")
    flags.DEFINE_string("weights", None, "Folder of weights; default: those that ship.")
    flags.DEFINE_list("levels", [str(count) for count in LEVELS], "Prefixes to measure.")
    flags.DEFINE_string("out", None, "JSON file to write, too.")
    cli.run(main)
