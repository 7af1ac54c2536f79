"""Light that does not depend on the view: soft key shadow, sky visibility, subsurface spread.

Everything is found on the vertices, once per frame: orthographic depth maps from a few directions,
hair as a soft caster in them, then diffusion over the mesh, redder light farther, which is what
subsurface scattering does to skin.
"""

import dataclasses
import math

import numpy as np

from instant_gs.teacher.procedural import raster, skin

EXTENT = 0.66  # half width of the depth maps, world units: head, hair and shoulders
SKY_MAP, KEY_MAP = 112, 224  # depth map sizes; a texel is 12 and 6 mm of the world unit / 1000
SKY_DIRECTIONS = 16
KEY_SAMPLES = 4
KEY_SPREAD = 0.09  # radians; half angle of the soft box
SKY_BIAS, KEY_BIAS = 0.014, 0.008
#: Diffusion steps over the mesh for red, green and blue.
SPREAD_STEPS = (10, 4, 2)
#: Light on an open, front-facing patch that shows a face of albedo 0.35 well.
METERED = 1.1
FAR = np.float32(1e9)


@dataclasses.dataclass
class Rig:
    """Directions (towards the light), radiance and the hair's shadow maps of one person.

    Attributes:
        axes: (L, 3, 3) rows right, up, towards the light; keys first.
        radiance: (L, 3) already weighted by solid angle over pi.
        hair: per light (depth, density) maps.
    """

    axes: np.ndarray
    radiance: np.ndarray
    hair: list
    key: np.ndarray
    key_radiance: np.ndarray


def _frame(direction):
    up = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.95 else np.array([1.0, 0.0, 0.0])
    right = np.cross(up, direction)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(direction, right), direction])


def _size(light):
    return KEY_MAP if light < KEY_SAMPLES else SKY_MAP


def rig(person):
    """Lights of a person, without hair shadows."""
    azimuth, elevation = person.key_azimuth, person.key_elevation
    key = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )
    frame = _frame(key)
    axes, radiance = [], []
    key_color = np.array(person.key_color) * person.key_strength
    for n in range(KEY_SAMPLES):
        angle = 2 * math.pi * (n + 0.3) / KEY_SAMPLES
        offset = KEY_SPREAD * (math.cos(angle) * frame[0] + math.sin(angle) * frame[1])
        direction = (key + offset) / np.linalg.norm(key + offset)
        axes.append(_frame(direction))
        radiance.append(key_color / KEY_SAMPLES)
    # Fibonacci directions over the sphere without the part straight below.
    sky, ground = np.array(person.sky_color), np.array(person.ground_color)
    for n in range(SKY_DIRECTIONS):
        height = 1 - 1.75 * (n + 0.5) / SKY_DIRECTIONS
        angle = n * math.pi * (3 - math.sqrt(5)) + 0.7
        ring = math.sqrt(1 - height * height)
        direction = np.array([ring * math.sin(angle), height, ring * math.cos(angle)])
        share = np.clip(0.5 + 0.9 * height, 0, 1)
        front = 0.75 + 0.45 * max(direction[2], 0)  # a room is brighter where the camera stands
        color = (ground * 0.6 * (1 - share) + sky * share) * front
        axes.append(_frame(direction))
        radiance.append(color * 0.82 * (1.75 * 2 / SKY_DIRECTIONS))
    gain = _exposure(person, axes, radiance)
    hair = []
    for n in range(len(axes)):
        size = _size(n)
        hair.append((np.full((size, size), FAR), np.zeros((size, size), np.float32)))
    return Rig(
        np.array(axes, np.float32),
        (np.array(radiance) * gain).astype(np.float32),
        hair,
        key.astype(np.float32),
        (key_color * gain).astype(np.float32),
    )


def _exposure(person, axes, radiance):
    """Gain that a camera's metering would choose: half-way towards a mid-grey face."""
    face = np.array([0.0, 0.1, 0.995])
    arriving = sum(
        float(np.mean(light)) * max(float(axis[2] @ face), 0.0)
        for axis, light in zip(axes, radiance, strict=True)
    )
    brightness = float(skin.tone(person.melanin).mean())
    return person.exposure * METERED / arriving * (0.35 / brightness) ** 0.5


def cast_hair(lights, points, point_weight):
    """Adds hair points (n, 3) to the lights' soft shadow maps.

    Args:
        lights: Rig, updated.
        points: (n, 3) float32 world.
        point_weight: World area that one point stands for, times its opacity.
    """
    for n, (depth, density) in enumerate(lights.hair):
        texel = (2 * EXTENT / depth.shape[0]) ** 2
        raster.splat_density(
            points, np.float32(point_weight / texel), lights.axes[n], EXTENT, depth, density
        )


def irradiance(model, lights, positions, normals):
    """Diffuse light on the vertices.

    Args:
        model: head.Head.
        lights: Rig.
        positions: (V, 3) float32 world.
        normals: (V, 3) float32.

    Returns:
        (V, 3) irradiance over pi after subsurface spread, (V,) share of key light that arrives,
        (V,) share of the sky that is open.
    """
    total = np.zeros_like(positions)
    key_share = np.zeros(len(positions), np.float32)
    open_sky = np.zeros(len(positions), np.float32)
    possible = np.full(len(positions), 1e-6, np.float32)
    reach = np.empty(len(positions), np.float32)
    for n in range(len(lights.axes)):
        size = _size(n)
        depth = np.full((size, size), FAR)
        raster.depth_map(positions, model.coarse, lights.axes[n], EXTENT, depth)
        hair_depth, hair_density = lights.hair[n]
        bias = KEY_BIAS if n < KEY_SAMPLES else SKY_BIAS
        raster.lookup(
            positions, normals, lights.axes[n], EXTENT, depth, hair_depth, hair_density, bias, reach
        )
        facing = np.maximum(normals @ lights.axes[n, 2], 0)
        total += (reach * facing)[:, None] * lights.radiance[n]
        if n < KEY_SAMPLES:
            key_share += reach / KEY_SAMPLES
        else:
            open_sky += reach * facing
            possible += facing
    return _spread(model, total), key_share, open_sky / possible


def _spread(model, light):
    """Diffuses light over the mesh, red farther than green and blue."""
    result = light.copy()
    current = light
    for step in range(max(SPREAD_STEPS)):
        active = [channel for channel in range(3) if step < SPREAD_STEPS[channel]]
        current = model.neighbours @ np.ascontiguousarray(current[:, : len(active)])
        for channel in active:
            result[:, channel] = current[:, channel]
    # A part of the light is reflected where it lands.
    return 0.3 * light + 0.7 * result
