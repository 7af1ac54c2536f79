"""One video to one clip of a teacher pack.

A clip's frames are written into a folder with another name, which is renamed when all are there;
then a record says what became of the video. A video without a usable frame has a record only.
"""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instant_gs import cli, output
from instant_gs.data import digest, frame_file, worker
from instant_gs.data import source as pack_source
from instant_gs.geometry import camera
from instant_gs.portrait import detection, tracking, video
from instant_gs.teacher.importer import frame, layout

#: Hidden, so that no reader takes it for an identity.
RECORD_FOLDER = ".import"
VIEW = "camera"

_COMPRESSION = 3  # of PNGs
_DIGITS = 6  # of matrices in JSON


@dataclasses.dataclass(frozen=True)
class Job:
    """What to import.

    Attributes:
        pack: Folder of the pack.
        source: The video.
        root: What paths in records are relative to.
        size: Side of the pack's frames.
        every: Every so many frames one is taken.
    """

    pack: Path
    source: layout.Source
    root: Path
    size: int
    every: int

    @property
    def record_path(self) -> Path:
        """Where the record of this video lies."""
        return self.pack / RECORD_FOLDER / self.source.identity / f"{self.source.clip}.json"

    @property
    def folder(self) -> Path:
        """Where the clip's files lie."""
        return self.pack / self.source.identity / self.source.clip


def load_record(job: Job) -> dict[str, Any] | None:
    """The record of a video that was imported before; None if it was not, or not wholly.

    A changed video is imported again if the one before gave no frame.

    Raises:
        cli.UserError: Its frames were imported from another video.
    """
    if not job.record_path.is_file():
        return None
    record = pack_source.load_json(job.record_path)
    if record["frames"] and not job.folder.is_dir():
        return None
    stat, path = job.source.path.stat(), job.source.path
    same = stat.st_size == record["bytes"] and (
        stat.st_mtime_ns == record["modified_ns"] or digest.file_sha256(path) == record["sha256"]
    )
    if not same and not record["frames"]:
        return None
    if not same:
        raise cli.UserError(
            f"{path}: {job.source.identity}/{job.source.clip} of {job.pack} was imported from"
            f" {record['video']} with other content; rename the new video, or import into another"
            " folder"
        )
    return record


def write(job: Job) -> dict[str, Any]:
    """Imports one video; what a killed run left of it is removed first.

    Returns:
        Its record, which is also written: `frames` (how many were taken), `taken` (their numbers),
        `failed` ([number, reason] of the others), `problem` (why the video cannot be read, or not
        to its end), and what the clip's entry in identity.json needs.
    """
    # Not `NAME.partial`: that could be another clip's name.
    partial = job.folder.with_name(f".{job.source.clip}{output.PARTIAL}")
    for left_over in (partial, job.folder):
        if left_over.exists():
            shutil.rmtree(left_over)
    for name in ("rgb", "regions"):
        (partial / name).mkdir(parents=True)
    record = _Record(job)
    try:
        _take_frames(job, partial, record)
        if record.taken:
            np.save(partial / "coefficients.npy", np.stack(record.coefficients))
            partial.rename(job.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    content = record.content()
    job.record_path.parent.mkdir(parents=True, exist_ok=True)
    output.write_json(job.record_path, content)
    return content


def entry(source: layout.Source, record: dict[str, Any]) -> dict[str, Any]:
    """The clip's entry for `source_writer.write_identity`."""
    return {
        "name": source.clip,
        "performance": record["performance"],
        "view": VIEW,
        "frames": record["frames"],
        "fps": record["fps"],
        "rgb": f"{source.clip}/rgb",
        "alpha": None,
        "regions": f"{source.clip}/regions",
        "camera": {
            "cam2world": record["cam2world"],
            "intrinsics": np.round(camera.intrinsics(), _DIGITS).astype(float).tolist(),
        },
        "coefficients": f"{source.clip}/coefficients.npy",
        "coefficients_estimated": True,
    }


class _Record:
    """What becomes of a video's frames, while they are read."""

    def __init__(self, job: Job):
        self.job = job
        self.taken: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.warnings: list[tuple[int, str]] = []
        self.poses: list[list[list[float]]] = []
        self.coefficients: list[np.ndarray] = []
        self.fps, self.problem = 0.0, ""

    def add(self, number: int, taken: frame.Taken) -> None:
        self.taken.append(number)
        self.warnings += [(number, warning) for warning in taken.warnings]
        self.poses.append(np.round(taken.cam2world.astype(float), _DIGITS).tolist())
        self.coefficients.append(taken.coefficients)

    def content(self) -> dict[str, Any]:
        job, path = self.job, self.job.source.path
        stat = path.stat()
        return {
            "video": path.relative_to(job.root).as_posix(),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "sha256": digest.file_sha256(path),
            "performance": self._performance(),
            "fps": self.fps,
            "frames": len(self.taken),
            "taken": self.taken,
            "failed": self.failed,
            "warnings": self.warnings,
            "problem": self.problem,
            "cam2world": self.poses,
        }

    def _performance(self) -> str:
        """Frame i means the same in all clips of a performance: gaps make it another one."""
        name = self.job.source.performance
        if not self.failed:
            return name
        return f"{name} {digest.bytes_sha256(repr(self.taken).encode())[:8]}"


def _take_frames(job: Job, folder: Path, record: _Record) -> None:
    cv2.setNumThreads(1)
    follow, number = tracking.Follower(_detector()), 0
    try:
        clip = video.open_video(job.source.path)
        record.fps = clip.fps / job.every
        for number, picture in enumerate(clip.frames()):
            if number % job.every:
                continue
            worker.stop_if_asked()
            try:
                taken = frame.take(picture, follow(picture), job.size)
            except frame.RefusedError as error:
                record.failed.append((number, str(error)))
                continue
            name = f"{len(record.taken):05d}.png"
            frame_file.write_png(folder / "rgb" / name, frame.associated(taken), _COMPRESSION)
            frame_file.write_png(folder / "regions" / name, taken.regions, _COMPRESSION)
            record.add(number, taken)
        record.problem = clip.problem
    except (cli.UserError, PermissionError, FileNotFoundError) as error:
        if isinstance(error, OSError) and Path(error.filename or "") != job.source.path:
            raise  # not the video: the pack's own folder, which concerns all videos
        record.problem = str(cli.describe(error))


@functools.cache
def _detector() -> detection.Detector:
    from instant_gs.metrics import face

    return face.FaceLandmarker()
