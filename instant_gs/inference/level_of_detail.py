"""Levels of detail: Gaussians in an order of which any prefix is an avatar, only coarser.

    python -m instant_gs.inference.level_of_detail --source=photo.png --out=levels.json

A Gaussian's importance is the largest sum of blending weights that it has in any picture of a small
set: the avatar under a bank of drivers (``motion_bank``), seen from a few sides. That sum is the
derivative of the summed picture by the Gaussian's colour, so one backward pass measures all of
them. The largest and not the mean: teeth are worth what they are worth while the mouth is open.

The largest alone would leave the eyes empty, which many small ones draw. So a prefix is a
stratified sample: along a space-filling curve through the head, every stretch of the same
importance gets the same number of Gaussians. Importance is an area in pixels: what is covered and
not hidden. What a prefix leaves out hands its area to its nearest neighbour there, and scales grow
by the root of the ratio of areas: holes close, and nothing grows where little is missing.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator

import jax
import numpy as np
import scipy.spatial
from absl import flags

from instant_gs import cli, rendering, types
from instant_gs.geometry import camera as camera_lib

#: Gaussians: a phone's browser, what the release's filter leaves of a photo, a laptop's GPU.
LEVELS = (5_000, 29_000, 80_000)

#: Where the avatar is looked at from, degrees.
YAWS_DEGREES = (-30.0, 0.0, 30.0)

#: Neighbours over which areas are added up: that of a single Gaussian says little about its size.
_NEIGHBOURS = 8

#: Cells along an axis of the space-filling curve: 2 to the power of it.
_CURVE_BITS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Ordered:
    """An avatar's Gaussians, in the order in which they are worth having; take a ``prefix``.

    Attributes:
        avatar: All of them, those that are not kept last.
        importance: (N,) float32, pixels at the size that ``order`` looked at.
        means: (N, 3) float32 centres at rest, world units.
    """

    avatar: types.Avatar
    importance: np.ndarray
    means: np.ndarray


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


def order(engine, avatar: types.Avatar, code_source, *, progress=iter) -> Ordered:
    """Sorts an avatar's Gaussians; those that are not kept come last.

    Args:
        engine: ``avatar.InstantAvatar``.
        avatar: From ``encode``, one item.
        code_source: (C,) motion code of the photo.
        progress: Called with the list of pictures, iterates over it; such as ``tqdm.tqdm``.

    Returns:
        Ordered; its avatar is animated and rendered as before, up to rounding.
    """
    measure, folded = _weights(engine.model, engine.image_size), engine.fold(avatar)
    importance = np.zeros(avatar.keep.shape, np.float32)
    for motion, camera in progress(list(_pictures(engine, code_source))):
        seen = np.asarray(measure(engine.params, folded, motion, camera))
        importance = np.maximum(importance, seen)
    means = np.asarray(engine.rest(avatar).means)
    ranks = _ranks(np.where(avatar.keep, importance, -1.0), means)
    avatar = jax.tree.map(lambda leaf: leaf[ranks], avatar)
    return Ordered(avatar, importance[ranks], means[ranks])


def prefix(ordered: Ordered, count: int) -> types.Avatar:
    """The first ``count`` Gaussians, widened to stand in for the others.

    Raises:
        ValueError: There are fewer, or the count is not positive.
    """
    total = len(ordered.importance)
    if not 0 < count <= total:
        raise ValueError(f"count: expected 1 to {total}, the avatar's Gaussians, got {count}")
    if count == total:
        return ordered.avatar
    part = jax.tree.map(lambda leaf: leaf[:count], ordered.avatar)
    own, others = np.split(ordered.importance, [count])
    tree = scipy.spatial.cKDTree(ordered.means[:count])
    area = own + np.bincount(tree.query(ordered.means[count:])[1], others, count)
    around = tree.query(ordered.means[:count], range(1, min(_NEIGHBOURS, count) + 1))[1]
    own, area = own[around].sum(1), area[around].sum(1)
    widths = np.sqrt(np.divide(area, own, out=np.ones(count), where=own > 0))
    return dataclasses.replace(part, widths=widths.astype(np.float32))


def report(engine, ordered: Ordered, code_source, *, counts=LEVELS, progress=iter) -> list[Level]:
    """The image error of prefixes against all Gaussians, over the bank and all sides.

    Args:
        engine: ``avatar.InstantAvatar``.
        ordered: From ``order``.
        code_source: (C,) motion code of the photo.
        counts: Lengths of prefixes; those that there are not are left out.
        progress: As for ``order``, called once a prefix.

    Returns:
        Levels, the smallest first; the last holds all Gaussians.
    """
    total = len(ordered.importance)
    pictures = list(_pictures(engine, code_source))

    def draw(count):
        part = engine.fold(prefix(ordered, count))
        for motion, camera in progress(pictures):
            drawn = engine.frame(part, motion, camera, engine.image_size)
            yield np.asarray(drawn.image, np.float32)

    truth = np.stack(list(draw(total)))
    levels = []
    for count in [*sorted(count for count in counts if count < total), total]:
        difference = np.stack(list(draw(count))) - truth
        errors = np.abs(difference).mean((1, 2, 3))
        square = float(np.square(difference).mean())
        psnr = 10 * math.log10(255**2 / square) if square > 0 else math.inf
        levels.append(Level(count, float(errors.mean()), float(errors.max()), psnr))
    return levels


def _ranks(importance: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(N,) indices, stratified; what the sample misses follows by importance, negative ones last.

    Samples are the importance-weighted places of a van der Corput sequence along Morton's curve.
    """
    extent = max(float(np.ptp(means, axis=0).max()), 1e-9)
    cells = ((means - means.min(0)) / extent * (2**_CURVE_BITS - 1)).astype(np.int64)
    bits = (cells[:, None, :] >> np.arange(_CURVE_BITS)[:, None]) & 1  # (N, bits, 3)
    curve = np.argsort((bits.reshape(len(bits), -1) << np.arange(3 * _CURVE_BITS)).sum(1))
    along = np.cumsum(np.maximum(importance[curve], 0), dtype=np.float64)
    depth = 2 + math.ceil(math.log2(len(along)))  # several samples a Gaussian
    places = np.zeros(1)
    for bit in range(depth):
        places = np.concatenate([places, places + 0.5 ** (bit + 1)])
    index = np.searchsorted(along, places * along[-1], side="right")
    hits = curve[index[index < len(curve)]]  # none where nothing is important
    _, first = np.unique(hits, return_index=True)
    sample = hits[np.sort(first)]
    others = np.setdiff1d(np.arange(len(curve)), sample)
    return np.concatenate([sample, others[np.argsort(-importance[others], kind="stable")]])


