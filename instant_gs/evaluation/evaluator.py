"""Evaluates a model on a pack: every protocol, every score, speed, and pictures."""

import contextlib
import dataclasses
import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from instant_gs import cli, version
from instant_gs.data import framing, pair, reader
from instant_gs.data.error import PackError
from instant_gs.evaluation import picture, protocol, reenactment, score, speed, summary
from instant_gs.inference import avatar
from instant_gs.metrics import face, identity

FORMAT, FORMAT_VERSION = "instant_gs.evaluation", 1
# What a case is called worst by: the error that a viewer notices first.
WORST_BY = "error_eyes_mouth"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate.

    Attributes:
        split: "train", "validation", "test" or "all".
        protocols: Of ``protocol.PROTOCOLS``.
        limit: Cases a protocol.
        seed: Of the choice of cases.
        lpips_networks: Of ``losses.lpips.NETWORKS``.
        identity: Whether to embed faces (0.1 to 0.2 s each on a CPU core).
        speed: Whether to time the stages.
        shown: Rows of the contact sheet of each protocol.
        worst: Worst cases shown of each protocol.
        strips: Heads shown from several sides.
    """

    split: str = "test"
    protocols: tuple[str, ...] = protocol.PROTOCOLS
    limit: int = 64
    seed: int = 0
    lpips_networks: tuple[str, ...] = ("alexnet",)
    identity: bool = True
    speed: bool = True
    shown: int = 12
    worst: int = 4
    strips: int = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A picture of the report with its caption."""

    name: str
    scores: dict[str, float]
    image: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What the report is made of.

    Attributes:
        result: JSON-able: everything but the pictures.
        shown: Protocol -> rows of the contact sheet.
        worst: Protocol -> the worst rows, worst first.
        strips: Heads from several sides.
    """

    result: dict
    shown: dict[str, list[Row]]
    worst: dict[str, list[Row]]
    strips: list[Row]


def evaluate(
    animator: reenactment.Animator,
    pack: reader.Pack,
    options: Options,
    scorers: Sequence[Callable],
    *,
    about: dict | None = None,
    progress: Callable[[Iterable, str, int], Iterable] | None = None,
) -> Evaluation:
    """Evaluates a model.

    Args:
        animator: The model, e.g. ``instant_gs.load(folder)``.
        pack: An open packed teacher pack.
        options: What to evaluate.
        scorers: Outcome -> variant -> scores; see ``default_scorers``.
        about: JSON-able facts of the weights that the result repeats.
        progress: Wraps the cases: (cases, protocol, number) -> cases; None shows nothing.

    Returns:
        Evaluation.

    Raises:
        ValueError, UserError, PackError: As ``check`` and ``check_model``, or the pack is broken.
        FloatingPointError: The model renders NaN.
    """
    check(pack, options)
    check_model(pack, animator)
    start = time.perf_counter()
    protocols, shown, worst, strips, first = {}, {}, {}, [], None
    for name in options.protocols:
        cases = protocol.cases(
            pack,
            options.split,
            name,
            image_size=animator.image_size,
            limit=options.limit,
            seed=options.seed,
        )
        if progress is not None:
            cases = progress(cases, name, options.limit)
        part = _Part(options)
        for case in cases:
            first = first or case
            outcome = reenactment.run(animator, case)
            part.add(outcome, _merge(scorer(outcome) for scorer in scorers))
            if len(strips) < options.strips:
                strips.append(_strip(animator, case))
        protocols[name] = part.result()
        shown[name], worst[name] = part.shown, part.worst()
    result = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "instant_gs": version.__version__,
        "weights": about or {},
        "pack": {"path": str(pack.path), "fingerprint": pack.fingerprint},
        "options": dataclasses.asdict(options),
        "image_size": animator.image_size,
        "protocols": protocols,
        "speed": speed.measure(animator, first) if options.speed else None,
        "seconds": time.perf_counter() - start,
    }
    return Evaluation(without_nan(result), shown, worst, strips)


def check(pack: reader.Pack, options: Options) -> None:
    """Refuses what cannot be evaluated, whatever the model, before it is loaded.

    Raises:
        ValueError: Wrong options.
        PackError: The pack cannot give the cases.
    """
    if not options.protocols or set(options.protocols) - set(protocol.PROTOCOLS):
        raise ValueError(
            f"protocols: expected some of {', '.join(protocol.PROTOCOLS)}, got "
            f"{', '.join(options.protocols) or 'none'}"
        )
    if options.limit < 1:
        raise ValueError(f"limit: expected at least 1 case, got {options.limit}")
    for name in options.protocols:
        try:
            pair.evaluation_pairs(pack, options.split, kind=name, limit=1)
        except PackError as error:
            if name == "cross" and _gives_self(pack, options.split):
                raise PackError(f"{error}, or --protocol=self") from error
            raise


def _gives_self(pack: reader.Pack, split: str) -> bool:
    """Whether self-reenactment works where cross-reenactment does not: one person is enough."""
    try:
        pair.evaluation_pairs(pack, split, kind="self", limit=1)
    except PackError:
        return False
    return True


def check_model(pack: reader.Pack, animator: reenactment.Animator) -> None:
    """Refuses a pack that does not fit the model, before the scorers' networks are loaded.

    Raises:
        ValueError: The pack's frames are smaller than the model's pictures.
        UserError: The pack shows another view than the model's.
    """
    size = animator.image_size
    if size > min(pack.image_size):
        raise ValueError(
            f"{pack.path}: its frames are {pack.image_size}, smaller than the pictures that are "
            f"scored, {size}x{size}; render and pack at --image_size={size}, or take weights of "
            "smaller pictures"
        )
    framing.check([pack], animator.fov_degrees)


def describe(model: avatar.InstantAvatar, weights: str | None) -> dict:
    """What a report says of the weights: ``evaluate``'s ``about``.

    Args:
        model: Loaded from them.
        weights: The folder or name that they were loaded by; None for those that ship.
    """
    return {
        "weights": weights or avatar.SHIPPED_WEIGHTS.name,
        "config": model.config.name,
        "culling": model.culling,
        "side of the model's photos": model.image_size,
        # Of a run they are the newest step's, and the commit is the one that the run began with.
        **{key: model.provenance.get(key, "unknown") for key in ("step", "commit")},
    }


@contextlib.contextmanager
def default_scorers(options: Options):
    """The scorers of ``options``; their networks are freed when the block ends.

    Raises:
        cli.UserError: A package is missing; says which command helps.
        FileNotFoundError: LPIPS' weights are missing.
    """
    try:
        landmarker = face.FaceLandmarker()
        embedder = identity.IdentityEmbedder() if options.identity else None
    except ImportError as error:
        raise cli.UserError(str(error)) from error
    try:
        yield [score.ImageScorer(options.lpips_networks), score.FaceScorer(landmarker, embedder)]
    finally:
        landmarker.close()


def without_nan(value):
    """NaN becomes None, everywhere: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class _Part:
    """Collects one protocol; keeps only the pictures that will be shown."""

    def __init__(self, options: Options):
        self._options, self._cases, self._heap = options, [], []
        self._people: set[str] = set()
        self.shown: list[Row] = []

    def add(self, outcome: reenactment.Outcome, scores: dict[str, dict[str, float]]) -> None:
        number = len(self._cases)
        self._people.add(outcome.case.person)
        self._cases.append({"name": outcome.case.name, **scores})
        row = Row(outcome.case.name, scores["moved"], picture.row(outcome))
        if number < self._options.shown:
            self.shown.append(row)
        badness = scores["moved"].get(WORST_BY, math.nan)
        if scores["moved"].get("face_found") == 0:
            badness = math.inf
        if not math.isnan(badness):
            heapq.heappush(self._heap, (badness, number, row))
            if len(self._heap) > self._options.worst:
                heapq.heappop(self._heap)

    def worst(self) -> list[Row]:
        return [row for _, _, row in sorted(self._heap, key=lambda item: -item[0])]

    def result(self) -> dict:
        counts = {
            "distinct": len({case["name"] for case in self._cases}),
            "people": len(self._people),
        }
        return {**summary.summarise(self._cases), **counts, "cases": self._cases}


def _strip(animator: reenactment.Animator, case: protocol.Case) -> Row:
    cameras = picture.strip_cameras(case.camera.intrinsics)
    views = reenactment.turntable(animator, case, cameras)
    return Row(case.name, {}, picture.strip(views))


def _merge(parts: Iterable[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    merged: dict[str, dict[str, float]] = {variant: {} for variant in score.VARIANTS}
    for part in parts:
        for variant, scores in part.items():
            merged[variant] |= scores
    return merged
