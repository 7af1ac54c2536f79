"""Evaluation pairs: fixed lists of (source, driver, target) that every evaluation sees alike.

for pair in evaluation_pairs(pack, "test", kind="cross", limit=64):
    source = pack.read(pair.source)
    driver = pack.read(pair.driver)
    truth = pack.read(pair.target)  # the source's identity with the driver's expression
"""

from dataclasses import dataclass

import numpy as np

from instant_gs.data import digest, sampler
from instant_gs.data.error import PackError
from instant_gs.data.reader import Pack

KINDS = ("self", "cross")

# How often a source that shows the target's very expression is drawn again.
_SOURCE_TRIES = 8


@dataclass(frozen=True)
class EvaluationPair:
    """One test case; all three are record numbers for `Pack.read`.

    Attributes:
      source: the photo that becomes the avatar.
      driver: the image whose expression it takes on.
      target: the true image of the result, whose camera is the camera to render with; None where
        the pack has none, then render with the source's camera.
    """

    source: int
    driver: int
    target: int | None


def evaluation_pairs(
    pack: Pack, split: str, *, kind: str, limit: int = 64, seed: int = 0
) -> list[EvaluationPair]:
    """Draws the evaluation pairs of a pack.

    "self": the target is another frame of the source's identity, the driver the same frame from
    another viewpoint (the target itself where one camera alone saw it). "cross": the driver is
    another identity of the split, the target the source's identity at the same frame of the same
    performance. Identities that share no performance with another are sources only if all are so;
    their targets are None.

    Args:
      pack: an open pack.
      split: "train", "validation", "test" or "all".
      kind: "self" or "cross".
      limit: number of pairs; the identities take turns as source.
      seed: another seed, other pairs.

    Returns:
      `limit` pairs; for equal arguments and pack always the same, and a smaller limit is a prefix.

    Raises:
      PackError: the split has no identity with a known camera and two frames, or, for "cross",
        fewer than two identities.
      ValueError: unknown kind or split, or limit below 1.
    """
    digest.check_split(split)
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; got {kind!r}")
    if limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")
    table = sampler.SampleTable([pack], split)
    identities = len(table.identities)
    if kind == "cross" and identities < 2:
        raise PackError(
            f"{pack.path}: cross-reenactment needs two identities in split {split!r}, it has"
            f" {identities}; add identities or choose another split"
        )
    sources = list(range(identities))
    if kind == "cross":  # Where somebody has a true image, only those with one are sources.
        sources = [one for one in sources if _shared(table, one)] or sources
    order = np.random.default_rng([seed, 0]).permutation(sources)
    draw = _draw_self if kind == "self" else _draw_cross
    return [
        draw(table, int(order[number % len(order)]), np.random.default_rng([seed, 1, number]))
        for number in range(limit)
    ]


def _shared(table: sampler.SampleTable, identity: int) -> list[int]:
    """The identity's performances that somebody else performs, too."""
    own = table.by_identity[identity]
    return [one for one in own if len(table.by_key[table.performances[one].key]) > 1]


def _draw_self(
    table: sampler.SampleTable, identity: int, rng: np.random.Generator
) -> EvaluationPair:
    performance = _choose(table, table.by_identity[identity], rng)
    frame = int(rng.integers(performance.frames))
    views = len(performance.firsts)
    target, driver = rng.choice(views, 2, replace=False) if views > 1 else (0, 0)
    return EvaluationPair(
        source=_draw_source(table, identity, performance, frame, rng),
        driver=performance.firsts[driver] + frame,
        target=performance.firsts[target] + frame,
    )


def _draw_cross(
    table: sampler.SampleTable, identity: int, rng: np.random.Generator
) -> EvaluationPair:
    """Prefers a performance that somebody else performs, too: then the truth is known."""
    own = table.by_identity[identity]
    shared = _shared(table, identity)
    if not shared:
        other = (identity + 1 + int(rng.integers(len(table.identities) - 1))) % len(
            table.identities
        )
        driving = _choose(table, table.by_identity[other], rng)
        frame = int(rng.integers(driving.frames))
        source = _draw_source(table, identity, None, frame, rng)
        return EvaluationPair(source, _choose_view(driving, rng) + frame, None)
    performance = _choose(table, shared, rng)
    others = [one for one in table.by_key[performance.key] if one not in own]
    frame = int(rng.integers(performance.frames))
    return EvaluationPair(
        source=_draw_source(table, identity, performance, frame, rng),
        driver=_choose_view(_choose(table, others, rng), rng) + frame,
        target=_choose_view(performance, rng) + frame,
    )


def _draw_source(
    table: sampler.SampleTable,
    identity: int,
    target: sampler.Performance | None,
    target_frame: int,
    rng: np.random.Generator,
) -> int:
    """A record of the identity that, if it can be, does not show the target's expression."""
    for _ in range(_SOURCE_TRIES):
        performance = _choose(table, table.by_identity[identity], rng)
        frame = int(rng.integers(performance.frames))
        if performance is not target or frame != target_frame:
            break
    return _choose_view(performance, rng) + frame


def _choose(
    table: sampler.SampleTable, numbers: list[int], rng: np.random.Generator
) -> sampler.Performance:
    return table.performances[numbers[int(rng.integers(len(numbers)))]]


def _choose_view(performance: sampler.Performance, rng: np.random.Generator) -> int:
    return performance.firsts[int(rng.integers(len(performance.firsts)))]