def _pictures(engine, code_source) -> Iterator[tuple[types.Motion, types.Camera]]:
    """What is looked at: the photo's own expression and the bank's, each from all sides."""
    codes = [code_source, *engine.bank]
    view = engine.fov_degrees
    for code in codes:
        motion = engine.motion(code_source, code)
        for yaw in YAWS_DEGREES:
            yield motion, camera_lib.orbit_camera(math.radians(yaw), 0.0, fov_degrees=view)


@functools.lru_cache(maxsize=4)
def _weights(model, size: int):
    """Compiled: the sum of blending weights of each Gaussian (N,) in one picture."""

    options = model.raster_options(size)

    def weights(params, avatar, motion, camera):
        gaussians = model.animate_folded(params, avatar, motion)

        def total(colors):
            painted = dataclasses.replace(gaussians, colors=colors)
            drawn = rendering.render(painted, camera, image_size=(size, size), options=options)
            return drawn.image[..., 0].sum()

        return jax.grad(total)(gaussians.colors)[:, 0]

    return jax.jit(weights)


def main(argv: list[str]) -> None:
    """Measures, prints a table and writes it as JSON."""
    del argv
    from tqdm import tqdm

    from instant_gs import output
    from instant_gs.inference import avatar, reader, source

    values = flags.FLAGS
    if not values.source:
        raise cli.UserError("--source is missing; give a photo of one face (--help)", 2)
    if values.out:
        output.check_free(values.out, overwrite=False, option="--out")
    counts = sorted({_count(text) for text in values.levels})
    engine = avatar.load(values.weights)
    photo = source.read(
        values.source,
        engine.image_size,
        aligned=values.source_aligned,
        fov_degrees=engine.fov_degrees,
    )
    known = photo.coefficients is not None
    code = reader.Reader(engine, known=known).code(photo.face)
    show = functools.partial(tqdm, unit="picture", leave=False)
    ordered = order(engine, engine.encode(photo.image, code), code, progress=show)
    levels = report(engine, ordered, code, counts=counts, progress=show)
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
    flags.DEFINE_string("weights", None, "Folder of weights, or demo; default: small, which ships.")
    flags.DEFINE_list("levels", [str(count) for count in LEVELS], "Prefixes to measure.")
    flags.DEFINE_string("out", None, "JSON file to write, too.")
    cli.run(main)
