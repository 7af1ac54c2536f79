"""Writes the JSON files of the source form of a teacher pack; the frames are the teacher's own.

source_writer.write_manifest(pack, teacher={...}, licence="CC0-1.0", fps=25, image_size=(256, 256))
...  # write <pack>/<identity>/smile_front.mp4 and its folders
source_writer.write_identity(pack, "ada", attributes={}, clips=[{"name": "smile_front", ...}])
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instant_gs import output
from instant_gs.data import digest, source
from instant_gs.data import format as pack_format


def write_manifest(
    pack: str | Path,
    *,
    teacher: Mapping[str, Any],
    licence: str,
    fps: float,
    image_size: tuple[int, int],
) -> None:
    """Writes `<pack>/manifest.json`.

    Args:
      pack: folder of the pack; made if missing.
      teacher: {"name", "version", "seed"} of what renders or films the clips.
      licence: SPDX name or sentence; what others may do with the frames.
      fps: frames a second.
      image_size: (height, width) of every frame, square.
    """
    pack = Path(pack)
    pack.mkdir(parents=True, exist_ok=True)
    content = {
        "format": pack_format.SOURCE_FORMAT,
        "version": pack_format.SOURCE_VERSION,
        "teacher": dict(teacher),
        "licence": licence,
        "fps": fps,
        "image_size": list(image_size),
        "coefficient_names": list(pack_format.COEFFICIENT_NAMES),
        "regions": list(pack_format.REGIONS),
    }
    output.write_json(pack / pack_format.MANIFEST_NAME, content)


def start(
    pack: str | Path,
    *,
    teacher: Mapping[str, Any],
    licence: str,
    fps: float,
    image_size: tuple[int, int],
) -> None:
    """Starts a pack, or checks that the one which is there was started just like this.

    Args:
      pack, teacher, licence, fps, image_size: as `write_manifest`; `teacher` holds every setting
        that decides what the pack's frames are.

    Raises:
      ValueError: the folder holds something else, or a pack of other settings.
    """
    pack = Path(pack)
    path = pack / pack_format.MANIFEST_NAME
    if path.exists():
        content = source.load_json(path)
        found = {**(content.get("teacher") or {}), "licence": content.get("licence")}
        wanted = {**teacher, "licence": licence}
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        if differing:
            detail = ", ".join(f"{key} {found.get(key)!r} -> {wanted[key]!r}" for key in differing)
            raise ValueError(
                f"{pack}: this pack was made with other settings ({detail}); "
                "give the same settings to continue it or another folder"
            )
        return
    if pack.exists() and not all(map(output.is_partial, pack.iterdir())):
        raise ValueError(f"{pack}: not empty and not a teacher pack; give another folder")
    write_manifest(pack, teacher=teacher, licence=licence, fps=fps, image_size=image_size)


def write_identity(
    pack: str | Path,
    identity: str,
    *,
    attributes: Mapping[str, Any],
    clips: Sequence[Mapping[str, Any]],
) -> None:
    """Hashes the files of an identity's clips and writes identity.json, which makes it whole.

    Args:
      pack: folder of the pack.
      identity: name of the identity and of its folder, which holds the clips' files.
      attributes: anything JSON can hold.
      clips: each with "name", "performance", "view", "frames", "rgb", "alpha", "regions", "camera"
        and "coefficients" as docs/teacher_pack.md says; "sha256" is computed here.
    """
    folder = Path(pack) / identity
    described = []
    for clip in clips:
        names = [clip[key] for key in ("rgb", "alpha", "regions", "coefficients") if clip.get(key)]
        described.append(
            {**clip, "sha256": {name: digest.path_sha256(folder / name) for name in names}}
        )
    content = {"identity": identity, "attributes": dict(attributes), "clips": described}
    output.write_json(folder / pack_format.IDENTITY_NAME, content)
