"""Measures ``template`` on the procedural teacher, where the true crop is known.

    python -m instant_gs.inference.calibration --identities=32

Renders heads under cameras all around, detects their landmarks, and finds the rigid points and the
origin for which ``alignment.locate`` answers "the whole picture". Prints the table of
``template.py`` and how far single heads are off. Takes 8 s a head on one CPU core.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from absl import flags

from instant_gs import cli
from instant_gs.geometry import camera
from instant_gs.portrait import alignment, detection, template

YAWS_DEGREES = (-40, -20, 0, 20, 40)
PITCHES_DEGREES = (-15, 0, 15)
EXPRESSIONS = ("jaw_open", "smile", "surprise", "blink")  # of the frontal view; not fitted
ROUNDS = 10  # of Procrustes analysis; five suffice


def observe(detector: detection.Detector, seed: int, identities: int, size: int) -> Iterator[tuple]:
    """Renders heads and detects their landmarks.

    Args:
        detector: Finds landmarks.
        seed: Of the teacher's heads.
        identities: How many heads.
        size: Side of the pictures.

    Yields:
        (identity, expression or "neutral", yaw and pitch in degrees, landmarks): the landmarks
        (478, 3) in units of the picture's side, zero at its centre, or None.
    """
    from instant_gs.teacher.procedural import performance, scene

    lens = camera.intrinsics()
    neutral = performance.pose()
    poses = {name: performance.KINDS.index(name) for name in EXPRESSIONS}
    views = list(itertools.product(YAWS_DEGREES, PITCHES_DEGREES))
    shots = [("neutral", neutral, views)]
    for name, number in poses.items():
        shots.append((name, performance.make(seed, number).keys[2], [(0, 0)]))
    for index in range(identities):
        who = scene.person(seed, index)
        for name, pose, angles in shots:
            moved = scene.frame(who, pose)
            for yaw, pitch in angles:
                view = camera.look_at(math.radians(yaw), math.radians(pitch))
                image = scene.picture(who, moved, view, lens, (size, size)).image
                found = detection.find_face(detector, image)
                points = None
                if found is not None:
                    points = np.asarray(found.landmarks, np.float64) / size - [0.5, 0.5, 0]
                yield index, name, yaw, pitch, points


def fit(shapes: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Finds rigid points that ``alignment.locate`` can use (generalised Procrustes analysis).

    Args:
        shapes: (M, K, 3) landmarks, order ``template.LANDMARKS``, in units of the picture's
            side, zero at its centre.
        rotations: (M, 3, 3) true rotations from head to picture axes.

    Returns:
        (K, 3) mirror-symmetric points. Their similarity to the shapes is on average: no shift in
        the picture, scale 1, the true rotation.
    """
    points = shapes[0]
    for _ in range(ROUNDS):
        fits = [alignment.similarity(points, shape) for shape in shapes]
        unposed = [
            (s - shift) @ turn / scale for s, (scale, turn, shift) in zip(shapes, fits, strict=True)
        ]
        points = np.mean(unposed, axis=0)
        points -= points.mean(0)
        points = _symmetric(points)
    fits = [alignment.similarity(points, shape) for shape in shapes]
    turns = np.stack([turn for _, turn, _ in fits])
    left, _, right = np.linalg.svd(np.mean(rotations.transpose(0, 2, 1) @ turns, axis=0))
    points = _symmetric(points @ (left @ right).T)
    # The origin o solves (shift + scale * turn @ o)[:2] = 0 for all pictures at once.
    fits = [alignment.similarity(points, shape) for shape in shapes]
    rows = np.concatenate([scale * turn[:2] for scale, turn, _ in fits])
    shifts = np.concatenate([shift[:2] for _, _, shift in fits])
    origin = np.linalg.lstsq(rows, -shifts, rcond=None)[0]
    origin[0] = 0.0  # heads are symmetric
    return (points - origin) * np.mean([scale for scale, _, _ in fits])


def _symmetric(points: np.ndarray) -> np.ndarray:
    order = [template.LANDMARKS.index(mark) for mark in template.MIRROR]
    return 0.5 * (points + points[order] * [-1, 1, 1])


def head_to_picture(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3) rotation from the head's axes (x right, y down, z away, in a frontal picture)."""
    pose = camera.look_at(math.radians(yaw), math.radians(pitch))
    return pose[:3, :3].T.astype(np.float64) @ np.diag([1.0, -1.0, -1.0])


def report(rows: list[tuple], points: np.ndarray) -> list[str]:
    """Lines: what ``locate`` answers for groups of pictures; mean and deviation, side 1."""
    groups = {
        f"yaw {yaw:+d}": lambda r, yaw=yaw: r[1:3] == ("neutral", yaw) for yaw in YAWS_DEGREES
    }
    for pitch in PITCHES_DEGREES:
        groups[f"pitch {pitch:+d}"] = lambda r, p=pitch: r[1] == "neutral" and r[3] == p
    for name in EXPRESSIONS:
        groups[name] = lambda r, name=name: r[1] == name
    lines = []
    for title, belongs in groups.items():
        found = [row[4][list(template.LANDMARKS)] for row in rows if belongs(row)]
        fits = [alignment.similarity(points, shape) for shape in found]
        answers = np.array([[shift[0], shift[1], scale] for scale, _, shift in fits])
        means, spreads = answers.mean(0), answers.std(0)
        texts = [f"{m:+.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True)]
        lines.append(f"{title:10} x {texts[0]}  y {texts[1]}  side {texts[2]}")
    return lines


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    from tqdm import tqdm

    from instant_gs.metrics import face

    views = len(YAWS_DEGREES) * len(PITCHES_DEGREES) + len(EXPRESSIONS)
    identities = flags.FLAGS.identities
    seen = observe(face.FaceLandmarker(), flags.FLAGS.seed, identities, flags.FLAGS.image_size)
    rows = list(tqdm(seen, total=identities * views, unit="view"))
    found = [row for row in rows if row[4] is not None]
    neutral = [row for row in found if row[1] == "neutral"]
    points = fit(
        np.stack([row[4][list(template.LANDMARKS)] for row in neutral]),
        np.stack([head_to_picture(row[2], row[3]) for row in neutral]),
    )
    for mark, (x, y, z) in zip(template.LANDMARKS, points, strict=True):
        print(f"    {mark}: ({x:.4f}, {y:.4f}, {z:.4f}),")
    print(f"{len(rows) - len(found)} of {len(rows)} pictures without a face")
    print("\n".join(report(found, points)))
    eyes = np.stack([row[4][list(face.PUPILS)] for row in neutral if row[2:4] == (0, 0)])
    gap = np.linalg.norm(eyes[:, 0, :2] - eyes[:, 1, :2], axis=-1)
    height = eyes[:, :, 1].mean(-1)
    print(f"pupils: {gap.mean():.4f} ± {gap.std():.4f} of the side apart in a frontal view,")
    print(f"their middle {height.mean():+.4f} ± {height.std():.4f} below the centre")


if __name__ == "__main__":
    flags.DEFINE_integer("identities", 32, "Heads to render.", lower_bound=2)
    flags.DEFINE_integer("seed", 31, "Of the heads; not a training pack's.", lower_bound=0)
    flags.DEFINE_integer("image_size", 320, "Side of the pictures in pixels.", lower_bound=128)
    cli.run(main)
