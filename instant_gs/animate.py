"""Animates one photo by a video.

    python -m instant_gs.animate --source=photo.png --driving=video.mp4 --out=avatar.mp4
    python -m instant_gs.animate --source=photo.png --driving=video.mp4 --out=a.mp4 --record=m.npz
    python -m instant_gs.animate --source=other.png --driving=m.npz --out=b.mp4
    python -m instant_gs.animate --source=photo.png --driving=arkit.csv --fps=60 --out=c.mp4

--pose says what moves the camera: nothing, the driver's head, or a swing around the avatar, for
which no --driving is needed.
"""

import contextlib
import functools
import itertools
import math
import sys

from absl import flags

from instant_gs import animate_flags, cli, output

flags.adopt_module_key_flags(animate_flags)
_FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Checks the flags, then imports what is heavy and animates."""
    del argv
    animate_flags.check()
    from instant_gs.inference import avatar

    engine = avatar.load(_FLAGS.weights)
    animate_flags.check_weights(engine)
    if _FLAGS.culling:
        engine = engine.with_culling(_FLAGS.culling)
    if _FLAGS.capacity:
        engine = engine.with_capacity(_FLAGS.capacity)
    with contextlib.ExitStack() as results:  # appear together when all is done, or not at all
        lines = _animate(engine, results)
    for line in lines:
        print(line)


def _animate(engine, results: contextlib.ExitStack) -> list[str]:
    """Writes the results and says what they are."""
    from instant_gs.inference import animate, export
    from instant_gs.portrait import video

    paths = (_FLAGS.show_crop, _FLAGS.record, _FLAGS.ply)
    crop, record, ply = (_result(results, path) for path in paths)
    recording = _read_recording(engine) if animate_flags.is_recording() else None
    source = _read_source(engine, crop)
    reader = _reader(engine, source, recording)
    drivers, poses, count, fps = _read_drivers(engine, source.face, recording, reader)
    if _FLAGS.ply and _FLAGS.ply_frame >= count:
        raise cli.UserError(
            f"--ply_frame: the result has {count} frames, 0 to {count - 1}; there is no "
            f"{_FLAGS.ply_frame}"
        )
    size = _FLAGS.size or engine.image_size
    cameras = _cameras(poses, count, fps, engine.fov_degrees)
    clock = animate.Clock()
    made = animate.frames(
        engine,
        source.face,
        drivers,
        cameras,
        size=size,
        fps=fps,
        steady=_FLAGS.steady,
        expression=_FLAGS.expression,
        gaussians=_FLAGS.gaussians,
        reader=reader.name,
        progress=lambda pictures: _progress(pictures, len(pictures), "sort"),
        clock=clock,
    )
    motions, overflow, lines = [], [], []
    writer = video.Writer(_FLAGS.out, fps=fps, overwrite=_FLAGS.overwrite)
    results.enter_context(writer)
    for index, frame in enumerate(_after_the_first(made, count)):
        wide = _FLAGS.side_by_side
        writer.append(animate.side_by_side(source.image, frame) if wide else frame.image)
        motions.append(frame.motion)
        overflow.append(frame.overflow)
        if ply and index == _FLAGS.ply_frame:
            width = engine.filter_width
            exported = export.write_ply(ply, frame.gaussians, filter_width=width, overwrite=True)
            lines += [f"{_FLAGS.ply}: {exported} Gaussians of frame {index}"]
    _warn([_missing(engine, size, overflow)])
    if crop:
        lines += [f"{_FLAGS.show_crop}: what was taken of the photo"]
    if record:
        _record(engine, motions, fps, reader.name, record)
        lines += [f"{_FLAGS.record}: the motion of {len(motions)} frames"]
    height, width, _ = writer.shape
    lines += [f"{_FLAGS.out}: {writer.count} frames of {width}x{height} at {fps:g} a second"]
    if clock.frames:
        lines += [
            f"{clock.speed()}: motion code, animation and rendering, one frame after the other; "
            f"without the avatar itself ({clock.photo_seconds:.1f} s), the first frame and the "
            f"filter's calibration, which compile ({clock.compile_seconds:.1f} s), decoding, face "
            "tracking, background removal and writing"
        ]
    return lines


def _missing(engine, size: int, overflow: list[int]) -> str:
    """What to say of frames that lack Gaussians; "" if none does."""
    from instant_gs import rendering

    if not any(overflow):
        return ""
    frames = f"{_FLAGS.out}: {sum(map(bool, overflow))} of {len(overflow)} frames"
    return f"{frames}: {rendering.shortage(overflow, engine.raster_options(size).capacity)}"


def _result(results: contextlib.ExitStack, path: str | None):
    """Where to write what a flag asks for; None if it does not."""
    if path:
        return results.enter_context(output.whole_file(path, overwrite=_FLAGS.overwrite))
    return None


def _cameras(poses, count: int, fps: float, fov_degrees: float):
    from instant_gs.inference import camera_path

    around = {"yaw": _FLAGS.yaw, "pitch": _FLAGS.pitch, "fps": fps, "fov_degrees": fov_degrees}
    if _FLAGS.pose == "driver":
        return camera_path.follow(poses, steady=_FLAGS.steady, **around)
    swing = _FLAGS.orbit if _FLAGS.pose == "orbit" else 0.0
    return camera_path.orbit(count, swing=swing, **around)


def _read_source(engine, crop):
    from instant_gs.inference import source
    from instant_gs.portrait import photo

    path, size = _FLAGS.source, engine.image_size
    if _FLAGS.source_aligned:
        aligned = source.read_aligned(path, size)
    else:
        view = engine.fov_degrees
        aligned = source.align(path, _detector(), size, _FLAGS.mask, fov_degrees=view)
    _warn(aligned.warnings)
    if crop:
        photo.write(crop, source.explain(aligned), overwrite=True)
    return aligned


def _reader(engine, source, recording):
    """Who reads the expressions: photo and drivers alike."""
    from instant_gs.inference import reader

    known = source.coefficients is not None and not _FLAGS.driving_aligned
    name = _FLAGS.reader
    if recording is not None and known:
        name = name or recording.reader
    made = reader.Reader(engine, name, known=known)
    if recording is not None and made.name != recording.reader:
        _warn(
            [
                f"{_FLAGS.driving}: its driver was read by the {recording.reader}, the photo is by "
                f"the {made.name}; the expression is a little off (--reader)"
            ]
        )
    return made


def _read_drivers(engine, still, recording, reader):
    """What drives, the head poses or None, how many frames there are, and their rate."""
    from instant_gs.inference import camera_path
    from instant_gs.portrait import tracking, video

    size, view = engine.image_size, engine.fov_degrees
    limit = _FLAGS.max_frames
    if recording is not None:
        return _recorded(recording, limit)
    if not _FLAGS.driving:
        fps = _FLAGS.fps or video.DEFAULT_FPS
        count = limit or max(1, round(camera_path.ORBIT_SECONDS * fps))
        return itertools.repeat(still, count), None, count, fps
    clip = video.open_video(_FLAGS.driving, fps=_FLAGS.fps)
    if _FLAGS.driving_aligned:
        empty = [not driver.any() for driver in tracking.aligned_drivers(clip, size, limit=limit)]
        count = len(empty)
        _warn([clip.problem, _black(clip.path, empty)])
        return tracking.aligned_drivers(clip, size, limit=limit), None, count, clip.fps
    decoded = _progress(clip.frames(limit), min(clip.expected_frames, limit or 10**9), "track")
    options = {"fps": clip.fps, "box": _FLAGS.driving_box, "fov_degrees": view}
    track = tracking.track(clip.path, decoded, _detector(), **options)
    _warn([clip.problem, *track.warnings(clip.path, hold_seconds=_FLAGS.hold)])
    matte = _FLAGS.driving_matte
    if matte is None:
        matte = reader.expects_matte or _FLAGS.side_by_side
    drivers = tracking.drivers(
        clip.frames(limit),
        track,
        size,
        matte=matte,
        hold=math.ceil(_FLAGS.hold * clip.fps),
    )
    return drivers, track.poses, len(track.found), clip.fps


def _black(path, empty: list[bool]) -> str:
    if not any(empty):
        return ""
    return (
        f"{path}: {sum(empty)} of {len(empty)} frames are black; the photo's own expression is "
        "shown there"
    )


def _read_recording(engine):
    from instant_gs.inference import coefficient_file, motion_file

    path = _FLAGS.driving
    if not animate_flags.is_table():
        return motion_file.load(path, engine.params)
    rows, missing = coefficient_file.load(path)
    if missing:
        some = f"{len(missing)} of {rows.shape[1]} blend shapes, which stay 0: {', '.join(missing)}"
        _warn([f"{path}: no column for {some}"])
    return motion_file.of_coefficients(engine, rows, _FLAGS.fps)


def _recorded(recording, limit: int):
    from instant_gs import types

    rows = zip(recording.motion.scale, recording.motion.shift, strict=True)
    motions = [types.Motion(*row) for row in rows][: limit or None]
    return motions, None, len(motions), _FLAGS.fps or recording.fps


def _record(engine, motions, fps: float, reader: str, path) -> None:
    import numpy as np

    from instant_gs import types
    from instant_gs.inference import motion_file

    scale, shift = (np.stack([getattr(m, name) for m in motions]) for name in ("scale", "shift"))
    stream = types.Motion(scale, shift)
    decoder = motion_file.fingerprint(engine.params)
    recording = motion_file.Recording(stream, fps, decoder, reader)
    motion_file.save(path, recording, overwrite=True)


@functools.cache
def _detector():
    from instant_gs.metrics import face

    try:
        return face.FaceLandmarker()
    except ImportError as error:  # says which command installs what is missing
        raise cli.UserError(f"finding faces: {error}") from error


def _progress(items, total: int, what: str, done: int = 0):
    from tqdm import tqdm

    bar = {"desc": what, "unit": "frame", "leave": False}
    return tqdm(items, total=total or None, initial=done, **bar)


def _after_the_first(made, count: int):
    """Frames with a bar from the second on: the first compiles and tells nothing about the rest."""
    print("making the avatar and the first frame", file=sys.stderr)
    yield next(made)
    yield from _progress(made, count, "animate", done=1)


def _warn(sentences) -> None:
    for sentence in sentences:
        if sentence:
            print(f"warning: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
