"""What a face does, by name: the actions of which key poses are made, as coefficients by name.

A coefficient without its side means both sides.
"""

SIDES = ("Left", "Right")


def sided(rng, name, value, tie=0.8):
    """A left-right pair of a coefficient at ``value``: mostly tied, sometimes one-sided.

    Args:
        rng: numpy Generator.
        name: Without its side.
        value: Of the stronger side, [0, 1].
        tie: How probably both sides do nearly the same.

    Returns:
        Dict of two coefficients.
    """
    if rng.random() < tie:
        wobble = rng.uniform(0.85, 1.0, 2)
        return {name + side: value * w for side, w in zip(SIDES, wobble, strict=True)}
    side = rng.integers(2)
    return {name + SIDES[side]: value, name + SIDES[1 - side]: value * rng.uniform(0, 0.3)}


def gaze(rng, reach=1.0):
    """Both eyes look at one point, at most ``reach`` from straight ahead: eight coefficients."""
    across, up = rng.uniform(-1, 1) * reach, rng.uniform(-0.8, 0.8) * reach
    result = {}
    # Towards the person's left the left eye turns out and the right eye in.
    left, right = max(0.0, across), max(0.0, -across)
    result.update(eyeLookOutLeft=left, eyeLookInRight=left)
    result.update(eyeLookInLeft=right, eyeLookOutRight=right)
    result.update(eyeLookUpLeft=max(0, up), eyeLookUpRight=max(0, up))
    result.update(eyeLookDownLeft=max(0, -up), eyeLookDownRight=max(0, -up))
    return result


def _smile_teeth(rng, s):
    return {
        **sided(rng, "mouthSmile", s, 0.95),
        **sided(rng, "mouthUpperUp", rng.uniform(0.4, 0.9), 0.95),
        **sided(rng, "mouthLowerDown", rng.uniform(0.2, 0.6), 0.95),
        "jawOpen": rng.uniform(0.08, 0.4),
        **sided(rng, "cheekSquint", 0.7 * s, 0.95),
    }


def _half_smile(side):
    return lambda rng, s: {
        "mouthSmile" + side: s,
        "cheekSquint" + side: 0.6 * s,
        "mouthDimple" + side: rng.uniform(0, 0.5),
    }


def _blink(rng, s):
    closed = rng.random() < 0.65
    return sided(rng, "eyeBlink", rng.uniform(*((0.85, 1.0) if closed else (0.2, 0.5))), 1.0)


def _wink(side):
    return lambda rng, s: {
        "eyeBlink" + side: rng.uniform(0.85, 1.0),
        "cheekSquint" + side: rng.uniform(0.3, 0.8),
        "mouthSmile" + side: rng.uniform(0, 0.5),
        "browDown" + side: rng.uniform(0, 0.4),
    }


def _surprise(rng, s):
    return {
        **sided(rng, "browOuterUp", s),
        "browInnerUp": s,
        **sided(rng, "eyeWide", s),
        "jawOpen": rng.uniform(0.3, 0.9),
    }


def _talk(rng, s):
    u = rng.uniform
    sounds = (
        {"jawOpen": u(0.25, 0.6), **sided(rng, "mouthLowerDown", u(0.2, 0.6))},
        {"mouthFunnel": u(0.4, 0.9), "jawOpen": u(0.1, 0.35)},
        {"mouthPucker": u(0.4, 0.8), "jawOpen": u(0.05, 0.2)},
        {**sided(rng, "mouthStretch", u(0.3, 0.8)), "jawOpen": u(0.1, 0.3)},
        {**sided(rng, "mouthPress", u(0.4, 0.9))},
        {"mouthRollLower": u(0.4, 0.9), "mouthRollUpper": u(0.2, 0.6)},
    )
    return sounds[rng.integers(len(sounds))]


def _frown(rng, s):
    return {
        **sided(rng, "mouthFrown", s),
        **sided(rng, "browDown", rng.uniform(0.3, 1.0)),
        "mouthShrugLower": rng.uniform(0, 0.6),
    }


def _aside(side):
    return lambda rng, s: {
        "mouth" + side: s,
        "jaw" + side: rng.uniform(0, 0.8),
        "jawOpen": rng.uniform(0, 0.3),
    }


def _anger(rng, s):
    return {
        **sided(rng, "browDown", s),
        **sided(rng, "noseSneer", rng.uniform(0.3, 0.9)),
        **sided(rng, "eyeSquint", rng.uniform(0.3, 0.9)),
        **sided(rng, "mouthPress", rng.uniform(0, 0.7)),
    }


