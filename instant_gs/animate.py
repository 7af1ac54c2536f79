"""Animates one photo by a video.

    python -m instant_gs.animate --source=photo.png --driving=video.mp4 --out=avatar.mp4
    python -m instant_gs.animate --source=photo.png --driving=video.mp4 --out=a.mp4 --record=m.npz
    python -m instant_gs.animate --source=other.png --driving=m.npz --out=b.mp4

--pose says what moves the camera: nothing, the driver's head, or a swing around the avatar, for
which no --driving is needed.
"""

import contextlib
import errno
import functools
import itertools
import math
import os
import sys

from absl import flags

from instant_gs import cli

_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Folder of weights or of a run, or demo; default: small, which ships."
)
_SOURCE = flags.DEFINE_string("source", None, "Photo of one face: PNG, JPEG or WebP.")
_DRIVING = flags.DEFINE_string(
    "driving", None, "Video of one face, folder of frames, or --record's .npz."
)
_OUT = flags.DEFINE_string("out", None, "The .mp4 to write.")
_POSE = flags.DEFINE_enum(
    "pose",
    "fixed",
    ["fixed", "driver", "orbit"],
    "Camera: stays, shows the driver's head pose, or swings.",
)
_YAW = flags.DEFINE_float("yaw", 0.0, "Camera to the head's left (+) or right (-), degrees.")
_PITCH = flags.DEFINE_float("pitch", 0.0, "Camera up (+) or down (-), degrees.")
_ORBIT = flags.DEFINE_float("orbit", 30.0, "Degrees of --pose=orbit to either side of --yaw.")
_SIZE = flags.DEFINE_integer("size", 0, "Side of the picture; default: the model's.")
_GAUSSIANS = flags.DEFINE_integer(
    "gaussians", 0, "Draw only so many, which stand in for the rest; 0: all.", lower_bound=0
)
_CAPACITY = flags.DEFINE_integer(
    "capacity",
    0,
    "How often Gaussians may touch a tile in one picture; 0: enough for the weights that ship. A "
    "warning says when some are missing; more takes memory.",
    lower_bound=0,
)
_CULLING = flags.DEFINE_enum(
    "culling",
    None,
    ["envelope", "source", "none"],
    "Gaussians that the avatar keeps: those that any expression shows [the default], those that "
    "the photo's own shows (as released), or all.",
)
_SIDE_BY_SIDE = flags.DEFINE_boolean("side_by_side", False, "Photo | driving face | avatar.")
_RECORD = flags.DEFINE_string("record", None, "Write the motion to this .npz, too: see --driving.")
_PLY = flags.DEFINE_string("ply", None, "Write one frame's Gaussians to this .ply, too.")
_PLY_FRAME = flags.DEFINE_integer("ply_frame", 0, "Which frame, from 0.", lower_bound=0)
_MASK = flags.DEFINE_string("mask", None, "Grey image, white where the person in the photo is.")
_SHOW_CROP = flags.DEFINE_string("show_crop", None, "Write a picture of what was taken.")
_SOURCE_ALIGNED = flags.DEFINE_boolean("source_aligned", False, "The photo is a wide crop.")
_DRIVING_ALIGNED = flags.DEFINE_boolean("driving_aligned", False, "The frames are wide crops.")
_DRIVING_MATTE = flags.DEFINE_boolean(
    "driving_matte",
    None,
    "Remove the background of the driving video; default: if the motion encoder expects it, which "
    "that of the authors' release does not.",
)
_BOX = flags.DEFINE_enum(
    "driving_box", "smoothed", ["smoothed", "fixed"], "How the crop follows the driving head."
)
_HOLD = flags.DEFINE_float(
    "hold",
    0.0,
    "Seconds without a face after which the photo's own expression returns; until then the last "
    "one is held. 0: it is held to the end.",
)
_STEADY = flags.DEFINE_boolean(
    "steady", True, "Calm motion and head pose by a One-Euro filter; --nosteady passes all on."
)
_FPS = flags.DEFINE_float("fps", 0.0, "Frames a second; default: the driving video's.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 0, "Stop after so many; 0: all.", lower_bound=0)
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace files that exist.")

_MAX_SIZE = 4096  # of the picture: H.264 decoders in browsers end there


def main(argv: list[str]) -> None:
    """Checks the flags, then imports what is heavy and animates."""
    del argv
    _check()
    from instant_gs.inference import avatar

    engine = avatar.load(_WEIGHTS.value)
    _check_weights(engine)
    if _CULLING.value:
        engine = engine.with_culling(_CULLING.value)
    if _CAPACITY.value:
        engine = engine.with_capacity(_CAPACITY.value)
    with contextlib.ExitStack() as results:  # appear together when all is done, or not at all
        lines = _animate(engine, results)
    for line in lines:
        print(line)


def _animate(engine, results: contextlib.ExitStack) -> list[str]:
    """Writes the results and says what they are."""
    from instant_gs.inference import animate, export
    from instant_gs.portrait import video

    crop, record, ply = (_result(results, flag) for flag in (_SHOW_CROP, _RECORD, _PLY))
    view = engine.fov_degrees
    source = _read_source(engine.image_size, view, crop)
    drivers, poses, count, fps = _read_drivers(engine, source.image)
    if _PLY.value and _PLY_FRAME.value >= count:
        raise cli.UserError(
            f"--ply_frame: the result has {count} frames, 0 to {count - 1}; there is no "
            f"{_PLY_FRAME.value}"
        )
    size = _SIZE.value or engine.image_size
    cameras = _cameras(poses, count, fps, view)
    clock = animate.Clock()
    made = animate.frames(
        engine,
        source.image,
        drivers,
        cameras,
        size=size,
        fps=fps,
        steady=_STEADY.value,
        gaussians=_GAUSSIANS.value,
        progress=lambda pictures: _progress(pictures, len(pictures), "sort"),
        clock=clock,
    )
    motions, overflow, lines = [], [], []
    writer = video.Writer(_OUT.value, fps=fps, overwrite=_OVERWRITE.value)
    results.enter_context(writer)
    for index, frame in enumerate(_after_the_first(made, count)):
        wide = _SIDE_BY_SIDE.value
        picture = animate.side_by_side(source.image, frame) if wide else frame.image
        writer.append(picture)
        motions.append(frame.motion)
        overflow.append(frame.overflow)
        if ply and index == _PLY_FRAME.value:
            width = engine.filter_width
            exported = export.write_ply(ply, frame.gaussians, filter_width=width, overwrite=True)
            lines += [f"{_PLY.value}: {exported} Gaussians of frame {index}"]
    _warn([_missing(engine, size, overflow)])
    if crop:
        lines += [f"{_SHOW_CROP.value}: what was taken of the photo"]
    if record:
        _record(engine, motions, fps, record)
        lines += [f"{_RECORD.value}: the motion of {len(motions)} frames"]
    height, width, _ = writer.shape
    lines += [f"{_OUT.value}: {writer.count} frames of {width}x{height} at {fps:g} a second"]
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
    frames = f"{_OUT.value}: {sum(map(bool, overflow))} of {len(overflow)} frames"
    return f"{frames}: {rendering.shortage(overflow, engine.raster_options(size).capacity)}"


def _result(results: contextlib.ExitStack, flag):
    """Where to write what a flag asks for; None if it does not."""
    from instant_gs import output

    if flag.value:
        return results.enter_context(output.whole_file(flag.value, overwrite=_OVERWRITE.value))
    return None


def _check_weights(engine) -> None:
    """Refuses what the flags want of weights that cannot do it, before faces are looked for."""
    if "motion_encoder" not in engine.params:
        raise cli.UserError(
            f"--weights: {_WEIGHTS.value} holds no motion encoder, which reads the expressions; "
            "convert the checkpoint again, with --motion_encoder=FILE"
        )
    most = engine.config.model.gaussians.count
    if _GAUSSIANS.value > most:
        raise cli.UserError(
            f"--gaussians: expected at most {most}, which these weights make, got "
            f"{_GAUSSIANS.value}; leave it out for all",
            2,
        )


def _check() -> None:
    for flag in (_SOURCE, _OUT):
        if not flag.value:
            raise cli.UserError(f"--{flag.name} is missing; give a file (--help)", 2)
    _check_pose()
    _check_tracking()
    for flag in (_YAW, _PITCH, _ORBIT, _FPS, _HOLD):
        if not math.isfinite(flag.value):
            raise cli.UserError(f"--{flag.name}: expected a number, got {flag.value}", 2)
    if abs(_PITCH.value) > 80:
        raise cli.UserError(f"--pitch: expected -80 to 80 degrees, got {_PITCH.value:g}", 2)
    if _FPS.value and not 0.01 <= _FPS.value <= 1000:
        raise cli.UserError(
            f"--fps: expected 0.01 to 1000, or 0 (the video's), got {_FPS.value:g}", 2
        )
    if _HOLD.value < 0:
        raise cli.UserError(f"--hold: expected 0 or more seconds, got {_HOLD.value:g}", 2)
    if _SIZE.value and not 16 <= _SIZE.value <= _MAX_SIZE:
        raise cli.UserError(f"--size: expected 16 to {_MAX_SIZE} pixels, got {_SIZE.value}", 2)
    if _PLY_FRAME.present and not _PLY.value:
        raise cli.UserError("--ply_frame: has no effect without --ply; add --ply=FILE.ply", 2)
    if _MASK.value and _SOURCE_ALIGNED.value:
        raise cli.UserError("--mask: has no effect with --source_aligned; leave one out", 2)
    _check_results()
    for flag in (_SOURCE, _DRIVING, _MASK):
        if flag.value and not os.path.exists(flag.value):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), flag.value)


def _check_results() -> None:
    from instant_gs import output

    inputs = {f"--{flag.name}": flag.value for flag in (_SOURCE, _DRIVING, _MASK)}
    pictures = (".png", ".jpg", ".jpeg", ".webp")
    for flag, endings in (
        (_OUT, (".mp4",)),
        (_PLY, (".ply",)),
        (_RECORD, (".npz",)),
        (_SHOW_CROP, pictures),
    ):
        if not flag.value:
            continue
        option = f"--{flag.name}"
        if not flag.value.lower().endswith(endings):
            raise cli.UserError(f"{option}: {flag.value} must end in {endings[0]}", 2)
        output.check_apart(flag.value, inputs, option=option)
        if endings == pictures and _is_driving_folder(os.path.dirname(flag.value) or "."):
            raise cli.UserError(
                f"{option}: {flag.value} would be a frame of --driving; choose another folder", 2
            )
        output.check_free(flag.value, overwrite=_OVERWRITE.value, option=option)


def _is_driving_folder(folder: str) -> bool:
    there = os.path.isdir(folder) and os.path.isdir(_DRIVING.value or "")
    return there and os.path.samefile(folder, _DRIVING.value)


def _check_pose() -> None:
    pose = _POSE.value
    if not _DRIVING.value and pose != "orbit":
        raise cli.UserError(
            "--driving is missing; give a video, or --pose=orbit to look around a still head", 2
        )
    if _ORBIT.present and pose != "orbit":
        raise cli.UserError(f"--orbit: has no effect with --pose={pose}; add --pose=orbit", 2)
    if pose == "driver" and _DRIVING_ALIGNED.value:
        raise cli.UserError(
            "--pose=driver: frames that are cut out already do not tell the head's pose; leave "
            "out --driving_aligned, or take another --pose",
            2,
        )


def _is_recording() -> bool:
    return (_DRIVING.value or "").lower().endswith(".npz")


def _check_tracking() -> None:
    """Flags about finding the driving face mean nothing where none is looked for."""
    tracking = (_DRIVING_MATTE, _BOX, _HOLD)
    if _is_recording():
        useless = (_SIDE_BY_SIDE, _DRIVING_ALIGNED, _STEADY, *tracking)
        why = f"the recording {_DRIVING.value}, which holds numbers and no pictures"
    elif not _DRIVING.value:
        useless, why = (_DRIVING_ALIGNED, *tracking), "no --driving"
    else:
        useless = tracking if _DRIVING_ALIGNED.value else ()
        why = "--driving_aligned, which takes the frames as they are"
    for flag in useless:
        if flag.present:
            raise cli.UserError(f"--{flag.name}: has no effect with {why}; leave it out", 2)
    if _is_recording() and _POSE.value == "driver":
        raise cli.UserError(
            f"--pose=driver: the recording {_DRIVING.value} does not tell the head's pose; take "
            "another --pose",
            2,
        )


def _cameras(poses, count: int, fps: float, fov_degrees: float):
    from instant_gs.inference import camera_path

    around = {"yaw": _YAW.value, "pitch": _PITCH.value, "fps": fps, "fov_degrees": fov_degrees}
    if _POSE.value == "driver":
        return camera_path.follow(poses, steady=_STEADY.value, **around)
    swing = _ORBIT.value if _POSE.value == "orbit" else 0.0
    return camera_path.orbit(count, swing=swing, **around)


def _read_source(size: int, fov_degrees: float, crop):
    from instant_gs.inference import source
    from instant_gs.portrait import photo

    if _SOURCE_ALIGNED.value:
        aligned = source.read_aligned(_SOURCE.value, size)
    else:
        path, mask = _SOURCE.value, _MASK.value
        aligned = source.align(path, _detector(), size, mask, fov_degrees=fov_degrees)
    _warn(aligned.warnings)
    if crop:
        photo.write(crop, source.explain(aligned), overwrite=True)
    return aligned


def _read_drivers(engine, still):
    """What drives, the head poses or None, how many frames there are, and their rate."""
    from instant_gs.inference import camera_path, puppet
    from instant_gs.portrait import tracking, video

    size, view = engine.image_size, engine.fov_degrees
    limit = _MAX_FRAMES.value
    if _is_recording():
        return _read_recording(engine, limit)
    if not _DRIVING.value:
        fps = _FPS.value or video.DEFAULT_FPS
        count = limit or max(1, round(camera_path.ORBIT_SECONDS * fps))
        return itertools.repeat(still, count), None, count, fps
    clip = video.open_video(_DRIVING.value, fps=_FPS.value)
    if _DRIVING_ALIGNED.value:
        empty = [not driver.any() for driver in tracking.aligned_drivers(clip, size, limit=limit)]
        count = len(empty)
        _warn([clip.problem, _black(clip.path, empty)])
        return tracking.aligned_drivers(clip, size, limit=limit), None, count, clip.fps
    decoded = _progress(clip.frames(limit), min(clip.expected_frames, limit or 10**9), "track")
    options = {"fps": clip.fps, "box": _BOX.value, "fov_degrees": view}
    track = tracking.track(clip.path, decoded, _detector(), **options)
    _warn([clip.problem, *track.warnings(clip.path, hold_seconds=_HOLD.value)])
    matte = _DRIVING_MATTE.value
    if matte is None:
        matte = puppet.expects_matte(engine)
    drivers = tracking.drivers(
        clip.frames(limit),
        track,
        size,
        matte=matte,
        hold=math.ceil(_HOLD.value * clip.fps),
    )
    return drivers, track.poses, len(track.found), clip.fps


def _black(path, empty: list[bool]) -> str:
    if not any(empty):
        return ""
    return (
        f"{path}: {sum(empty)} of {len(empty)} frames are black; the photo's own expression is "
        "shown there"
    )


def _read_recording(engine, limit: int):
    from instant_gs import types
    from instant_gs.inference import motion_file

    recording = motion_file.load(_DRIVING.value, engine.params)
    rows = zip(recording.motion.scale, recording.motion.shift, strict=True)
    motions = [types.Motion(*row) for row in rows][: limit or None]
    return motions, None, len(motions), _FPS.value or recording.fps


def _record(engine, motions, fps: float, path) -> None:
    import numpy as np

    from instant_gs import types
    from instant_gs.inference import motion_file

    scale, shift = (np.stack([getattr(m, name) for m in motions]) for name in ("scale", "shift"))
    stream = types.Motion(scale, shift)
    recording = motion_file.Recording(stream, fps, motion_file.fingerprint(engine.params))
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
