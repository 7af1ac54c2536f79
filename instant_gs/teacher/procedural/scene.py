"""A person ready to be rendered, one expression of it, and one camera's picture of that."""

import dataclasses

import numpy as np

from instant_gs.data import format as pack_format
from instant_gs.teacher.procedural import (
    fuzz,
    identity,
    light,
    part,
    raster,
    shade,
    shape,
    skin,
    strand,
)
from instant_gs.teacher.procedural import hair as hair_model
from instant_gs.teacher.procedural import head as head_model

SUPERSAMPLE = 2
_ROW = {name: row for row, name in enumerate(pack_format.COEFFICIENT_NAMES)}
#: Strand kinds (rows of the cover buffers) and the label each gives.
KIND_LABELS = np.array([shade.HAIR, shade.BROWS, shade.EYES, shade.SKIN], np.uint8)


@dataclasses.dataclass
class Person:
    """What stays the same in all frames of an identity (world units)."""

    attributes: identity.Attributes
    rest: np.ndarray  # (V, 3)
    units: np.ndarray  # (52, V, 3)
    albedo: np.ndarray
    gloss: np.ndarray
    scalars: np.ndarray
    texture: np.ndarray
    scalp: np.ndarray
    lights: light.Rig
    hair: hair_model.Hair
    fuzz: fuzz.Fuzz


@dataclasses.dataclass
class Frame:
    """One expression: geometry and light, the same for all cameras."""

    positions: np.ndarray
    normals: np.ndarray
    light: np.ndarray
    key_share: np.ndarray
    open_sky: np.ndarray
    eye: np.ndarray
    fuzz_ends: np.ndarray
    fuzz_colors: np.ndarray


@dataclasses.dataclass
class Picture:
    """One camera's view: image (H, W, 3), alpha (H, W), regions (H, W), all uint8."""

    image: np.ndarray
    alpha: np.ndarray
    regions: np.ndarray


def person(seed, index):
    """Builds an identity (about half a second).

    Args:
        seed: Pack seed.
        index: Identity index.

    Returns:
        Person.
    """
    model = head_model.load()
    who = identity.attributes(seed, index)
    moved = shape.vertices(who)
    rest_dm = model.matrix @ moved
    rest_dm = _clothe(model, rest_dm)
    scale, origin = shape.placement(rest_dm)
    rest = np.ascontiguousarray(((rest_dm - origin) * scale).astype(np.float32))
    albedo, gloss = skin.vertex_color(who)
    lights = light.rig(who)
    grown = hair_model.grow(who, index, rest, scale)
    scalp_cover = hair_model.scalp_cover(who)
    m = model.masks
    scalars = np.stack(
        [
            m["cloth"],
            m["mouth"],
            m["eyes"],
            np.maximum(m["neck"], m["ears"]),
            scalp_cover,
        ],
        axis=1,
    )
    if len(grown.points):
        light.cast_hair(lights, grown.caster_points, grown.caster_weight)
    strand.illuminate(grown, lights, rest, model)
    return Person(
        attributes=who,
        rest=rest,
        units=np.ascontiguousarray(model.units * np.float32(scale)),
        albedo=albedo,
        gloss=gloss,
        scalars=np.ascontiguousarray(scalars.astype(np.float32)),
        texture=skin.texture(who, index),
        scalp=hair_model.scalp_color(who),
        lights=lights,
        hair=grown,
        fuzz=fuzz.grow(who, index, moved, origin, scale),
    )


def _clothe(model, rest_dm):
    """Lifts cloth off the skin."""
    normals = raster.vertex_normals(rest_dm.astype(np.float32), model.triangles)
    lift = np.clip(model.masks["cloth"] / 0.05, 0, 1) * 0.07
    return rest_dm + normals * lift[:, None]


def frame(who, coefficients):
    """Moves and lights a person.

    Args:
        who: Person.
        coefficients: (52,) in [0, 1].

    Returns:
        Frame.
    """
    model = head_model.load()
    positions = deform(who, coefficients)
    normals = raster.vertex_normals(positions, model.triangles)
    activation = activate(who, coefficients)
    diffuse, key_share, open_sky = light.irradiance(model, who.lights, positions, normals)
    eye = np.zeros((2, 9), np.float32)
    for row, (start, stop) in enumerate(model.eyes):
        front = positions[start : start + part.EYE_SEGMENTS].mean(axis=0)
        back = positions[stop - part.EYE_SEGMENTS : stop].mean(axis=0)
        axis = front - back
        centre = back + axis / (2 + part.CORNEA_BULGE)
        eye[row] = np.concatenate([centre, axis / np.linalg.norm(axis), who.attributes.iris])
    ends, colors = fuzz.place(who.fuzz, positions, normals, diffuse, activation)
    return Frame(positions, normals, diffuse, key_share, open_sky, eye, ends, colors)


