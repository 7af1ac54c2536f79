"""Chooses which records make a training sample: an index-based, seeded plan without any state."""

import bisect
import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instant_gs.data import digest
from instant_gs.data.error import PackError
from instant_gs.data.pack_use import PackUse
from instant_gs.data.reader import Pack, PackedClip

# A person seen once has no other frame that could be a target.
_MIN_RECORDS = 2


@dataclass(frozen=True)
class Performance:
    """One performance of one identity, seen by at least one known camera.

    Attributes:
      identity: number of the identity in the table.
      key: number shared by all identities that perform the same, frame by frame.
      frames: number of frames.
      firsts: record of frame 0 in each view; frame f is f records later.
    """

    identity: int
    key: int
    frames: int
    firsts: tuple[int, ...]


class SampleTable:
    """Everything that sampling can use of some packs and a split.

    Records of several packs are numbered one pack after the other. The same identity name in two
    packs counts as two identities; performances are shared within a pack only, because two packs
    may use one name for different things.

    Attributes:
      identities: (pack number, identity name) of each identity with a usable performance.
      performances: all usable performances.
      by_identity: for each identity, the numbers of its performances.
      by_key: for each key, the numbers of the performances that share it.
      uses: for each pack, what is used of it and what is left out.
      without_coefficients: usable clips whose coefficients nobody gave.
    """

    def __init__(self, packs: Sequence[Pack], split: str):
        """Collects the usable performances.

        Raises:
          PackError: there is none.
          ValueError: no such split.
        """
        digest.check_split(split)
        self.identities: list[tuple[int, str]] = []
        self.performances: list[Performance] = []
        self.by_identity: list[list[int]] = []
        self.by_key: list[list[int]] = []
        self.uses: list[PackUse] = []
        self.without_coefficients = 0
        self._keys: dict[tuple, int] = {}
        offset = 0
        for number, pack in enumerate(packs):
            self._add_pack(number, pack, split, offset)
            offset += len(pack)
        if not self.performances:
            have = sum(len(pack.identities(split)) for pack in packs)
            raise PackError(
                f"{', '.join(str(pack.path) for pack in packs)}: nothing to sample in split"
                f" {split!r}: {have} identities,"
                f" {sum(use.unknown_cameras for use in self.uses)} clips without a camera,"
                f" {sum(use.lone_frames for use in self.uses)} identities with a single frame;"
                " sampling needs a known camera and two frames of an identity: add identities or"
                " choose another split"
            )
        counts = [len(one.firsts) * one.frames for one in self.performances]
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        """Number of records that can be a source."""
        return self._ends[-1]

    def source(self, index: int) -> tuple[int, int, int]:
        """The performance, view and frame of the source number `index`."""
        number = bisect.bisect_right(self._ends, index)
        performance = self.performances[number]
        start = self._ends[number] - len(performance.firsts) * performance.frames
        view, frame = divmod(index - start, performance.frames)
        return number, view, frame

    def _add_pack(self, number: int, pack: Pack, split: str, offset: int) -> None:
        clips_of: dict[str, list[PackedClip]] = collections.defaultdict(list)
        for clip in pack.clips:
            clips_of[clip.identity].append(clip)
        names = pack.identities(split)
        clips, used, people, lone, unknown, single = [], [], 0, 0, 0, 0
        for name in names:
            groups: dict[tuple, list[int]] = collections.defaultdict(list)
            known = [clip for clip in clips_of[name] if clip.camera_known]
            clips += clips_of[name]
            unknown += len(clips_of[name]) - len(known)
            if sum(clip.frames for clip in known) < _MIN_RECORDS:
                lone += bool(known)
                continue
            people += 1
            used += known
            for clip in known:
                key = (number, clip.performance, clip.frames, clip.track)
                groups[key].append(offset + clip.first)
                self.without_coefficients += clip.track is None
            single += sum(len(firsts) == 1 for firsts in groups.values())
            self._add_identity(number, name, groups)
        self.uses.append(
            PackUse(
                path=str(pack.path),
                split=split,
                people=len(names),
                people_used=people,
                clips=len(clips),
                clips_used=len(used),
                records=sum(clip.frames for clip in clips),
                records_used=sum(clip.frames for clip in used),
                elsewhere=len(pack.attributes) - len(names),
                unknown_cameras=unknown,
                lone_frames=lone,
                single_views=single,
            )
        )

    def _add_identity(self, number: int, name: str, usable: dict[tuple, list[int]]) -> None:
        identity = len(self.identities)
        self.identities.append((number, name))
        self.by_identity.append([])
        for key, firsts in usable.items():
            key_number = self._keys.setdefault(key, len(self._keys))
            if key_number == len(self.by_key):
                self.by_key.append([])
            self.by_identity[identity].append(len(self.performances))
            self.by_key[key_number].append(len(self.performances))
            _, _, frames, _ = key
            self.performances.append(Performance(identity, key_number, frames, tuple(firsts)))


@dataclass(frozen=True)
class Planner:
    """Turns a source number and a random generator into the records of one training sample.

    Attributes:
      table: what can be sampled.
      driven_per_sample: D, driven targets of each sample.
      cross_identity: probability that another identity drives a target, where one can.
      same_expression: probability that a target shows the source's own expression.
    """

    table: SampleTable
    driven_per_sample: int
    cross_identity: float
    same_expression: float

    def plan(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """The records of a sample.

        Args:
          index: number of the source, 0 … len(table) - 1.
          rng: decides everything else.

        Returns:
          (2 + 2D,) int64: source, reconstruction, D targets, D drivers.
        """
        number, view, frame = self.table.source(index)
        source = self.table.performances[number]
        reconstruction = source.firsts[_another(view, len(source.firsts), rng)] + frame
        targets, drivers = zip(
            *(self._driven(number, frame, rng) for _ in range(self.driven_per_sample)), strict=True
        )
        return np.array([source.firsts[view] + frame, reconstruction, *targets, *drivers], np.int64)

    def _driven(self, number: int, frame: int, rng: np.random.Generator) -> tuple[int, int]:
        """A target of the source's identity, and a driver that performs it from elsewhere.

        Where one camera alone saw the performance, the target drives itself.
        """
        performance = self.table.performances[number]
        if rng.random() >= self.same_expression:
            performance = self.table.performances[
                _pick(self.table.by_identity[performance.identity], rng)
            ]
            frame = int(rng.integers(performance.frames))
        view = int(rng.integers(len(performance.firsts)))
        target = performance.firsts[view] + frame
        if rng.random() < self.cross_identity:
            other = self.other_identity(performance, rng)
            if other is not None:
                return target, _pick(other.firsts, rng) + frame
        driver_view = _another(view, len(performance.firsts), rng)
        return target, performance.firsts[driver_view] + frame

    def other_identity(
        self, performance: Performance, rng: np.random.Generator
    ) -> Performance | None:
        """The same performance by another identity, chosen evenly; None if nobody else has it."""
        shared = self.table.by_key[performance.key]
        others = len(shared) - 1  # An identity has a key at most once.
        if others < 1:
            return None
        choice = self.table.performances[shared[int(rng.integers(others))]]
        if choice.identity == performance.identity:
            # Drawn from all but the last: the last takes this one's place, so all are as likely.
            choice = self.table.performances[shared[-1]]
        return choice


def _pick(items: Sequence[int], rng: np.random.Generator) -> int:
    return items[int(rng.integers(len(items)))]


def _another(index: int, count: int, rng: np.random.Generator) -> int:
    """An index of `count` other than `index`, evenly; `index` itself where there is no other."""
    return (index + 1 + int(rng.integers(count - 1))) % count if count > 1 else index
