"""What is performed: smooth tracks through the 52 coefficients, the same for every identity.

A track is a chain of key poses; between them it eases in and out. Frames are spread over the whole
track, so a few frames already show strong and different expressions.
"""

import dataclasses

import numpy as np

from instant_gs.data import format as pack_format

KEY_POSES = 6
_INDEX = {name: row for row, name in enumerate(pack_format.COEFFICIENT_NAMES)}
_SIDES = ("Left", "Right")

#: Kinds in the order of the bank; after them come mixtures.
KINDS = (
    "neutral", "jaw_open", "smile", "blink", "surprise", "talk", "pucker", "gaze", "smile_teeth",
    "wink_left", "wink_right", "frown", "tongue_out", "smile_left", "smile_right", "funnel",
    "brow_raise", "cheek_puff", "sneer", "mouth_left", "mouth_right", "anger", "sad", "kiss_open",
)  # fmt: skip


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
        names = [name] if name in _INDEX else [name + side for side in _SIDES]
        if names[0] not in _INDEX:
            raise ValueError(
                f"pose: expected an ARKit coefficient name, got {name!r}; see "
                "data.format.COEFFICIENT_NAMES"
            )
        for each in names:
            result[_INDEX[each]] = value
    return result


def _sided(rng, name, value, tie=0.8):
    """A left-right pair: mostly tied, sometimes one-sided."""
    if rng.random() < tie:
        wobble = rng.uniform(0.85, 1.0, 2)
        return {name + side: value * w for side, w in zip(_SIDES, wobble, strict=True)}
    side = rng.integers(2)
    return {name + _SIDES[side]: value, name + _SIDES[1 - side]: value * rng.uniform(0, 0.3)}


def _gaze(rng, reach=1.0):
    """Both eyes look at one point."""
    across, up = rng.uniform(-1, 1) * reach, rng.uniform(-0.8, 0.8) * reach
    result = {}
    # Towards the person's left the left eye turns out and the right eye in.
    left, right = max(0.0, across), max(0.0, -across)
    result.update(eyeLookOutLeft=left, eyeLookInRight=left)
    result.update(eyeLookInLeft=right, eyeLookOutRight=right)
    result.update(eyeLookUpLeft=max(0, up), eyeLookUpRight=max(0, up))
    result.update(eyeLookDownLeft=max(0, -up), eyeLookDownRight=max(0, -up))
    return result


def _main_pose(kind, rng):
    """The part of a key pose that gives the performance its name."""
    s = rng.uniform(0.65, 1.0)
    u = rng.uniform
    if kind == "neutral":
        return {}
    if kind == "jaw_open":
        return {"jawOpen": u(0.5, 1.0)}
    if kind == "smile":
        return {**_sided(rng, "mouthSmile", s), **_sided(rng, "cheekSquint", 0.6 * s)}
    if kind == "smile_teeth":
        return {
            **_sided(rng, "mouthSmile", s, 0.95), **_sided(rng, "mouthUpperUp", u(0.4, 0.9), 0.95),
            **_sided(rng, "mouthLowerDown", u(0.2, 0.6), 0.95), "jawOpen": u(0.08, 0.4),
            **_sided(rng, "cheekSquint", 0.7 * s, 0.95),
        }  # fmt: skip
    if kind in ("smile_left", "smile_right"):
        side = "Left" if kind == "smile_left" else "Right"
        return {
            "mouthSmile" + side: s,
            "cheekSquint" + side: 0.6 * s,
            "mouthDimple" + side: u(0, 0.5),
        }
    if kind == "blink":
        closed = rng.random() < 0.65
        return _sided(rng, "eyeBlink", u(0.85, 1.0) if closed else u(0.2, 0.5), 1.0)
    if kind in ("wink_left", "wink_right"):
        side = "Left" if kind == "wink_left" else "Right"
        return {
            "eyeBlink" + side: u(0.85, 1.0),
            "cheekSquint" + side: u(0.3, 0.8),
            "mouthSmile" + side: u(0, 0.5),
            "browDown" + side: u(0, 0.4),
        }
    if kind == "surprise":
        return {
            **_sided(rng, "browOuterUp", s),
            "browInnerUp": s,
            **_sided(rng, "eyeWide", s),
            "jawOpen": u(0.3, 0.9),
        }
    if kind == "talk":
        choices = (
            {"jawOpen": u(0.25, 0.6), **_sided(rng, "mouthLowerDown", u(0.2, 0.6))},
            {"mouthFunnel": u(0.4, 0.9), "jawOpen": u(0.1, 0.35)},
            {"mouthPucker": u(0.4, 0.8), "jawOpen": u(0.05, 0.2)},
            {**_sided(rng, "mouthStretch", u(0.3, 0.8)), "jawOpen": u(0.1, 0.3)},
            {**_sided(rng, "mouthPress", u(0.4, 0.9))},
            {"mouthRollLower": u(0.4, 0.9), "mouthRollUpper": u(0.2, 0.6)},
        )
        return choices[rng.integers(len(choices))]
    if kind == "pucker":
        return {"mouthPucker": s}
    if kind == "kiss_open":
        return {"mouthPucker": u(0.4, 0.8), "mouthFunnel": u(0.3, 0.7), "jawOpen": u(0, 0.3)}
    if kind == "funnel":
        return {"mouthFunnel": s, "jawOpen": u(0.1, 0.5)}
    if kind == "gaze":
        return _gaze(rng, 1.1)
    if kind == "frown":
        return {
            **_sided(rng, "mouthFrown", s),
            **_sided(rng, "browDown", u(0.3, 1.0)),
            "mouthShrugLower": u(0, 0.6),
        }
    if kind == "sad":
        return {
            **_sided(rng, "mouthFrown", s),
            "browInnerUp": u(0.5, 1.0),
            **_sided(rng, "eyeBlink", u(0, 0.4), 1.0),
        }
    if kind == "anger":
        return {
            **_sided(rng, "browDown", s),
            **_sided(rng, "noseSneer", u(0.3, 0.9)),
            **_sided(rng, "eyeSquint", u(0.3, 0.9)),
            **_sided(rng, "mouthPress", u(0, 0.7)),
        }
    if kind == "tongue_out":
        return {"tongueOut": u(0.7, 1.0), "jawOpen": u(0.3, 0.8)}
    if kind == "brow_raise":
        return {**_sided(rng, "browOuterUp", s, 0.65), "browInnerUp": u(0.2, 1.0)}
    if kind == "cheek_puff":
        return {"cheekPuff": s, **_sided(rng, "mouthPress", u(0, 0.5))}
    if kind == "sneer":
        return {**_sided(rng, "noseSneer", s, 0.6), **_sided(rng, "mouthUpperUp", u(0.3, 0.9), 0.7)}
    if kind == "mouth_left":
        return {"mouthLeft": s, "jawLeft": u(0, 0.8), "jawOpen": u(0, 0.3)}
    if kind == "mouth_right":
        return {"mouthRight": s, "jawRight": u(0, 0.8), "jawOpen": u(0, 0.3)}
    return _mixture(rng)


