"""What ``python -m instant_gs.animate`` is told, and what of it is refused before work begins."""

import errno
import math
import os

from absl import flags

from instant_gs import cli, output

WEIGHTS = flags.DEFINE_string(
    "weights", None, "Folder of weights or of a run, or demo; default: small, which ships."
)
SOURCE = flags.DEFINE_string("source", None, "Photo of one face: PNG, JPEG or WebP.")
DRIVING = flags.DEFINE_string(
    "driving", None, "Video of one face, folder of frames, or --record's .npz."
)
OUT = flags.DEFINE_string("out", None, "The .mp4 to write.")
POSE = flags.DEFINE_enum(
    "pose",
    "fixed",
    ["fixed", "driver", "orbit"],
    "Camera: stays, shows the driver's head pose, or swings.",
)
YAW = flags.DEFINE_float("yaw", 0.0, "Camera to the head's left (+) or right (-), degrees.")
PITCH = flags.DEFINE_float("pitch", 0.0, "Camera up (+) or down (-), degrees.")
ORBIT = flags.DEFINE_float("orbit", 30.0, "Degrees of --pose=orbit to either side of --yaw.")
SIZE = flags.DEFINE_integer("size", 0, "Side of the picture; default: the model's.")
GAUSSIANS = flags.DEFINE_integer(
    "gaussians", 0, "Draw only so many, which stand in for the rest; 0: all.", lower_bound=0
)
CAPACITY = flags.DEFINE_integer(
    "capacity",
    0,
    "How often Gaussians may touch a tile in one picture; 0: enough for the weights that ship. A "
    "warning says when some are missing; more takes memory.",
    lower_bound=0,
)
CULLING = flags.DEFINE_enum(
    "culling",
    None,
    ["envelope", "source", "none"],
    "Gaussians that the avatar keeps: those that any expression shows [the default], those that "
    "the photo's own shows (as released), or all.",
)
SIDE_BY_SIDE = flags.DEFINE_boolean("side_by_side", False, "Photo | driving face | avatar.")
RECORD = flags.DEFINE_string("record", None, "Write the motion to this .npz, too: see --driving.")
PLY = flags.DEFINE_string("ply", None, "Write one frame's Gaussians to this .ply, too.")
PLY_FRAME = flags.DEFINE_integer("ply_frame", 0, "Which frame, from 0.", lower_bound=0)
MASK = flags.DEFINE_string("mask", None, "Grey image, white where the person in the photo is.")
SHOW_CROP = flags.DEFINE_string("show_crop", None, "Write a picture of what was taken.")
SOURCE_ALIGNED = flags.DEFINE_boolean("source_aligned", False, "The photo is a wide crop.")
DRIVING_ALIGNED = flags.DEFINE_boolean("driving_aligned", False, "The frames are wide crops.")
DRIVING_MATTE = flags.DEFINE_boolean(
    "driving_matte",
    None,
    "Remove the background of the driving video; default: if the motion encoder expects it, which "
    "that of the authors' release does not.",
)
BOX = flags.DEFINE_enum(
    "driving_box", "smoothed", ["smoothed", "fixed"], "How the crop follows the driving head."
)
HOLD = flags.DEFINE_float(
    "hold",
    0.0,
    "Seconds without a face after which the photo's own expression returns; until then the last "
    "one is held. 0: it is held to the end.",
)
STEADY = flags.DEFINE_boolean(
    "steady", True, "Calm motion and head pose by a One-Euro filter; --nosteady passes all on."
)
FPS = flags.DEFINE_float("fps", 0.0, "Frames a second; default: the driving video's.")
MAX_FRAMES = flags.DEFINE_integer("max_frames", 0, "Stop after so many; 0: all.", lower_bound=0)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace files that exist.")

_MAX_SIZE = 4096  # of the picture: H.264 decoders in browsers end there


