"""What is performed: smooth tracks through the 52 coefficients, the same for every identity.

A track is a chain of key poses; between them it eases in and out. Frames are spread over the whole
track, so a few frames already show strong and different expressions.
"""

import dataclasses

import numpy as np

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import action

KEY_POSES = 6
_INDEX = {name: row for row, name in enumerate(pack_format.COEFFICIENT_NAMES)}

#: Kinds in the order of the bank; after them come mixtures.
KINDS = tuple(action.NAMED)


@dataclasses.dataclass(frozen=True)
class Performance:
    """One named track.

    Attributes:
        name: Unique for its seed and number, the same for every identity.
        keys: (K, 52) key poses; the first is almost neutral.
    """

    name: str
    keys: np.ndarray

    def frames(self, count):
        """(count, 52) float32 coefficients spread over the track."""
        # Half a step in from the end: the last frame of a short clip still differs from the first.
        at = (np.arange(count) + 0.35) / count * (len(self.keys) - 1)
        low = np.minimum(at.astype(int), len(self.keys) - 2)
        t = at - low
        ease = (t * t * (3 - 2 * t))[:, None]
        mixed = self.keys[low] * (1 - ease) + self.keys[low + 1] * ease
        return np.clip(mixed, 0, 1).astype(np.float32)


def pose(**values):
    """(52,) coefficients by name; a name without its side sets both.

    Raises:
        ValueError: A name is none of the 52.
    """
    result = np.zeros(len(_INDEX), np.float32)
    for name, value in values.items():
        names = [name] if name in _INDEX else [name + side for side in action.SIDES]
        if names[0] not in _INDEX:
            raise ValueError(
                f"pose: expected an ARKit coefficient name, got {name!r}; see "
                "data.format.COEFFICIENT_NAMES"
            )
        for each in names:
            result[_INDEX[each]] = value
    return result


def _resolve(values):
    """Takes back what contradicts itself, as a face would."""
    open_jaw = values.get("jawOpen", 0)
    for side in action.SIDES:
        blink = values.get("eyeBlink" + side, 0)
        for name in ("eyeWide", "eyeSquint"):
            if name + side in values:
                values[name + side] *= 1 - blink
        values.pop("eyeLookUp" + side, 0) if blink > 0.6 else None
        if "browOuterUp" + side in values and "browDown" + side in values:
            values["browDown" + side] *= 0.2
        if "mouthSmile" + side in values and "mouthFrown" + side in values:
            values["mouthFrown" + side] *= 0.2
        if "mouthPress" + side in values:
            values["mouthPress" + side] *= 1 - open_jaw
    for name in ("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "cheekPuff"):
        if name in values:
            values[name] *= 1 - 0.7 * open_jaw
    if values.get("mouthPucker", 0) > 0.2 and values.get("mouthFunnel", 0) > 0.2:
        values["mouthFunnel"] *= 0.5
    if "tongueOut" in values:
        # A tongue needs a gap to pass.
        values["jawOpen"] = max(open_jaw, 0.3)
        values["tongueOut"] = min(1.0, values["tongueOut"])
    return values


def _key(kind, rng):
    strength = rng.uniform(0.65, 1.0)
    named = action.NAMED.get(kind)
    values = named(rng, strength) if named else action.mixture(rng)
    quiet = kind in ("neutral",)
    share = 0.4 if quiet else 1.0
    # What eyes and brows do besides; it belongs to the expression, too.
    for chance, habit in (
        (0.35, lambda: action.gaze(rng, 0.7)),
        (0.18, lambda: action.sided(rng, "eyeBlink", rng.uniform(0.5, 1.0), 1.0)),
        (0.25, lambda: {"browInnerUp": rng.uniform(0.2, 0.8)}),
        (0.2, lambda: action.sided(rng, "browDown", rng.uniform(0.2, 0.8))),
        (0.15, lambda: {"jawOpen": rng.uniform(0.1, 0.4)}),
    ):
        if rng.random() < chance * share:
            for name, value in habit().items():
                values.setdefault(name, float(value))
    return pose(**_resolve(values))


def make(seed, number):
    """The performance with this number in the bank of this seed.

    Args:
        seed: Performance seed.
        number: 0, 1, ...; the first are the named kinds, in the order of `KINDS`, then mixtures.

    Returns:
        Performance.
    """
    rng = np.random.default_rng([0x5EED, seed, number])
    kind = KINDS[number] if number < len(KINDS) else "mixture"
    keys = np.stack([_key(kind, rng) for _ in range(KEY_POSES)])
    keys[0] *= 0.12
    return Performance(f"{kind}-s{seed:04d}-{number:03d}", keys)


def choose(seed, index, bank, count):
    """Numbers of the performances of one identity, every number of the bank equally often.

    Args:
        seed, index: The identity.
        bank: Size of the bank.
        count: How many this identity performs, at most `bank`.

    Returns:
        Sorted list of `count` different numbers.
    """
    round_of, place = divmod(index * count, bank)
    order = np.random.default_rng([0xBA2C, seed, round_of]).permutation(bank)
    following = np.random.default_rng([0xBA2C, seed, round_of + 1]).permutation(bank)
    chosen = list(order[place : place + count])
    for number in following:
        if len(chosen) == count:
            break
        if number not in chosen:
            chosen.append(number)
    return sorted(int(number) for number in chosen)