def _sad(rng, s):
    return {
        **sided(rng, "mouthFrown", s),
        "browInnerUp": rng.uniform(0.5, 1.0),
        **sided(rng, "eyeBlink", rng.uniform(0, 0.4), 1.0),
    }


def _brow_raise(rng, s):
    return {**sided(rng, "browOuterUp", s, 0.65), "browInnerUp": rng.uniform(0.2, 1.0)}


def _sneer(rng, s):
    return {
        **sided(rng, "noseSneer", s, 0.6),
        **sided(rng, "mouthUpperUp", rng.uniform(0.3, 0.9), 0.7),
    }


def _kiss_open(rng, s):
    u = rng.uniform
    return {"mouthPucker": u(0.4, 0.8), "mouthFunnel": u(0.3, 0.7), "jawOpen": u(0, 0.3)}


#: Named actions in the order of the bank of performances: functions of a numpy Generator and of a
#: strength in [0.65, 1].
NAMED = {
    "neutral": lambda rng, s: {},
    "jaw_open": lambda rng, s: {"jawOpen": rng.uniform(0.5, 1.0)},
    "smile": lambda rng, s: {
        **sided(rng, "mouthSmile", s),
        **sided(rng, "cheekSquint", 0.6 * s),
    },
    "blink": _blink,
    "surprise": _surprise,
    "talk": _talk,
    "pucker": lambda rng, s: {"mouthPucker": s},
    "gaze": lambda rng, s: gaze(rng, 1.1),
    "smile_teeth": _smile_teeth,
    "wink_left": _wink("Left"),
    "wink_right": _wink("Right"),
    "frown": _frown,
    "tongue_out": lambda rng, s: {
        "tongueOut": rng.uniform(0.7, 1.0),
        "jawOpen": rng.uniform(0.3, 0.8),
    },
    "smile_left": _half_smile("Left"),
    "smile_right": _half_smile("Right"),
    "funnel": lambda rng, s: {"mouthFunnel": s, "jawOpen": rng.uniform(0.1, 0.5)},
    "brow_raise": _brow_raise,
    "cheek_puff": lambda rng, s: {
        "cheekPuff": s,
        **sided(rng, "mouthPress", rng.uniform(0, 0.5)),
    },
    "sneer": _sneer,
    "mouth_left": _aside("Left"),
    "mouth_right": _aside("Right"),
    "anger": _anger,
    "sad": _sad,
    "kiss_open": _kiss_open,
}


def mixture(rng):
    """Three to six actions that faces combine."""
    u = rng.uniform
    actions = [
        lambda: {"jawOpen": u(0.2, 1.0)},
        lambda: sided(rng, "mouthSmile", u(0.3, 1.0)),
        lambda: {"mouthPucker": u(0.3, 0.9)},
        lambda: {"mouthFunnel": u(0.3, 0.9)},
        lambda: sided(rng, "mouthFrown", u(0.3, 0.9)),
        lambda: sided(rng, "mouthUpperUp", u(0.3, 0.8)),
        lambda: sided(rng, "mouthLowerDown", u(0.3, 0.8)),
        lambda: sided(rng, "mouthStretch", u(0.3, 0.8)),
        lambda: {"mouthLeft" if rng.random() < 0.5 else "mouthRight": u(0.3, 0.9)},
        lambda: {"jawLeft" if rng.random() < 0.5 else "jawRight": u(0.3, 0.9)},
        lambda: {"cheekPuff": u(0.4, 1.0)},
        lambda: {"tongueOut": u(0.5, 1.0), "jawOpen": u(0.3, 0.7)},
        lambda: sided(rng, "noseSneer", u(0.3, 0.9)),
        lambda: sided(rng, "browDown", u(0.4, 1.0)),
        lambda: {**sided(rng, "browOuterUp", u(0.4, 1.0), 0.65), "browInnerUp": u(0, 1.0)},
        lambda: sided(rng, "eyeBlink", u(0.4, 1.0), 0.6),
        lambda: sided(rng, "eyeWide", u(0.4, 1.0)),
        lambda: sided(rng, "eyeSquint", u(0.4, 1.0)),
        lambda: gaze(rng),
        lambda: {"jawForward": u(0.3, 1.0)},
        lambda: {"mouthRollLower": u(0.3, 0.8), "mouthRollUpper": u(0, 0.6)},
        lambda: {"mouthShrugLower": u(0.3, 0.9), "mouthShrugUpper": u(0, 0.6)},
        lambda: sided(rng, "mouthDimple", u(0.3, 0.9)),
    ]
    result = {}
    for choice in rng.choice(len(actions), size=rng.integers(3, 7), replace=False):
        result.update(actions[choice]())
    return result