def check() -> None:
    """Refuses flags that are missing, out of range or of no effect; and paths that cannot serve.

    Raises:
        cli.UserError: Names the flag and the fix.
        FileNotFoundError: An input is missing.
    """
    for flag in (SOURCE, OUT):
        if not flag.value:
            raise cli.UserError(f"--{flag.name} is missing; give a file (--help)", 2)
    _check_pose()
    _check_tracking()
    for flag in (YAW, PITCH, ORBIT, FPS, HOLD):
        if not math.isfinite(flag.value):
            raise cli.UserError(f"--{flag.name}: expected a number, got {flag.value}", 2)
    if abs(PITCH.value) > 80:
        raise cli.UserError(f"--pitch: expected -80 to 80 degrees, got {PITCH.value:g}", 2)
    if FPS.value and not 0.01 <= FPS.value <= 1000:
        raise cli.UserError(
            f"--fps: expected 0.01 to 1000, or 0 (the video's), got {FPS.value:g}", 2
        )
    if HOLD.value < 0:
        raise cli.UserError(f"--hold: expected 0 or more seconds, got {HOLD.value:g}", 2)
    if SIZE.value and not 16 <= SIZE.value <= _MAX_SIZE:
        raise cli.UserError(f"--size: expected 16 to {_MAX_SIZE} pixels, got {SIZE.value}", 2)
    if PLY_FRAME.present and not PLY.value:
        raise cli.UserError("--ply_frame: has no effect without --ply; add --ply=FILE.ply", 2)
    if MASK.value and SOURCE_ALIGNED.value:
        raise cli.UserError("--mask: has no effect with --source_aligned; leave one out", 2)
    _check_results()
    for flag in (SOURCE, DRIVING, MASK):
        if flag.value and not os.path.exists(flag.value):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), flag.value)


def check_weights(engine) -> None:
    """Refuses what the flags want of weights that cannot do it, before faces are looked for.

    Raises:
        cli.UserError: Names the flag and the fix.
    """
    if "motion_encoder" not in engine.params:
        raise cli.UserError(
            f"--weights: {WEIGHTS.value} holds no motion encoder, which reads the expressions; "
            "convert the checkpoint again, with --motion_encoder=FILE"
        )
    most = engine.config.model.gaussians.count
    if GAUSSIANS.value > most:
        raise cli.UserError(
            f"--gaussians: expected at most {most}, which these weights make, got "
            f"{GAUSSIANS.value}; leave it out for all",
            2,
        )


def is_recording() -> bool:
    """Whether --driving is a recorded motion."""
    return (DRIVING.value or "").lower().endswith(".npz")


def _check_results() -> None:
    inputs = {f"--{flag.name}": flag.value for flag in (SOURCE, DRIVING, MASK)}
    pictures = (".png", ".jpg", ".jpeg", ".webp")
    for flag, endings in (
        (OUT, (".mp4",)),
        (PLY, (".ply",)),
        (RECORD, (".npz",)),
        (SHOW_CROP, pictures),
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
        output.check_free(flag.value, overwrite=OVERWRITE.value, option=option)


def _is_driving_folder(folder: str) -> bool:
    there = os.path.isdir(folder) and os.path.isdir(DRIVING.value or "")
    return there and os.path.samefile(folder, DRIVING.value)


def _check_pose() -> None:
    pose = POSE.value
    if not DRIVING.value and pose != "orbit":
        raise cli.UserError(
            "--driving is missing; give a video, or --pose=orbit to look around a still head", 2
        )
    if ORBIT.present and pose != "orbit":
        raise cli.UserError(f"--orbit: has no effect with --pose={pose}; add --pose=orbit", 2)
    if pose == "driver" and DRIVING_ALIGNED.value:
        raise cli.UserError(
            "--pose=driver: frames that are cut out already do not tell the head's pose; leave "
            "out --driving_aligned, or take another --pose",
            2,
        )


def _check_tracking() -> None:
    """Flags about finding the driving face mean nothing where none is looked for."""
    tracking = (DRIVING_MATTE, BOX, HOLD)
    if is_recording():
        useless = (SIDE_BY_SIDE, DRIVING_ALIGNED, STEADY, *tracking)
        why = f"the recording {DRIVING.value}, which holds numbers and no pictures"
    elif not DRIVING.value:
        useless, why = (DRIVING_ALIGNED, *tracking), "no --driving"
    else:
        useless = tracking if DRIVING_ALIGNED.value else ()
        why = "--driving_aligned, which takes the frames as they are"
    for flag in useless:
        if flag.present:
            raise cli.UserError(f"--{flag.name}: has no effect with {why}; leave it out", 2)
    if is_recording() and POSE.value == "driver":
        raise cli.UserError(
            f"--pose=driver: the recording {DRIVING.value} does not tell the head's pose; take "
            "another --pose",
            2,
        )
