"""Which videos are in a folder, and whose they are: a plain folder, or X-NeMo's output."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from instant_gs import cli

LAYOUTS = ("folder", "xnemo")
SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".avi", ".mkv")

_DRIVEN_BY = "_drivenby_"
_DRIVER_COPY = "_driving.mp4"


@dataclasses.dataclass(frozen=True)
class Source:
    """One video.

    Attributes:
        path: The file.
        identity: Whose it is; the name of the pack's identity.
        clip: Name of the clip, unique within the identity.
        performance: What is performed: the same name means the same, frame by frame.
    """

    path: Path
    identity: str
    clip: str
    performance: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        root: The folder that paths in reports are relative to.
        sources: The videos, sorted by identity and clip.
        ignored: (path, reason) of whatever else is there.
    """

    root: Path
    sources: tuple[Source, ...]
    ignored: tuple[tuple[Path, str], ...]


def find(videos: str | Path, layout: str) -> Found:
    """Looks through a folder; opens no video.

    `folder`: every subfolder is an identity, the videos in it are its clips; a video beside the
    subfolders is an identity of its own. `xnemo`: `split_vid/SOURCE_drivenby_DRIVER.mp4`, the
    identity is the source picture, the performance is the driver, so that everybody whom one
    driver drove performs the same.

    Args:
        videos: The folder; of X-NeMo the run's folder or its `split_vid`.
        layout: One of `LAYOUTS`.

    Raises:
        cli.UserError: No such folder, no video in it, or two videos with one name.
        ValueError: No such layout.
    """
    root = Path(videos)
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}; got {layout!r}")
    if not root.is_dir():
        raise cli.UserError(f"--videos: {root} is no folder; give the folder that holds the videos")
    found = _find_folder(root) if layout == "folder" else _find_xnemo(root)
    if not found.sources:
        raise cli.UserError(f"--videos: {_nothing(found, layout)}")
    _check_unique(found.sources)
    return found


def _nothing(found: Found, layout: str) -> str:
    expected = {
        "folder": f"IDENTITY/*.mp4 or IDENTITY.mp4 (or {', '.join(SUFFIXES[1:])})",
        "xnemo": f"split_vid/SOURCE{_DRIVEN_BY}DRIVER.mp4",
    }[layout]
    others = f", only {len(found.ignored)} other files and folders" if found.ignored else ""
    return f"{found.root} holds no video{others}; expected {expected}"


def _find_folder(root: Path) -> Found:
    sources, ignored = [], []
    for item in _visible(root):
        if not item.is_dir():
            if item.suffix.lower() in SUFFIXES:
                sources.append(_own(item, item.stem))
            else:
                ignored.append((item, "not a video"))
            continue
        for path in _visible(item):
            if path.is_file() and path.suffix.lower() in SUFFIXES:
                sources.append(_own(path, item.name))
            else:
                reason = "a folder in an identity's folder" if path.is_dir() else "not a video"
                ignored.append((path, reason))
    return Found(root, _sorted(sources), tuple(ignored))


def _own(path: Path, identity: str) -> Source:
    # Nobody else performs it: the identity is part of the performance's name.
    return Source(path, identity, path.stem, f"{identity}/{path.stem}")


def _find_xnemo(root: Path) -> Found:
    folder = root if root.name == "split_vid" else root / "split_vid"
    if not folder.is_dir():
        raise cli.UserError(
            f"--videos: {root} has no folder split_vid; give the folder of one X-NeMo run"
            " (output/DATE--NAME)"
        )
    items = _visible(folder)
    names = {item.name for item in items}
    sources, ignored = [], []
    for item in items:
        identity, _, driver = item.stem.partition(_DRIVEN_BY)
        if item.name.endswith(_DRIVER_COPY) and _without(item.name, _DRIVER_COPY) in names:
            ignored.append((item, "the driving video beside its result"))
        elif item.name.endswith("_src.png"):
            ignored.append((item, "the source picture beside its result"))
        elif item.is_dir() or item.suffix.lower() != ".mp4" or not (identity and driver):
            ignored.append((item, f"its name is not SOURCE{_DRIVEN_BY}DRIVER.mp4"))
        else:
            sources.append(Source(item, identity, driver, driver))
    return Found(folder, _sorted(sources), tuple(ignored))


def _without(name: str, ending: str) -> str:
    return name.removesuffix(ending) + ".mp4"


def _visible(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if not item.name.startswith("."))


def _sorted(sources: Iterable[Source]) -> tuple[Source, ...]:
    return tuple(sorted(sources, key=lambda one: (one.identity, one.clip, one.path.name)))


def _check_unique(sources: Iterable[Source]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for one in sources:
        other = seen.setdefault((one.identity, one.clip), one.path)
        if other != one.path:
            raise cli.UserError(
                f"--videos: {other} and {one.path} would both be clip {one.clip} of"
                f" {one.identity}; rename one of them"
            )
