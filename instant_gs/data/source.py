"""Reads the source form of a teacher pack: manifest, identities, clips, frames.

Nothing is trusted: every problem becomes a BrokenClipError that names identity, clip and reason.
See docs/teacher_pack.md for the format.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from instant_gs.data import digest, frame_file
from instant_gs.data import format as pack_format
from instant_gs.data.error import BrokenClipError, PackError

# Rotations are written as decimal text by many tools; beyond this they are not rotations.
_ROTATION_TOLERANCE = 1e-3
# Slack for coefficients that went through float16 or a filter; they are clipped to [0, 1].
_COEFFICIENT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Manifest:
    """The source pack's manifest.json.

    Attributes:
      content: the whole JSON object.
      image_size: (height, width) of every frame.
    """

    content: dict[str, Any]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Clip:
    """One performance of one identity seen by one camera.

    Attributes:
      folder: the identity's folder.
      identity, name, performance, view: names.
      frames: number of frames.
      rgb: video file or folder of PNG frames, relative to `folder`.
      alpha, regions: folders of PNG frames, or None.
      coefficients: .npy file, or None.
      coefficients_estimated: whether they were read off the frames instead of known beforehand.
      cam2world: (frames, 4, 4) float32, or None where the camera is unknown.
      intrinsics: (3, 3) float32 normalised, or None where the camera is unknown.
      sha256: relative path -> hash, one for each of the paths above.
    """

    folder: Path
    identity: str
    name: str
    performance: str
    view: str
    frames: int
    rgb: str
    alpha: str | None
    regions: str | None
    coefficients: str | None
    cam2world: np.ndarray | None
    intrinsics: np.ndarray | None
    sha256: dict[str, str]
    coefficients_estimated: bool = False

    def broken(self, reason: str) -> BrokenClipError:
        """The error that says why this clip cannot be used."""
        return BrokenClipError(self.identity, self.name, reason)


@dataclass(frozen=True)
class Identity:
    """One identity.json.

    Attributes:
      name: the identity's name, also its folder's.
      attributes: what the teacher says of it, free form.
      clips: its clips, sorted by performance and view.
      sha256: hash of identity.json itself.
    """

    name: str
    attributes: dict[str, Any]
    clips: list[Clip]
    sha256: str


def load_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      PackError: the file is missing, is not JSON or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackError(f"{path}: no such file; is this a teacher pack?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PackError(f"{path}: not valid JSON ({error}); write it again") from None
    if not isinstance(content, dict):
        raise PackError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def load_manifest(pack: str | Path) -> Manifest:
    """Reads and checks the manifest of a source pack.

    Raises:
      PackError: it is missing, of another format or version, or its values are impossible.
    """
    path = Path(pack) / pack_format.MANIFEST_NAME
    content = load_json(path)
    if content.get("format") != pack_format.SOURCE_FORMAT:
        raise PackError(
            f"{path}: expected format {pack_format.SOURCE_FORMAT!r}, got {content.get('format')!r};"
            " give the folder of a source pack"
        )
    if content.get("version") != pack_format.SOURCE_VERSION:
        raise PackError(
            f"{path}: expected version {pack_format.SOURCE_VERSION}, got"
            f" {content.get('version')!r}; write the pack again with this version's tools"
        )
    for key, expected in (
        ("coefficient_names", pack_format.COEFFICIENT_NAMES),
        ("regions", pack_format.REGIONS),
    ):
        if content.get(key) != list(expected):
            raise PackError(f"{path}: {key} must be data.format's {len(expected)} names in order")
    for key in ("teacher", "licence", "fps"):
        if not content.get(key):
            raise PackError(f"{path}: {key!r} is missing")
    size = content.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(_is_count(side) for side in size)):
        raise PackError(f"{path}: image_size must be [height, width], got {size!r}")
    if size[0] != size[1]:
        raise PackError(f"{path}: image_size must be square, got {size!r}; crop the frames first")
    return Manifest(content, tuple(size))


def list_identities(pack: str | Path) -> tuple[list[str], list[str]]:
    """The names of the identities of a source pack: (whole, unfinished), each sorted.

    An identity is whole once its identity.json exists; a teacher writes that file last.
    """
    folders = sorted(
        item for item in Path(pack).iterdir() if item.is_dir() and not item.name.startswith(".")
    )
    whole = [item.name for item in folders if (item / pack_format.IDENTITY_NAME).is_file()]
    finished = set(whole)
    return whole, [item.name for item in folders if item.name not in finished]


def load_identity(pack: str | Path, name: str) -> Identity:
    """Reads one identity.json and checks everything that needs no frame.

    Raises:
      BrokenClipError: it is unreadable, a clip is described wrongly, or its clips disagree.
    """
    folder = Path(pack) / name
    path = folder / pack_format.IDENTITY_NAME
    try:
        content = load_json(path)
    except PackError as error:
        raise BrokenClipError(name, "", str(error)) from None
    if content.get("identity") != name:
        reason = f"{path} calls itself {content.get('identity')!r}; rename folder or identity"
        raise BrokenClipError(name, "", reason)
    described = content.get("clips")
    if not isinstance(described, list) or not described:
        raise BrokenClipError(name, "", f"{path} lists no clips")
    clips = [_parse_clip(folder, name, entry) for entry in described]
    _check_consistent(clips)
    clips.sort(key=lambda clip: (clip.performance, clip.view, clip.name))
    return Identity(name, dict(content.get("attributes") or {}), clips, digest.file_sha256(path))


def verify_hashes(clip: Clip) -> None:
    """Compares every file and folder of a clip with the hash in identity.json.

    Raises:
      BrokenClipError: a path is missing or differs from its hash, or has no hash.
    """
    for name in (clip.rgb, clip.alpha, clip.regions, clip.coefficients):
        if name is None:
            continue
        path = clip.folder / name
        if not path.exists():
            raise clip.broken(f"{path} is missing")
        if name not in clip.sha256:
            raise clip.broken(f"identity.json has no sha256 of {name}")
        if digest.path_sha256(path) == clip.sha256[name]:
            continue
        # Other tools may have hashed everything in the folder.
        if not path.is_dir() or digest.folder_sha256(path) != clip.sha256[name]:
            raise clip.broken(f"{path} differs from its sha256: damaged or changed; make it again")


def load_coefficients(clip: Clip) -> np.ndarray | None:
    """The clip's coefficients (frames, 52) float32 in [0, 1], or None.

    Raises:
      BrokenClipError: the file is no such array.
    """
    if clip.coefficients is None:
        return None
    path = clip.folder / clip.coefficients
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise clip.broken(f"{path} is not a readable .npy file ({error})") from None
    expected = (clip.frames, len(pack_format.COEFFICIENT_NAMES))
    if values.shape != expected or values.dtype.kind != "f":
        raise clip.broken(f"{path}: expected float32 {expected}, got {values.dtype} {values.shape}")
    slack = _COEFFICIENT_TOLERANCE
    if not ((values >= -slack) & (values <= 1 + slack)).all():  # NaN fails this, too.
        raise clip.broken(f"{path}: values outside [0, 1] or not finite")
    return np.clip(values, 0, 1).astype(np.float32)


def read_frames(
    clip: Clip, image_size: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Decodes the frames of a clip one by one.

    Args:
      clip: the clip.
      image_size: (H, W) that every frame must have.

    Yields:
      image (H, W, 3) uint8 RGB over black, alpha (H, W) uint8 (255 where the clip has no matte),
      regions (H, W) uint8 or None.

    Raises:
      BrokenClipError: a frame is missing, unreadable, of another size, or there are too many.
    """
    try:
        video = frame_file.read_rgb(clip.folder / clip.rgb, clip.frames)
        for index, (image, alpha) in enumerate(video):
            _check_size(clip, clip.rgb, index, image, image_size)
            if clip.alpha is not None:
                alpha = frame_file.read_gray(clip.folder / clip.alpha, index, palette=False)
                _check_size(clip, clip.alpha, index, alpha, image_size)
            elif alpha is None:
                alpha = np.full(image_size, 255, np.uint8)
            regions = None
            if clip.regions is not None:
                regions = frame_file.read_gray(clip.folder / clip.regions, index, palette=True)
                _check_size(clip, clip.regions, index, regions, image_size)
                wrong = regions[regions != pack_format.REGION_UNKNOWN].max(initial=0)
                if wrong >= len(pack_format.REGIONS):
                    raise clip.broken(f"{clip.regions} frame {index}: label {wrong} > 7")
            yield image, alpha, regions
    except frame_file.FrameError as error:
        raise clip.broken(str(error)) from None


