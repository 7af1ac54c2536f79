"""Imports a folder of videos into a teacher pack's source form: parallel, resumable, with a report.

Each video is one clip of one view, and its own job. An identity's identity.json, which makes it
whole, is written when all of its videos are done.
"""

import collections
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instant_gs import output
from instant_gs.data import format as pack_format
from instant_gs.data import source as pack_source
from instant_gs.data import source_writer, worker
from instant_gs.portrait import video
from instant_gs.teacher.importer import clip, layout

VERSION = 1
REPORT_NAME = "import_report.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides every frame of a pack, besides the videos.

    Attributes:
        teacher: Name of whatever made the videos.
        licence: What others may do with the frames, an SPDX name or a sentence.
        layout: One of `layout.LAYOUTS`.
        image_size: Side of the frames, pixels.
        every: Every so many frames of a video one is taken.
    """

    teacher: str
    licence: str
    layout: str = "folder"
    image_size: int = 256
    every: int = 1

    def validate(self) -> None:
        """Raises ValueError with every problem."""
        problems = [
            f"{name}: expected {what}, got {getattr(self, name)!r}"
            for name, good, what in (
                ("teacher", bool(self.teacher.strip()), "the name of what made the videos"),
                ("licence", bool(self.licence.strip()), "an SPDX name or a sentence"),
                ("layout", self.layout in layout.LAYOUTS, f"one of {', '.join(layout.LAYOUTS)}"),
                ("image_size", 16 <= self.image_size <= 1024, "16 to 1024"),
                ("every", self.every >= 1, "at least 1"),
            )
            if not good
        ]
        if problems:
            raise ValueError("; ".join(problems))


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in the pack after an import.

    Attributes:
        identities, clips, frames: Usable ones, of all imports into this pack from these videos.
        failed_frames: How many frames were looked at and refused.
        reasons: Reason without its numbers -> how many frames.
        unusable: (video, reason) of videos without a usable frame.
        ignored: How many files and folders are no videos of this layout.
        new: How many videos this run imported.
        report: The file with all of it, frame by frame.
    """

    identities: int
    clips: int
    frames: int
    failed_frames: int
    reasons: collections.Counter
    unusable: list[tuple[str, str]]
    ignored: int
    new: int
    report: Path


def write(
    pack: str | Path,
    videos: str | Path,
    settings: Settings,
    *,
    workers: int = 1,
    progress: bool = False,
) -> Summary:
    """Imports all videos of a folder that the pack does not hold yet.

    Args:
        pack: Folder of the pack, new, or started by an import with the same settings.
        videos: What `layout.find` looks through.
        settings: Settings.
        workers: Processes; the frames do not depend on it.
        progress: Draw a progress bar on stderr.

    Raises:
        cli.UserError: No video, or one that was imported before and has changed since.
        ImportError: The landmark network is not installed; names the command.
        ValueError: Impossible settings, or the folder holds another pack.
    """
    settings.validate()
    pack = Path(pack)
    found = layout.find(videos, settings.layout)
    _check_detector()
    source_writer.start(
        pack,
        teacher={
            "name": settings.teacher,
            "importer": VERSION,
            "layout": settings.layout,
            "image_size": settings.image_size,
            "every": settings.every,
        },
        licence=settings.licence,
        # Of the usual video; each clip has its own "fps".
        fps=video.DEFAULT_FPS / settings.every,
        image_size=(settings.image_size,) * 2,
    )
    jobs = [
        clip.Job(pack, source, found.root, settings.image_size, settings.every)
        for source in found.sources
    ]
    records = {job: clip.load_record(job) for job in jobs}
    todo = [job for job, record in records.items() if record is None]
    open_jobs = collections.Counter(job.source.identity for job in todo)
    for name in {job.source.identity for job in jobs} - set(open_jobs):
        _finish(pack, name, records)
    with tqdm(total=len(todo), unit="video", desc="importing", disable=not progress) as bar:
        for job, record in worker.results(_import, todo, workers):
            records[job] = record
            open_jobs[job.source.identity] -= 1
            if not open_jobs[job.source.identity]:
                _finish(pack, job.source.identity, records)
            bar.update()
    return _report(pack, found, records, len(todo))