def _mixture(rng):
    """Three to six actions that faces combine."""
    u = rng.uniform
    actions = [
        lambda: {"jawOpen": u(0.2, 1.0)},
        lambda: _sided(rng, "mouthSmile", u(0.3, 1.0)),
        lambda: {"mouthPucker": u(0.3, 0.9)},
        lambda: {"mouthFunnel": u(0.3, 0.9)},
        lambda: _sided(rng, "mouthFrown", u(0.3, 0.9)),
        lambda: _sided(rng, "mouthUpperUp", u(0.3, 0.8)),
        lambda: _sided(rng, "mouthLowerDown", u(0.3, 0.8)),
        lambda: _sided(rng, "mouthStretch", u(0.3, 0.8)),
        lambda: {"mouthLeft" if rng.random() < 0.5 else "mouthRight": u(0.3, 0.9)},
        lambda: {"jawLeft" if rng.random() < 0.5 else "jawRight": u(0.3, 0.9)},
        lambda: {"cheekPuff": u(0.4, 1.0)},
        lambda: {"tongueOut": u(0.5, 1.0), "jawOpen": u(0.3, 0.7)},
        lambda: _sided(rng, "noseSneer", u(0.3, 0.9)),
        lambda: _sided(rng, "browDown", u(0.4, 1.0)),
        lambda: {**_sided(rng, "browOuterUp", u(0.4, 1.0), 0.65), "browInnerUp": u(0, 1.0)},
        lambda: _sided(rng, "eyeBlink", u(0.4, 1.0), 0.6),
        lambda: _sided(rng, "eyeWide", u(0.4, 1.0)),
        lambda: _sided(rng, "eyeSquint", u(0.4, 1.0)),
        lambda: _gaze(rng),
        lambda: {"jawForward": u(0.3, 1.0)},
        lambda: {"mouthRollLower": u(0.3, 0.8), "mouthRollUpper": u(0, 0.6)},
        lambda: {"mouthShrugLower": u(0.3, 0.9), "mouthShrugUpper": u(0, 0.6)},
        lambda: _sided(rng, "mouthDimple", u(0.3, 0.9)),
    ]
    result = {}
    for choice in rng.choice(len(actions), size=rng.integers(3, 7), replace=False):
        result.update(actions[choice]())
    return result


def _resolve(values):
    """Takes back what contradicts itself, as a face would."""
    open_jaw = values.get("jawOpen", 0)
    for side in _SIDES:
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
    values = _main_pose(kind, rng)
    quiet = kind in ("neutral",)
    share = 0.4 if quiet else 1.0
    # What eyes and brows do besides; it belongs to the expression, too.
    for chance, action in (
        (0.35, lambda: _gaze(rng, 0.7)),
        (0.18, lambda: _sided(rng, "eyeBlink", rng.uniform(0.5, 1.0), 1.0)),
        (0.25, lambda: {"browInnerUp": rng.uniform(0.2, 0.8)}),
        (0.2, lambda: _sided(rng, "browDown", rng.uniform(0.2, 0.8))),
        (0.15, lambda: {"jawOpen": rng.uniform(0.1, 0.4)}),
    ):
        if rng.random() < chance * share:
            for name, value in action().items():
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
