"""A tiny source pack of colour blobs: identity is the colour, expression the blobs, view the shift.

For tests of everything that reads packs, in milliseconds and without the procedural teacher.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np

from instant_gs.data import digest, frame_file, source_writer
from instant_gs.data import format as pack_format
from instant_gs.geometry import camera as camera_lib

_YAW_STEP = 0.35  # rad between views


def write_pack(
    pack: str | Path,
    identities: Sequence[str],
    *,
    performances: Sequence[str] = ("jaw", "smile"),
    views: int = 3,
    frames: int = 4,
    image_size: int = 32,
    video: bool = False,
    monocular: Sequence[str] = (),
) -> Path:
    """Writes a source pack.

    Args:
      pack: folder to write.
      identities: names; each gets a colour from its name.
      performances: names; each drives one coefficient from 0 to 1.
      views: cameras of each performance, side by side.
      frames: frames of each clip.
      image_size: side of the frames, pixels.
      video: write mp4 and a folder of alpha instead of RGBA PNG.
      monocular: identities that get one view, an unknown camera, no masks and no coefficients.

    Returns:
      The folder.
    """
    pack = Path(pack)
    source_writer.write_manifest(
        pack,
        teacher={"name": "colour blobs", "version": "1", "seed": 0},
        licence="Apache-2.0",
        fps=25,
        image_size=(image_size, image_size),
    )
    for identity in identities:
        alone = identity in monocular
        (pack / identity).mkdir(parents=True, exist_ok=True)
        clips = [
            _write_clip(pack / identity, identity, number, name, view, frames, image_size, video)
            for number, name in enumerate(performances)
            for view in range(1 if alone else views)
        ]
        if alone:
            unknown = {"camera": "unknown", "coefficients": None, "regions": None}
            clips = [{**clip, **unknown} for clip in clips]
        source_writer.write_identity(pack, identity, attributes={"blob": True}, clips=clips)
    return pack


def names_in_split(split: str, count: int) -> list[str]:
    """The first `count` names blob_0, blob_1, … whose hash puts them into `split`."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        if digest.split_of(f"blob_{number}") == split:
            names.append(f"blob_{number}")
        number += 1
    return names


def _write_clip(
    folder: Path,
    identity: str,
    number: int,
    performance: str,
    view: int,
    frames: int,
    size: int,
    video: bool,
) -> dict[str, Any]:
    name = f"{performance}_v{view}"
    track = np.zeros((frames, len(pack_format.COEFFICIENT_NAMES)), np.float32)
    track[:, number] = np.linspace(0, 1, frames)
    np.save(folder / f"{name}.npy", track)
    drawn = [_draw(identity, number, value, view, size) for value in track[:, number]]
    images, alphas, regions = (np.stack(part) for part in zip(*drawn, strict=True))
    if video:
        iio.imwrite(folder / f"{name}.mp4", images, fps=25, macro_block_size=2)
        _write_folder(folder / f"{name}_alpha", alphas)
    else:
        _write_folder(folder / name, np.concatenate([images, alphas[..., None]], -1))
    _write_folder(folder / f"{name}_regions", regions)
    camera = camera_lib.orbit_camera((view - 1) * _YAW_STEP, 0.0)
    return {
        "name": name,
        "performance": performance,
        "view": str(view),
        "frames": frames,
        "rgb": f"{name}.mp4" if video else name,
        "alpha": f"{name}_alpha" if video else None,
        "regions": f"{name}_regions",
        "camera": {
            "cam2world": camera.cam2world.tolist(),
            "intrinsics": camera.intrinsics.tolist(),
        },
        "coefficients": f"{name}.npy",
    }


def _draw(
    identity: str, number: int, value: float, view: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    colour = [64 + byte // 2 for byte in bytes.fromhex(digest.bytes_sha256(identity.encode())[:6])]
    centre = (size // 2 + 2 * (view - 1), size // 2)
    regions = np.zeros((size, size), np.uint8)
    cv2.circle(regions, centre, int(size * 0.4), 1, -1)
    mouth = (centre[0], centre[1] + size // 5 - size // 3 * number)
    cv2.circle(regions, mouth, 1 + round(value * size / 8), 3, -1)
    image = np.zeros((size, size, 3), np.uint8)
    image[regions == 1] = colour
    image[regions == 3] = [colour[2], 20, 20]
    alpha = np.where(regions > 0, 255, 0).astype(np.uint8)
    return image, alpha, regions


def _write_folder(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        frame_file.write_png(folder / f"{index:05d}.png", image, 1)