def _check_size(clip: Clip, name: str, index: int, array: np.ndarray, size: tuple[int, int]):
    if array.shape[:2] != size:
        got = "x".join(map(str, array.shape[:2]))
        raise clip.broken(f"{name} frame {index} is {got}, the manifest says {size[0]}x{size[1]}")


def _parse_clip(folder: Path, identity: str, entry: Any) -> Clip:
    if not isinstance(entry, dict):
        raise BrokenClipError(identity, "", "a clip is not a JSON object")
    name = entry.get("name")

    def broken(reason: str) -> BrokenClipError:
        return BrokenClipError(identity, str(name or "<no name>"), reason)

    texts = {}
    for key in ("name", "performance", "view"):
        value = entry.get(key)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise broken(f"{key!r} must be a name, got {value!r}")
        texts[key] = str(value)
    frames = entry.get("frames")
    if not _is_count(frames):
        raise broken(f"'frames' must be a positive number, got {frames!r}")
    paths = {}
    for key in ("rgb", "alpha", "regions", "coefficients"):
        value = entry.get(key)
        if value is None and key != "rgb":
            paths[key] = None
            continue
        if not isinstance(value, str) or not _is_inside(value):
            raise broken(f"{key!r} must be a path inside the identity's folder, got {value!r}")
        paths[key] = value
    estimated = entry.get("coefficients_estimated", False)
    if not isinstance(estimated, bool):
        raise broken(f"'coefficients_estimated' must be true or false, got {estimated!r}")
    hashes = entry.get("sha256")
    if not isinstance(hashes, dict):
        raise broken("'sha256' must map each file or folder to its hash")
    cam2world, intrinsics = _parse_camera(entry.get("camera"), frames, broken)
    return Clip(
        folder=folder,
        identity=identity,
        frames=frames,
        cam2world=cam2world,
        intrinsics=intrinsics,
        sha256=hashes,
        coefficients_estimated=estimated,
        **texts,
        **paths,
    )


