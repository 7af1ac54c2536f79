"""Who a person is: attributes drawn from a seed and an index, and the shape they give."""

import dataclasses
import math

import numpy as np

from instant_gs.teacher.procedural import head as head_model
from instant_gs.teacher.procedural import shape

# Decimetres, before a person's own factor.
_HAIR_LENGTHS = {
    "bald": 0.0,
    "buzz": 0.05,
    "short": 0.3,
    "swept": 0.55,
    "side_part": 0.6,
    "curly": 0.42,
    "medium": 1.6,
    "long": 2.8,
    "tied": 0.9,
}
HAIR_STYLES = tuple(_HAIR_LENGTHS)


@dataclasses.dataclass(frozen=True)
class Attributes:
    """Everything that tells one person from another; lengths in decimetres, colours linear RGB."""

    name: str
    seed: int
    male: float
    age: float
    weight: float
    muscle: float
    ancestry: tuple
    sliders: dict
    melanin: float
    redness: float
    freckles: float
    roughness: float
    iris: tuple
    eye_opening: float
    hair_style: str
    hair_color: tuple
    hair_length: float
    hair_grey: float
    recede: float
    beard: float
    stubble: float
    brow_density: float
    lip_color: float
    shirt_color: tuple
    shirt_second: tuple
    key_azimuth: float
    key_elevation: float
    key_color: tuple
    key_strength: float
    sky_color: tuple
    ground_color: tuple
    exposure: float

    def summary(self):
        """What a manifest records: plain numbers and words."""
        return {
            "male": round(self.male, 3),
            "age": round(self.age, 1),
            "weight": round(self.weight, 3),
            "ancestry": dict(
                zip(shape.ANCESTRIES, (round(float(w), 3) for w in self.ancestry), strict=True)
            ),
            "melanin": round(self.melanin, 3),
            "hair_style": self.hair_style,
            "hair_grey": round(self.hair_grey, 3),
            "beard": round(self.beard, 3),
            "key_azimuth_degrees": round(math.degrees(self.key_azimuth), 1),
            "key_elevation_degrees": round(math.degrees(self.key_elevation), 1),
        }


def name_of(seed, index):
    """Identity name of a pack seed and an index: `p0007-000123`."""
    return f"p{seed:04d}-{index:06d}"


def generator(seed, index, purpose):
    """A random generator that depends on nothing else.

    Purposes whose lengths and sums of bytes agree share one: of 400 people's clips, as ``Settings``
    has them by default, 27.5 % draw their camera from the same numbers as another clip of the same
    person. Other numbers here would draw every pack anew.
    """
    return np.random.default_rng([0x1D5, seed, index, sum(purpose.encode()) + 977 * len(purpose)])


def linear(color):
    """Linear RGB (…, 3) of 8-bit sRGB."""
    value = np.asarray(color, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_HAIR_COLORS = {
    "black": (22, 18, 17),
    "dark_brown": (46, 31, 23),
    "brown": (78, 52, 35),
    "light_brown": (117, 82, 54),
    "dark_blond": (148, 112, 70),
    "blond": (190, 155, 104),
    "red": (128, 58, 28),
    "auburn": (88, 40, 25),
    "grey": (150, 148, 146),
    "white": (205, 203, 200),
}
_IRIS_COLORS = {
    "brown": (86, 52, 28),
    "dark_brown": (48, 28, 17),
    "hazel": (112, 86, 44),
    "green": (98, 116, 76),
    "blue": (94, 128, 160),
    "grey": (120, 132, 138),
}
_SHIRTS = (
    (28, 30, 36),
    (225, 225, 222),
    (40, 56, 92),
    (120, 32, 36),
    (54, 84, 62),
    (110, 110, 116),
    (188, 172, 146),
    (86, 60, 100),
    (30, 92, 110),
    (176, 120, 52),
    (150, 168, 190),
    (70, 52, 42),
)


def _mix(rng, palette, names, weights):
    weights = np.array(weights, float)
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    jitter = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))
    return tuple(np.clip(linear(palette[name]) * jitter, 0, 1).tolist())


def _draw_style(rng, male, age, african):
    """Hair style; curly hair mostly with African ancestry."""
    if male > 0.5:
        weights = [0.1, 0.16, 0.22, 0.18, 0.16, 0.05, 0.05, 0.02, 0.03]
        if age > 50:
            weights[0] += 0.1
    else:
        weights = [0.01, 0.03, 0.09, 0.09, 0.1, 0.07, 0.24, 0.22, 0.16]
    weights[HAIR_STYLES.index("curly")] += 0.35 * african
    weights = np.array(weights) / np.sum(weights)
    return HAIR_STYLES[rng.choice(len(HAIR_STYLES), p=weights)]


