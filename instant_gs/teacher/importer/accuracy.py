"""Measures the importer where the truth is known: on heads that the procedural teacher draws.

    python -m instant_gs.teacher.importer.accuracy --identities=5

Draws people with expressions before a patterned wall, under cameras anywhere within ±45 degrees of
azimuth, ±15 of elevation and ±10 of roll, imports every picture and compares camera, crop, alpha
and regions with those of the drawing. Takes about a second a picture on one CPU core.
"""

import collections
import dataclasses
import math

import cv2
import numpy as np
from absl import flags

from instant_gs import cli
from instant_gs.data import format as pack_format
from instant_gs.geometry import camera
from instant_gs.portrait import alignment, detection
from instant_gs.teacher.importer import frame
from instant_gs.teacher.procedural import performance, scene

MAX_YAW, MAX_PITCH, MAX_ROLL = (math.radians(d) for d in (45, 15, 10))
SIDE = 320  # of the pictures, pixels
IMPORTED = 256  # side of what the importer makes of them


@dataclasses.dataclass(frozen=True)
class Shot:
    """A drawn picture and its truth.

    Attributes:
        picture: (SIDE, SIDE, 3) uint8, the person before a wall.
        alpha: (SIDE, SIDE) uint8. regions: (SIDE, SIDE) uint8.
        angles: Yaw, pitch and roll of the camera, radians.
    """

    picture: np.ndarray
    alpha: np.ndarray
    regions: np.ndarray
    angles: tuple[float, float, float]


def draw(seed: int, identities: int, views: int):
    """Yields `views` shots of each of the pack seed's first identities, each another expression."""
    random = np.random.default_rng(seed)
    lens = camera.intrinsics()
    for index in range(identities):
        who = scene.person(seed, index)
        for _ in range(views):
            act = performance.make(seed, int(random.integers(len(performance.KINDS))))
            moved = scene.frame(who, act.frames(3)[1])
            angles = tuple(float(random.uniform(-m, m)) for m in (MAX_YAW, MAX_PITCH, MAX_ROLL))
            pose = camera.look_at(angles[0], angles[1], roll_rad=angles[2])
            shot = scene.picture(who, moved, pose, lens, (SIDE, SIDE))
            share = shot.alpha[..., None] / 255.0
            wall = _wall(random)
            picture = np.round(shot.image + (1 - share) * wall).clip(0, 255).astype(np.uint8)
            yield Shot(picture, shot.alpha, shot.regions, angles)


def _wall(random: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) a soft pattern of greys with a touch of colour, like a room out of focus."""
    grey = random.uniform(50, 210, (4, 4, 1)) + random.uniform(-20, 20, (4, 4, 3))
    wall = cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return (wall + random.normal(0, 3, wall.shape)).clip(0, 255)


def compare(shot: Shot, taken: frame.Taken) -> dict[str, float]:
    """Errors of one imported picture; degrees, and shares of the true crop's side.

    `view` is the angle between the true and the found direction to the camera, `alpha` the mean
    difference of coverage, `iou_*` the overlap of regions with the true ones (1 is perfect).
    """
    crop = taken.crop
    found = taken.cam2world
    true = camera.look_at(*shot.angles[:2])
    cosine = float(found[:3, 2] @ true[:3, 2])
    yaw, pitch, roll = (
        math.degrees(a - b) for a, b in zip(crop.viewpoint(), shot.angles, strict=True)
    )
    side = shot.picture.shape[0]
    alpha = alignment.warp(shot.alpha, crop, taken.alpha.shape[0])
    errors = {
        "view": math.degrees(math.acos(min(1.0, cosine))),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "centre": math.hypot(crop.x - side / 2, crop.y - side / 2) / side,
        "size": crop.side / side - 1,
        "alpha": float(np.abs(alpha.astype(float) - taken.alpha).mean() / 255),
    }
    for name in ("eyes", "mouth", "brows"):
        wanted = pack_format.REGIONS.index(name)
        mask = alignment.warp((shot.regions == wanted).astype(np.uint8) * 255, crop, len(alpha))
        true_mask, mask = mask > 127, taken.regions == wanted
        union = int((true_mask | mask).sum())
        if union:
            errors[f"iou_{name}"] = float((true_mask & mask).sum()) / union
    return errors


def report(rows: list[dict[str, float]]) -> list[str]:
    """Lines: median and largest error, and the mean with its sign."""
    columns = collections.defaultdict(list)
    for row in rows:
        for name, value in row.items():
            columns[name].append(value)
    lines = [f"{'':10} {'median':>8} {'worst':>8} {'mean':>8}"]
    for name, values in columns.items():
        sizes = np.abs(values)
        worst = sizes.min() if name.startswith("iou") else sizes.max()
        lines.append(f"{name:10} {np.median(sizes):8.3f} {worst:8.3f} {np.mean(values):+8.3f}")
    return lines


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    from instant_gs.metrics import face

    values = flags.FLAGS
    detector = face.FaceLandmarker()
    rows, refused = [], collections.Counter()
    for shot in draw(values.seed, values.identities, values.views):
        try:
            found = detection.find_face(detector, shot.picture)
            rows.append(compare(shot, frame.take(shot.picture, found, IMPORTED)))
        except frame.RefusedError as error:
            refused[str(error)] += 1
    if not rows:
        raise cli.UserError("no picture could be imported")
    print(f"{len(rows)} pictures imported, {refused.total()} refused; degrees, shares of the side")
    print("\n".join(report(rows)))
    for reason, count in refused.most_common():
        print(f"{count} x {reason}")


if __name__ == "__main__":
    flags.DEFINE_integer("identities", 5, "Heads to draw.", lower_bound=1)
    flags.DEFINE_integer("views", 8, "Pictures of each.", lower_bound=1)
    flags.DEFINE_integer(
        "seed", 53, "Of heads, walls and cameras; not a training pack's.", lower_bound=0
    )
    cli.run(main)
