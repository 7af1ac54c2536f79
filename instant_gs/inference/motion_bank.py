"""A small bank of drivers: what a face does that shows what it hides at rest.

Codes of these expressions span the motion envelope of an avatar, over which ``culling`` asks what
is ever visible and ``level_of_detail`` what matters. The learned motion encoder's code is linear in
the coefficients, so no picture of a driver is needed. The release's encoder reads pictures only: it
gets those of a person whom the procedural teacher drew (``asset/make.py``). That takes seconds, so
the converter does it once and stores the codes with the weights.
"""

import hashlib
import os
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from instant_gs import output
from instant_gs.data import format as format_lib
from instant_gs.geometry import crop as crop_lib
from instant_gs.inference import argument

#: In a folder of weights: their codes of ``pictures``.
FILE_NAME = "motion_bank.npz"

PICTURES = Path(__file__).parent / "asset" / "motion_bank.webp"

_BOTH = ("Left", "Right")


def _pair(name: str, value: float = 1.0) -> dict[str, float]:
    return {name + side: value for side in _BOTH}


#: Each uncovers something: teeth, tongue, the mouth's inside, lids, the white of the eyes, and the
#: skin that lips, cheeks and brows leave behind.
EXPRESSIONS = {
    "neutral": {},
    "jaw open": {"jawOpen": 1.0},
    "jaw half open": {"jawOpen": 0.5},
    "tongue": {"jawOpen": 0.7, "tongueOut": 1.0},
    "smile": _pair("mouthSmile"),
    "bared teeth": {
        **_pair("mouthUpperUp"),
        **_pair("mouthLowerDown"),
        **_pair("mouthStretch", 0.5),
    },
    "laugh": {"jawOpen": 0.6, **_pair("mouthSmile"), **_pair("cheekSquint")},
    "pucker": {"mouthPucker": 1.0},
    "funnel": {"mouthFunnel": 1.0, "jawOpen": 0.3},
    "mouth to the left": {"mouthLeft": 1.0, "jawLeft": 1.0},
    "mouth to the right": {"mouthRight": 1.0, "jawRight": 1.0},
    "puffed cheeks": {"cheekPuff": 1.0},
    "closed eyes": _pair("eyeBlink"),
    "surprise": {
        **_pair("eyeWide"),
        "browInnerUp": 1.0,
        **_pair("browOuterUp"),
        "jawOpen": 0.4,
    },
    "frown": {**_pair("browDown"), **_pair("noseSneer"), **_pair("mouthFrown")},
    "look to the left": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "look to the right": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
    "look up": _pair("eyeLookUp"),
    "look down": _pair("eyeLookDown"),
}


def coefficients() -> np.ndarray:
    """(K, 52) float32 of ``EXPRESSIONS``, order ``data.format.COEFFICIENT_NAMES``."""
    out = np.zeros((len(EXPRESSIONS), len(format_lib.COEFFICIENT_NAMES)), np.float32)
    for row, expression in zip(out, EXPRESSIONS.values(), strict=True):
        for name, value in expression.items():
            row[format_lib.COEFFICIENT_NAMES.index(name)] = value
    return out


def pictures() -> np.ndarray:
    """(K, 432, 432, 3) uint8: somebody who performs ``EXPRESSIONS``, aligned in the wide view."""
    with Image.open(PICTURES) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    return pixels.reshape(len(EXPRESSIONS), -1, *pixels.shape[1:])


def codes(engine):
    """Motion codes of ``EXPRESSIONS``.

    Args:
        engine: ``avatar.InstantAvatar``.

    Returns:
        (K, C).

    Raises:
        ValueError: The weights hold no motion encoder.
    """
    if engine.config.model.motion.encoder == "learned":
        return engine.code_from_coefficients(coefficients())
    motion, read = engine.config.model.motion, jax.jit(engine.model.motion_code)
    seen = argument.to_model(pictures())
    crops = crop_lib.motion_crop(seen, motion.image_size, motion.crop)
    return jnp.concatenate([read(engine.params, crop[None]) for crop in crops])


def save(folder: str | os.PathLike, codes, crop: float) -> None:
    """Stores codes (K, C) of ``pictures``, cut out so, in a folder of weights, over older ones."""
    with output.whole_file(Path(folder) / FILE_NAME, overwrite=True) as temporary:
        np.savez(temporary, codes=np.asarray(codes, np.float32), pictures=_digest(crop))


def load(folder: str | os.PathLike, crop: float) -> np.ndarray | None:
    """Codes (K, C) that ``save`` stored; None if there are none, or of other pictures."""
    path = Path(folder) / FILE_NAME
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return file["codes"] if str(file["pictures"]) == _digest(crop) else None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
        return None


def _digest(crop: float) -> str:
    return hashlib.sha256(PICTURES.read_bytes() + str(float(crop)).encode()).hexdigest()