def _import(job: clip.Job) -> tuple[clip.Job, dict[str, Any]]:
    return job, clip.write(job)


def _check_detector() -> None:
    """Fails now, and not in every worker, if the landmark network cannot run."""
    from instant_gs.metrics import face

    face.FaceLandmarker().close()


def _finish(pack: Path, identity: str, records: dict[clip.Job, dict[str, Any]]) -> None:
    """Writes identity.json, unless it holds these clips already or there is none."""
    own = {job: record for job, record in records.items() if job.source.identity == identity}
    usable = {job: record for job, record in own.items() if record["frames"]}
    folder = pack / identity
    if not usable:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # or validation would call it unfinished
        return
    names = [job.source.clip for job in usable]
    path = folder / pack_format.IDENTITY_NAME
    if path.is_file():
        there = pack_source.load_json(path)["clips"]
        names_there = [one["name"] for one in there]
        if set(names) <= set(names_there):
            return
        kept = [one for one in there if one["name"] not in names]
    else:
        kept = []
    clips = [*kept, *(clip.entry(job.source, record) for job, record in usable.items())]
    source_writer.write_identity(
        pack,
        identity,
        attributes={"videos": sorted(record["video"] for record in usable.values())},
        clips=sorted(clips, key=lambda one: one["name"]),
    )


def _report(
    pack: Path, found: layout.Found, records: dict[clip.Job, dict[str, Any]], new: int
) -> Summary:
    """Writes the report and sums it up."""
    done = list(records.values())
    usable = [record for record in done if record["frames"]]
    unusable = [(record["video"], _why(record)) for record in done if not record["frames"]]
    content = {
        "videos": [
            {key: record[key] for key in ("video", "frames", "problem")}
            | {"failed_frames": len(record["failed"])}
            for record in done
        ],
        "unusable_videos": [{"video": name, "reason": reason} for name, reason in unusable],
        "failed_frames": list(_frames(done, "failed", "reason")),
        "warnings": list(_frames(done, "warnings", "warning")),
        "ignored": [
            {"path": path.relative_to(found.root).as_posix(), "reason": reason}
            for path, reason in found.ignored
        ],
    }
    output.write_json(pack / REPORT_NAME, content)
    reasons = collections.Counter(_kind(reason) for r in done for _, reason in r["failed"])
    return Summary(
        identities=len({job.source.identity for job, r in records.items() if r["frames"]}),
        clips=len(usable),
        frames=sum(record["frames"] for record in usable),
        failed_frames=sum(len(record["failed"]) for record in done),
        reasons=reasons,
        unusable=unusable,
        ignored=len(found.ignored),
        new=new,
        report=pack / REPORT_NAME,
    )


def _frames(records: Iterable[dict[str, Any]], key: str, name: str):
    for record in records:
        for number, text in record[key]:
            yield {"video": record["video"], "frame": number, name: text}


def _why(record: dict[str, Any]) -> str:
    """Why a video has no usable frame."""
    if record["problem"]:
        return record["problem"]
    kinds = collections.Counter(_kind(reason) for _, reason in record["failed"])
    counted = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    return f"none of {len(record['failed'])} frames is usable: {counted}"


def _kind(reason: str) -> str:
    """A reason without what differs from frame to frame."""
    words = reason.partition(" (")[0].split()
    return " ".join("…" if any(c.isdigit() for c in word) else word for word in words)


def lines(pack: str | Path, summary: Summary) -> list[str]:
    """What a person should read after an import."""
    out = [
        f"{pack}: {summary.identities} identities, {summary.clips} clips, {summary.frames} frames"
        f" ({summary.new} videos new)"
    ]
    if summary.failed_frames:
        out.append(f"{summary.failed_frames} frames refused:")
        out += [f"  {count} x {reason}" for reason, count in summary.reasons.most_common()]
    if summary.unusable:
        out.append(f"{len(summary.unusable)} videos without a usable frame:")
        out += [f"  {name}: {reason}" for name, reason in summary.unusable[:20]]
        if len(summary.unusable) > 20:
            out.append("  ...")
    if summary.ignored:
        out.append(f"{summary.ignored} files and folders that are no videos of this layout")
    return [*out, f"{summary.report}: every one of them, frame by frame"]