def _draw_hair_color(rng, light, grey):
    """Linear RGB; ``light`` is the share of light-haired ancestry, ``grey`` that of grey hair."""
    dark = 1 - light
    common = [0.25 + 3 * dark, 0.6 + dark, light]
    rarer = [0.8 * light, 0.7 * light, 0.6 * light, 0.15 * light, 0.2 * light]
    hair = _mix(rng, _HAIR_COLORS, list(_HAIR_COLORS)[:8], common + rarer)
    grey_color = linear(_HAIR_COLORS["white" if grey > 0.75 else "grey"])
    return tuple(((1 - grey * 0.85) * np.array(hair) + grey * 0.85 * grey_color).tolist())


def _draw_iris_color(rng, light):
    weights = [0.5 + 0.3 * light, 0.2 + 2 * (1 - light)]
    weights += [0.4 * light, 0.3 * light, 0.7 * light, 0.2 * light]
    return _mix(rng, _IRIS_COLORS, list(_IRIS_COLORS), weights)


def attributes(seed, index):
    """Draws a person.

    Args:
        seed: Pack seed, a non-negative integer.
        index: Identity index, a non-negative integer.

    Returns:
        Attributes; the same for the same arguments on every machine.
    """
    rng = generator(seed, index, "attributes")
    male = float(np.clip(rng.choice([rng.uniform(0, 0.2), rng.uniform(0.8, 1.0)]), 0, 1))
    age = float(np.clip(rng.beta(1.3, 2.4) * 60 + 18, 18, 78))
    dominant = int(rng.integers(3))
    alpha = np.full(3, 0.35)
    alpha[dominant] += 4.0
    ancestry = rng.dirichlet(alpha)
    weight = float(np.clip(rng.normal(0.5, 0.17), 0.05, 0.95))
    muscle = float(np.clip(rng.normal(0.5 + 0.08 * (male - 0.5), 0.12), 0.1, 0.9))
    melanin = float(np.clip(ancestry @ [0.16, 0.8, 0.3] + rng.normal(0, 0.09), 0.02, 0.97))

    grey = float(np.clip((age - 52) / 28 + rng.normal(0, 0.15), 0, 1)) if age > 44 else 0.0
    light = ancestry[0]
    hair, iris = _draw_hair_color(rng, light, grey), _draw_iris_color(rng, light)
    style = _draw_style(rng, male, age, ancestry[1])
    beard = 0.0
    if male > 0.5 and rng.random() < 0.4:
        beard = float(rng.uniform(0.25, 1.0))
    warmth = rng.normal(0, 0.06)
    shirt = linear(_SHIRTS[rng.integers(len(_SHIRTS))])
    second = linear(_SHIRTS[rng.integers(len(_SHIRTS))])
    sky = np.array([0.93, 1.0, 1.1]) * np.exp(rng.normal(0, 0.05, 3))
    return Attributes(
        name=name_of(seed, index),
        seed=seed,
        male=male,
        age=age,
        weight=weight,
        muscle=muscle,
        ancestry=tuple(float(w) for w in ancestry),
        sliders=shape.draw_sliders(rng, head_model.load().targets, age),
        melanin=melanin,
        redness=float(np.clip(rng.normal(0.5, 0.2), 0, 1)),
        freckles=float(max(0.0, rng.normal(-0.3, 0.5)) * (melanin < 0.4)),
        roughness=float(rng.uniform(0.36, 0.52)),
        iris=iris,
        eye_opening=float(rng.uniform(0.25, 0.75)),
        hair_style=style,
        hair_color=hair,
        hair_length=float(_HAIR_LENGTHS[style] * rng.uniform(0.75, 1.3)),
        hair_grey=grey,
        recede=float(
            np.clip(rng.normal(0.04 + 0.2 * (male > 0.5) * max(0, age - 30) / 45, 0.06), -0.04, 0.4)
        ),
        beard=beard,
        stubble=float(rng.uniform(0.1, 0.9) if male > 0.5 else 0.0),
        brow_density=float(np.clip(rng.normal(0.75 + 0.15 * (male > 0.5), 0.15), 0.4, 1.1)),
        lip_color=float(rng.uniform(0, 1)),
        shirt_color=tuple((shirt * np.exp(rng.normal(0, 0.15, 3))).clip(0.005, 0.8).tolist()),
        shirt_second=tuple(second.clip(0.005, 0.8).tolist()),
        key_azimuth=float(np.clip(rng.normal(0, 0.7), -1.25, 1.25)),
        key_elevation=float(rng.uniform(0.2, 1.0)),
        key_color=tuple((np.array([1 + warmth, 1.0, 1 - 1.3 * warmth])).tolist()),
        key_strength=float(rng.uniform(1.2, 2.6)),
        sky_color=tuple(sky.tolist()),
        ground_color=tuple((np.array([0.5, 0.45, 0.4]) * rng.uniform(0.5, 1.2)).tolist()),
        exposure=float(np.exp(rng.normal(0, 0.08))),
    )
