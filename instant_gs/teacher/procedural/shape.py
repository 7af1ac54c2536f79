"""The shape of a person: sliders and macro targets on the asset, and its place in the world."""

import numpy as np

from instant_gs.teacher.procedural import head as head_model

#: World units: mean distance between pupils, and how high the skull may reach in the frame.
PUPIL_DISTANCE = 0.157

SKULL_TOP = 0.345

#: The world's origin in the rest frame: between eyes and mouth, 6 to 7 cm behind the face.
ORIGIN_DEPTH = 0.72  # decimetres in front of the asset's origin

ANCESTRIES = ("caucasian", "african", "asian")

_PAIRS = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)

#: Sliders that make faces grotesque at full strength get a smaller share.
_GENTLE = {
    "head/head-age": 0.3,
    "head/head-scale-depth": 0.35,
    "head/head-scale-horiz": 0.35,
    "head/head-scale-vert": 0.3,
    "head/head-angle": 0.3,
    "head/head-back-scale-depth": 0.5,
    "head/head-trans": 0.0,
    "neck": 0.35,
    "ears": 0.4,
    "asym": 0.18,
    "eyes/eye-trans": 0.25,
    "eyes/eye-scale": 0.35,
    "eyes/eye-push": 0.2,
    "eyes/eye-height": 0.3,
    "mouth/mouth-trans": 0.2,
    "mouth/mouth-dimples": 0.4,
    "mouth/mouth-scale-depth": 0.3,
    "nose/nose-trans": 0.3,
    "nose/nose-volume": 0.3,
    "nose": 0.3,
    "chin/chin-prognathism": 0.25,
    "cheek/cheek-trans": 0.3,
}


def _slider_pairs(targets):
    """name -> (low target, high target) of all face sliders."""
    pairs, used = {}, set()
    for name in sorted(targets):
        if name.startswith(("macro/", "unit/")) or name in used:
            continue
        for low, high in _PAIRS:
            if name.endswith("-" + low) and name[: -len(low)] + high in targets:
                pairs[name[: -len(low) - 1]] = (name, name[: -len(low)] + high)
                used.update((name, name[: -len(low)] + high))
        if name not in used and not name.endswith(tuple("-" + h for _, h in _PAIRS)):
            pairs[name] = (None, name)
    return pairs


def _strength(name):
    plain = name.replace("/l-", "/").replace("/r-", "/")
    found = [gain for prefix, gain in _GENTLE.items() if plain.startswith(prefix)]
    return found[0] if found else 0.4


def draw_sliders(rng, targets, age):
    """Slider values in [-1, 1]; left and right mostly agree."""
    values = {}
    for name in _slider_pairs(targets):
        if name.startswith("asym/"):
            if rng.random() < 0.4:
                values[name] = abs(rng.normal()) * _strength(name)
            continue
        value = float(np.clip(rng.normal() * 0.6, -1, 1)) * _strength(name)
        if name.startswith(("head/head-age",)):
            value = (age - 40) / 80
        if name.startswith("head/") and name.split("-")[-1] in (
            "diamond",
            "oval",
            "rectangular",
            "round",
            "square",
            "triangular",
            "invertedtriangular",
        ):
            value = float(rng.random() < 0.2) * rng.uniform(0.1, 0.35)
        if name.startswith("ears/") and "shape" in name:
            value = float(rng.random() < 0.2) * rng.uniform(0, 0.5)
        if name.startswith("eyes/l-eye-epicanthus"):
            value *= 0.5
        values[name] = value
    for name in list(values):
        if "/r-" in name:
            twin = values[name.replace("/r-", "/l-")]
            values[name] = twin + 0.08 * float(rng.normal()) * _strength(name)
    return {name: round(float(v), 4) for name, v in values.items() if abs(v) > 1e-3}


def vertices(person):
    """Asset vertices (A, 3) of a person at rest, decimetres, before expression."""
    model = head_model.load()
    moved = model.base.astype(np.float32).copy()

    def add(name, gain):
        if gain:
            index, move = model.targets[name]
            np.add.at(moved, index, gain * move)

    old = float(np.clip((person.age - 25) / 60, 0, 1))
    sexes = (("female", 1 - person.male), ("male", person.male))
    ages = (("young", 1 - old), ("old", old))
    muscles, weights = _levels("muscle", person.muscle), _levels("weight", person.weight)
    for sex, sex_gain in sexes:
        for age, age_gain in ages:
            for ancestry, gain in zip(ANCESTRIES, person.ancestry, strict=True):
                add(f"macro/{ancestry}-{sex}-{age}", sex_gain * age_gain * gain)
            for muscle, muscle_gain in muscles:
                for weight, weight_gain in weights:
                    name = f"macro/universal-{sex}-{age}-{muscle}-{weight}"
                    if name in model.targets:
                        add(name, sex_gain * age_gain * muscle_gain * weight_gain)
    pairs = _slider_pairs(model.targets)
    for name, value in person.sliders.items():
        low, high = pairs[name]
        if value > 0 or low is None:
            add(high, abs(value))
        else:
            add(low, -value)
    return moved


def _levels(kind, value):
    """Weights of min, average and max."""
    low, high = max(0.0, 1 - 2 * value), max(0.0, 2 * value - 1)
    return ((f"min{kind}", low), (f"average{kind}", 1 - low - high), (f"max{kind}", high))


def placement(render_vertices):
    """Scale and origin that put a rest shape into the world: world = scale (dm - origin).

    Args:
        render_vertices: (V, 3) rest shape on the render mesh, decimetres.

    Returns:
        scale (world units per decimetre) and origin (3,).
    """
    model = head_model.load()
    eyes = np.array([render_vertices[a:b].mean(axis=0) for a, b in model.eyes])
    lips = render_vertices[model.masks["lips"] > 0.7].mean(axis=0)
    pupil = np.linalg.norm(eyes[0] - eyes[1])
    middle = 0.5 * (0.5 * (eyes[0] + eyes[1]) + lips) + [0, 0.05, 0]
    top = render_vertices[:, 1].max() - middle[1]
    face = float(render_vertices[model.masks["nose"] > 0.2, 2].mean())
    scale = min(PUPIL_DISTANCE / pupil * 1.02, SKULL_TOP / top)
    return scale, np.array([middle[0], middle[1], face - 1.6 + ORIGIN_DEPTH])