def activate(who, coefficients):
    """Strengths (52,) of the face units: coefficients and how wide this person's eyes rest open.

    The asset's neutral eyes are half closed. The opening fades with the blink, so that a full blink
    closes fully.
    """
    activation = np.array(coefficients, np.float32)
    for side in ("Left", "Right"):
        blink = activation[_ROW["eyeBlink" + side]]
        activation[_ROW["eyeWide" + side]] += who.attributes.eye_opening * (1 - blink)
    return activation


def deform(who, coefficients):
    """Vertices (V, 3) of a person with an expression, world units."""
    activation = activate(who, coefficients)
    positions = who.rest.copy()
    for row in np.flatnonzero(activation):
        positions += activation[row] * who.units[row]
    return positions


def picture(who, moved, cam2world, intrinsics, image_size):
    """Renders one camera.

    Args:
        who: Person.
        moved: Frame of that person.
        cam2world: (4, 4) OpenCV axes.
        intrinsics: (3, 3) normalised by the image size.
        image_size: (height, width).

    Returns:
        Picture: colours over black, cover and region labels.
    """
    model = head_model.load()
    height, width = (side * SUPERSAMPLE for side in image_size)
    pose = np.asarray(cam2world, np.float64)
    world2cam = np.linalg.inv(pose)
    lens = (
        float(intrinsics[0][0]) * width,
        float(intrinsics[1][1]) * height,
        float(intrinsics[0][2]) * width,
        float(intrinsics[1][2]) * height,
    )
    screen = np.empty_like(moved.positions)
    raster.project(moved.positions, world2cam, *lens, screen)
    double = (model.material != part.SKIN).astype(np.uint8)
    index, weights, depth = raster.visibility(screen, model.triangles, double, height, width)
    camera = pose[:3, 3].astype(np.float32)
    who_is = who.attributes
    image, label = shade.shade(
        index, weights, model.triangles, model.material, model.uv, moved.positions, moved.normals,
        moved.light, moved.key_share, moved.open_sky, who.albedo, who.gloss, who.scalars,
        who.texture, who.scalp, moved.eye, camera, who.lights.key, who.lights.key_radiance,
        np.array([who_is.shirt_color, who_is.shirt_second], np.float32),
        np.float32(who_is.roughness),
    )  # fmt: skip
    cover = (index >= 0).astype(np.float32)
    kinds = np.zeros((len(KIND_LABELS), height, width), np.float32)
    strand.draw(
        who.hair, who.fuzz, moved, who.lights, world2cam, lens, camera, depth, image, cover, kinds
    )
    return _finish(image, cover, kinds, label)


def _finish(image, cover, kinds, label):
    """Tone curve, downsampling and labels."""
    shown = _tone_curve(image / np.maximum(cover, 1e-4)[..., None]) * cover[..., None]
    strongest = kinds.argmax(axis=0)
    label = np.where(kinds.max(axis=0) > 0.4, KIND_LABELS[strongest], label)
    label = np.where(cover > 0.5, label, 0)
    image8 = np.clip(_halve(shown) * 255 + 0.5, 0, 255).astype(np.uint8)
    alpha8 = np.clip(_halve(cover) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Picture(image8, alpha8, _vote(label.astype(np.uint8)))


def _tone_curve(linear):
    """Display value: sRGB with a shoulder above 0.75."""
    x = np.maximum(linear, 0)
    over = np.maximum(x - 0.75, 0)
    x = np.minimum(x, 0.75) + 0.25 * over / (over + 0.25)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-8) ** (1 / 2.4) - 0.055)


def _halve(value):
    return 0.25 * (value[0::2, 0::2] + value[1::2, 0::2] + value[0::2, 1::2] + value[1::2, 1::2])


def _vote(label):
    """Most frequent label of every 2x2 block; the first of a tie."""
    block = np.stack([label[0::2, 0::2], label[1::2, 0::2], label[0::2, 1::2], label[1::2, 1::2]])
    votes = (block[:, None] == block[None]).sum(axis=1)
    return np.take_along_axis(block, votes.argmax(axis=0)[None], axis=0)[0]
