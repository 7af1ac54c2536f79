"""Recorded drivers: streams of ``types.Motion`` in a file.

What is kept is the driver's part, ``motion(0, driving)``: nothing of the photo it was recorded
with. It replays on any photo (``InstantAvatar.replay``) by the weights it was made with: the
numbers are what their motion decoder understands, so the file names them. The format is ``.npz``.
"""

import dataclasses
import hashlib
import os
import tokenize
import zipfile
import zlib

import numpy as np

from instant_gs import cli, output, types

_FORMAT = "instant_gs.motion"
_VERSION = 2  # 1 held the photo's part, too
_FIELDS = ("format", "version", "scale", "shift", "fps", "decoder")
_MIN_FPS, _MAX_FPS = 0.01, 1000.0  # what FFmpeg can write
# What NumPy raises on files of others, and on forged headers, which it parses as Python.
_NO_ARRAYS = (
    *(ValueError, KeyError, TypeError, EOFError, AttributeError, OverflowError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, MemoryError),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A driver's stream.

    Attributes:
        motion: (T, F) each, one row a frame: the driver's part.
        fps: Frames a second.
        decoder: ``fingerprint`` of the weights that the numbers belong to.
        reader: Who read the driver, of ``reader.READERS``: the photo should be read alike.
    """

    motion: types.Motion
    fps: float
    decoder: str
    reader: str = "encoder"


def of_coefficients(engine, coefficients, fps: float) -> Recording:
    """The recording of a driver whose expressions are known.

    Args:
        engine: ``avatar.InstantAvatar`` that is going to replay it.
        coefficients: (T, 52), order ``data.format.COEFFICIENT_NAMES``, about [0, 1].
        fps: Frames a second.

    Raises:
        ValueError: Another shape, not finite; or weights that know no coefficients.
    """
    codes = engine.code_from_coefficients(coefficients)
    motion = engine.motion(np.zeros_like(codes), codes)
    scale, shift = (np.asarray(rows) for rows in (motion.scale, motion.shift))
    decoder = fingerprint(engine.params)
    return Recording(types.Motion(scale, shift), fps, decoder, "landmarks")


def fingerprint(params: dict) -> str:
    """Names the motion decoder of model parameters: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    pending = [params["motion_decoder"]]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += [node[name] for name in sorted(node)]
        else:
            digest.update(np.ascontiguousarray(node, np.float32).tobytes())
    return digest.hexdigest()[:16]


def save(path: str | os.PathLike, recording: Recording, *, overwrite: bool = False) -> None:
    """Writes a recording, whole or not at all.

    Args:
        path: Ends in .npz.
        recording: The stream.
        overwrite: Whether an existing file may be replaced.

    Raises:
        cli.UserError: The name does not end in .npz, or the file exists.
        ValueError: The stream is not (T, F) with T > 0, is not finite, or has no frame rate from
            0.01 to 1000.
    """
    if os.path.splitext(path)[1].lower() != ".npz":
        raise cli.UserError(f"{path}: the name of a motion file must end in .npz")
    scale, shift = _checked(recording.motion.scale, recording.motion.shift, recording.fps)
    with output.whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(  # to an open file: to the name X.NPZ it would add another .npz
            file,
            format=_FORMAT,
            version=_VERSION,
            scale=scale,
            shift=shift,
            fps=float(recording.fps),
            decoder=recording.decoder,
            reader=recording.reader,
        )


def load(path: str | os.PathLike, params: dict | None = None) -> Recording:
    """Reads a recording.

    Args:
        path: Written by ``save``.
        params: Model parameters that are going to replay it; None does not compare.

    Raises:
        FileNotFoundError: There is no such file.
        cli.UserError: It is no such file, is damaged or edited to what no avatar can show, or
            belongs to other weights.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            fields = {name: file[name] for name in _FIELDS}
            # Until there was a choice, all were read by the motion encoder.
            reader = str(file["reader"]) if "reader" in file.files else "encoder"
    except (zipfile.BadZipFile, zlib.error) as error:
        raise cli.UserError(f"{path}: the motion file is damaged; record it again") from error
    except _NO_ARRAYS as error:
        raise cli.UserError(f"{path}: not a motion file; give one that --record wrote") from error
    version = f"{fields['format']} {fields['version']}"
    if version != f"{_FORMAT} {_VERSION}":
        raise cli.UserError(
            f"{path}: expected a motion file of version {_FORMAT} {_VERSION}, got {version}; "
            "record it again"
        )
    decoder = str(fields["decoder"])
    if params is not None and decoder != fingerprint(params):
        raise cli.UserError(
            f"{path}: recorded with other weights ({decoder}, these are {fingerprint(params)}); "
            "record it again with these"
        )
    try:
        fps = float(fields["fps"])
        scale, shift = _checked(fields["scale"], fields["shift"], fps)
    except (ValueError, TypeError) as error:
        raise cli.UserError(f"{path}: {error}") from error
    width = params["motion_decoder"]["fc1"]["kernel"].shape[0] if params else scale.shape[1]
    if scale.shape[1] != width:
        raise cli.UserError(
            f"{path}: scale, shift: expected {width} numbers a frame, got {scale.shape[1]}; keep "
            "the width of what was recorded"
        )
    return Recording(types.Motion(scale, shift), fps, decoder, reader)


def _checked(scale, shift, fps: float):
    scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    if scale.ndim != 2 or scale.shape != shift.shape or not scale.size:
        raise ValueError(
            "scale, shift: expected one shape (T, F) with T > 0, got "
            f"{scale.shape} and {shift.shape}; stack the frames along the first axis"
        )
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise ValueError("scale, shift: expected finite numbers, got nan or inf; mend these frames")
    if not _MIN_FPS <= fps <= _MAX_FPS:
        raise ValueError(
            f"fps: expected {_MIN_FPS:g} to {_MAX_FPS:g} frames a second, got {fps:g}; mend it"
        )
    return scale, shift