def _parse_camera(camera: Any, frames: int, broken) -> tuple[np.ndarray | None, np.ndarray | None]:
    if camera == pack_format.UNKNOWN_CAMERA:
        return None, None
    if not isinstance(camera, dict):
        raise broken(f"'camera' must be an object or {pack_format.UNKNOWN_CAMERA!r}")
    try:
        cam2world = np.asarray(camera.get("cam2world"), np.float64)
        intrinsics = np.asarray(camera.get("intrinsics"), np.float64)
    except (TypeError, ValueError):
        raise broken("cam2world and intrinsics must be matrices of numbers") from None
    if cam2world.shape == (4, 4):
        cam2world = np.broadcast_to(cam2world, (frames, 4, 4))
    if cam2world.shape != (frames, 4, 4):
        raise broken(f"cam2world must be (4, 4) or ({frames}, 4, 4), got {cam2world.shape}")
    rotation = cam2world[:, :3, :3]
    gram = rotation @ rotation.transpose(0, 2, 1)
    if (
        not np.isfinite(cam2world).all()
        or np.abs(gram - np.eye(3)).max() > _ROTATION_TOLERANCE
        or np.linalg.det(rotation).min() < 0
        or np.abs(cam2world[:, 3] - (0, 0, 0, 1)).max() > 0
    ):
        raise broken("cam2world is not a rotation and a translation (OpenCV axes, right-handed)")
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        raise broken(f"intrinsics must be a finite (3, 3) matrix, got shape {intrinsics.shape}")
    focals = intrinsics[0, 0], intrinsics[1, 1]
    # A focal length of 50 image widths or more means pixels instead of normalised units.
    if not all(0.1 < focal < 50 for focal in focals) or list(intrinsics[2]) != [0, 0, 1]:
        raise broken(f"intrinsics must be normalised by the image size, got focals {focals}")
    return cam2world.astype(np.float32), intrinsics.astype(np.float32)


def _check_consistent(clips: list[Clip]) -> None:
    """Names are unique, and the views of one performance have one number of frames."""
    names: set[str] = set()
    first: dict[str, Clip] = {}
    seen: set[tuple[str, str]] = set()
    for clip in clips:
        if clip.name in names:
            raise clip.broken("two clips have this name")
        names.add(clip.name)
        if (clip.performance, clip.view) in seen:
            raise clip.broken(f"performance {clip.performance} has view {clip.view} twice")
        seen.add((clip.performance, clip.view))
        other = first.setdefault(clip.performance, clip)
        if other.frames != clip.frames:
            raise clip.broken(
                f"{clip.frames} frames, but {other.name}, another view of performance"
                f" {clip.performance}, has {other.frames}"
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < math.inf


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts
