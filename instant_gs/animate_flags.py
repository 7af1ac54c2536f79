"""What ``python -m instant_gs.animate`` is told, and what of it is refused before work begins."""

import errno
import math
import os

from absl import flags

from instant_gs import cli, output

_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Folder of weights or of a run, or demo; default: small, which ships."
)
_SOURCE = flags.DEFINE_string("source", None, "Photo of one face: PNG, JPEG or WebP.")
_DRIVING = flags.DEFINE_string(
    "driving",
    None,
    "Video of one face, folder of frames, --record's .npz, or a .csv of ARKit's blend shapes.",
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
flags.DEFINE_integer(
    "capacity",
    0,
    "How often Gaussians may touch a tile in one picture; 0: enough for the weights that ship. A "
    "warning says when some are missing; more takes memory.",
    lower_bound=0,
)
flags.DEFINE_enum(
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
    "Remove the background of the driving video; default: with --side_by_side, and if who reads "
    "the expressions (--reader) expects it: a motion encoder that was trained here does.",
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
_EXPRESSION = flags.DEFINE_float(
    "expression",
    1.0,
    "Share of the way from the photo's expression to the driver's: 0 keeps the photo's, above 1 "
    "exaggerates.",
)
_READER = flags.DEFINE_enum(
    "reader",
    None,
    ["landmarks", "encoder"],
    "Who reads expressions: the landmark network that finds faces (better for real people; the "
    "default, where the weights learned from coefficients such as its), or the weights' motion "
    "encoder (better for drawn people; the default, where photo or frames are wide crops).",
)
_FPS = flags.DEFINE_float(
    "fps", 0.0, "Frames a second; default: the driving video's; a .csv needs it."
)
flags.DEFINE_integer("max_frames", 0, "Stop after so many; 0: all.", lower_bound=0)
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace files that exist.")

_MAX_SIZE = 4096  # of the picture: H.264 decoders in browsers end there


def check() -> None:
    """Refuses flags that are missing, out of range or of no effect; and paths that cannot serve.

    Raises:
        cli.UserError: Names the flag and the fix.
        FileNotFoundError: An input is missing.
    """
    for flag in (_SOURCE, _OUT):
        if not flag.value:
            raise cli.UserError(f"--{flag.name} is missing; give a file (--help)", 2)
    _check_pose()
    _check_tracking()
    for flag in (_YAW, _PITCH, _ORBIT, _FPS, _HOLD, _EXPRESSION):
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
    if not 0 <= _EXPRESSION.value <= 10:
        raise cli.UserError(
            f"--expression: expected 0 to 10, got {_EXPRESSION.value:g}; 1 is the driver's", 2
        )
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


def check_weights(engine) -> None:
    """Refuses what the flags want of weights that cannot do it, before faces are looked for.

    Raises:
        cli.UserError: Names the flag and the fix.
    """
    from instant_gs.inference import reader

    if "motion_encoder" not in engine.params:
        raise cli.UserError(
            f"--weights: {_WEIGHTS.value} holds no motion encoder, which reads the expressions; "
            "convert the checkpoint again, with --motion_encoder=FILE"
        )
    try:
        reader.Reader(engine, _READER.value)
    except ValueError as error:
        raise cli.UserError(f"--{error}", 2) from error
    known = reader.learned_coefficients(engine.config) or _READER.value == "landmarks"
    if is_table() and not known:
        raise cli.UserError(
            f"--driving: {_DRIVING.value} holds coefficients, and these weights do not say that "
            "they learned from such; take other --weights or a video (or --reader=landmarks, if "
            "they did)",
            2,
        )
    most = engine.config.model.gaussians.count
    if _GAUSSIANS.value > most:
        raise cli.UserError(
            f"--gaussians: expected at most {most}, which these weights make, got "
            f"{_GAUSSIANS.value}; leave it out for all",
            2,
        )


def is_recording() -> bool:
    """Whether --driving is motion in numbers: recorded, or a table of coefficients."""
    return (_DRIVING.value or "").lower().endswith(".npz") or is_table()


def is_table() -> bool:
    """Whether --driving is a table of coefficients, a row a frame."""
    path = _DRIVING.value or ""
    return path.lower().endswith(".csv") and not os.path.isdir(path)


def _check_results() -> None:
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


def _check_tracking() -> None:
    """Flags about the driving face mean nothing where none is looked for."""
    tracking = (_DRIVING_MATTE, _BOX, _HOLD)
    if is_recording():
        useless = (_SIDE_BY_SIDE, _DRIVING_ALIGNED, _STEADY, *tracking)
        why = f"the recording {_DRIVING.value}, which holds numbers and no pictures"
    elif not _DRIVING.value:
        useless, why = (_DRIVING_ALIGNED, _EXPRESSION, *tracking), "no --driving"
    else:
        useless = tracking if _DRIVING_ALIGNED.value else ()
        why = "--driving_aligned, which takes the frames as they are"
    for flag in (_SOURCE_ALIGNED, _DRIVING_ALIGNED):
        if _READER.value == "landmarks" and flag.value:
            raise cli.UserError(
                f"--reader=landmarks: in pictures that are cut out no face is looked for; leave "
                f"out --{flag.name}, or take --reader=encoder",
                2,
            )
    for flag in useless:
        if flag.present:
            raise cli.UserError(f"--{flag.name}: has no effect with {why}; leave it out", 2)
    if is_table() and not _FPS.value:
        raise cli.UserError(
            f"--fps is missing: say how many rows of {_DRIVING.value} are a second; count those of "
            "one second of its time codes",
            2,
        )
    if is_recording() and _POSE.value == "driver":
        raise cli.UserError(
            f"--pose=driver: the recording {_DRIVING.value} does not tell the head's pose; take "
            "another --pose",
            2,
        )
