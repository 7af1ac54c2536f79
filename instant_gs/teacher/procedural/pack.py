"""Writes teacher packs in the source form: identities x performances x views."""

import dataclasses
import errno
import functools
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import tqdm

from instant_gs.data import format as pack_format
from instant_gs.data import frame_file, source_writer, worker
from instant_gs.geometry import camera
from instant_gs.teacher.procedural import identity, performance, scene, view

NAME, VERSION, FPS = "instant_gs.procedural", 1, 25
LICENCE = "CC0-1.0"
#: With less free space than this (bytes) a failed write is blamed on the disk.
_FULL_DISK = 1 << 20
_COMPRESSION = 1  # of PNGs


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides every byte of a pack, besides which identities are in it.

    Attributes:
        seed: Pack seed: identities, cameras. performance_seed: the bank of performances.
        bank: How many performances the pack has; performances: how many an identity performs.
        frames: Frames of a performance. views: cameras of a performance.
        image_size: Side in pixels. max_yaw_degrees: of the views besides the front one.
        video: RGB as mp4 instead of PNG.
    """

    seed: int = 0
    performance_seed: int = 0
    bank: int = 48
    performances: int = 6
    frames: int = 4
    views: int = 3
    image_size: int = 128
    max_yaw_degrees: float = 50.0
    video: bool = False

    def validate(self):
        """Raises ValueError with every problem."""
        problems = []
        for name in ("seed", "performance_seed"):
            if not 0 <= getattr(self, name) < 10000:
                problems.append(f"{name}: expected 0 to 9999, got {getattr(self, name)}")
        for name in ("bank", "performances", "frames", "views"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.performances > self.bank:
            problems.append(
                f"performances: expected at most bank = {self.bank}, got {self.performances}"
            )
        if not 16 <= self.image_size <= 1024:
            problems.append(f"image_size: expected 16 to 1024, got {self.image_size}")
        if not 0 <= self.max_yaw_degrees <= 90:
            problems.append(f"max_yaw: expected 0 to 90 degrees, got {self.max_yaw_degrees}")
        if problems:
            raise ValueError("; ".join(problems))


def open_pack(pack, settings):
    """Starts a pack or checks that an existing one was made with the same settings.

    Raises:
        ValueError: The folder holds something else, or a pack of other settings.
    """
    source_writer.start(
        pack,
        teacher={"name": NAME, "version": VERSION, **dataclasses.asdict(settings)},
        licence=LICENCE,
        fps=FPS,
        image_size=(settings.image_size, settings.image_size),
    )


def write_identity(pack, settings, index):
    """Renders one identity into the pack; what a killed run left of it is removed first.

    Args:
        pack: Folder.
        settings: Settings.
        index: Identity index.
    """
    try:
        _write_identity(Path(pack), settings, index)
    except (OSError, RuntimeError) as error:
        # Writers that hide the system's error (FFmpeg) leave only this trace of a full disk.
        if shutil.disk_usage(pack).free < _FULL_DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(pack)) from error
        raise


def _write_identity(pack, settings, index):
    cv2.setNumThreads(1)
    name = identity.name_of(settings.seed, index)
    folder = pack / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    who = scene.person(settings.seed, index)
    clips = []
    numbers = performance.choose(settings.seed, index, settings.bank, settings.performances)
    for number in numbers:
        act = performance.make(settings.performance_seed, number)
        clips.extend(_write_performance(folder, settings, index, who, act))
    source_writer.write_identity(pack, name, attributes=who.attributes.summary(), clips=clips)


def _write_performance(folder, settings, index, who, act):
    """Renders all views of one performance and describes its clips."""
    size = (settings.image_size, settings.image_size)
    coefficients = act.frames(settings.frames)
    buffer = io.BytesIO()
    np.save(buffer, coefficients)
    (folder / f"{act.name}.npy").write_bytes(buffer.getvalue())
    poses = [
        view.draw(settings.seed, index, act.name, number, np.radians(settings.max_yaw_degrees))
        for number in range(settings.views)
    ]
    lens = camera.intrinsics()
    clips = [_describe(act, number, pose, lens, settings) for number, pose in enumerate(poses)]
    for clip in clips:
        for key in ("alpha", "regions") if settings.video else ("rgb", "alpha", "regions"):
            (folder / clip[key]).mkdir()
    videos = [[] for _ in poses]
    for number, row in enumerate(coefficients):
        worker.stop_if_asked()
        moved = scene.frame(who, row)
        for clip, pose, video in zip(clips, poses, videos, strict=True):
            shot = scene.picture(who, moved, pose, lens, size)
            name = f"{number:05d}.png"
            if settings.video:
                video.append(shot.image)
            else:
                frame_file.write_png(folder / clip["rgb"] / name, shot.image, _COMPRESSION)
            frame_file.write_png(folder / clip["alpha"] / name, shot.alpha, _COMPRESSION)
            frame_file.write_png(folder / clip["regions"] / name, shot.regions, _COMPRESSION)
    if settings.video:
        for clip, video in zip(clips, videos, strict=True):
            _write_video(folder / clip["rgb"], np.stack(video))
    return clips


def _describe(act, number, pose, lens, settings):
    name = f"{act.name}-v{number}"
    return {
        "name": name,
        "performance": act.name,
        "view": str(number),
        "frames": settings.frames,
        "rgb": f"{name}.mp4" if settings.video else f"{name}.rgb",
        "alpha": f"{name}.alpha",
        "regions": f"{name}.regions",
        "camera": {"cam2world": pose.tolist(), "intrinsics": lens.tolist()},
        "coefficients": f"{act.name}.npy",
    }


def _write_video(path, frames):
    import imageio.v3 as iio

    # Lossless RGB would not play everywhere; quality 10 keeps the difference invisible.
    iio.imwrite(
        path,
        frames,
        fps=FPS,
        codec="libx264",
        quality=10,
        macro_block_size=2,
        output_params=["-threads", "1"],
    )


def write(pack, settings, *, start, identities, workers, progress=True):
    """Renders identities `start` .. `start + identities - 1`, skipping those that are whole.

    Args:
        pack: Folder of the pack.
        settings: Settings.
        start: First identity index.
        identities: How many.
        workers: Processes; 1 renders in this one.
        progress: Show a progress bar.

    Returns:
        (rendered, skipped) counts.
    """
    settings.validate()
    pack = Path(pack)
    open_pack(pack, settings)
    todo = []
    for index in range(start, start + identities):
        name = identity.name_of(settings.seed, index)
        if not (pack / name / pack_format.IDENTITY_NAME).is_file():
            todo.append(index)
    render = functools.partial(write_identity, pack, settings)
    with tqdm.tqdm(total=len(todo), unit="identity", disable=not progress, smoothing=0.05) as bar:
        for _ in worker.results(render, todo, workers):
            bar.update()
    return len(todo), identities - len(todo)


def summary_line(pack, rendered, skipped, settings):
    """One JSON line for scripts."""
    views = settings.performances * settings.frames * settings.views
    return json.dumps(
        {
            "pack": str(pack),
            "rendered_identities": rendered,
            "skipped_identities": skipped,
            "frame_views": rendered * views,
        }
    )
