"""Frames of a source clip: a video, read, or a folder 00000.png, 00001.png, ..., also written."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# FFmpeg inside OpenCV prints to stderr what we report as one line; -8 is its "quiet".
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
import cv2  # After the line above: OpenCV reads it when it loads.


class FrameError(ValueError):
    """A frame that is missing or cannot be decoded; the message names the file."""


def read_rgb(path: Path, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Decodes exactly `frames` frames of a video file or a folder of PNG.

    Yields:
      image (H, W, 3) uint8 RGB, and alpha (H, W) uint8 of RGBA frames, else None. The colours of
      an RGBA frame already lie over black (associated alpha) and stay as they are.

    Raises:
      FrameError: a frame is missing, broken, or there are more than `frames`.
    """
    if path.is_dir():
        extra = path / f"{frames:05d}.png"
        if extra.exists():
            raise FrameError(f"{path} has more than the {frames} frames that identity.json says")
        return (_split_alpha(_read_png(path / f"{index:05d}.png")) for index in range(frames))
    return _read_video(path, frames)


def read_gray(folder: Path, index: int, *, palette: bool) -> np.ndarray:
    """Decodes one 8-bit grey PNG (or, with `palette`, palette indices) as (H, W) uint8."""
    path = folder / f"{index:05d}.png"
    image = _read_png(path)
    if image.mode != "L" and not (palette and image.mode == "P"):
        kind = "palette or 8-bit grey" if palette else "8-bit grey"
        raise FrameError(f"{path}: expected a {kind} PNG, got mode {image.mode}")
    return np.asarray(image)


def write_png(path: Path, image: np.ndarray, compression: int) -> None:
    """Writes (H, W), RGB (H, W, 3) or RGBA (H, W, 4) uint8 at OpenCV's level 0 to 9."""
    bgr = image if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[-1]]]
    done, data = cv2.imencode(".png", bgr, (cv2.IMWRITE_PNG_COMPRESSION, compression))
    if not done:
        raise RuntimeError(f"{path}: OpenCV could not encode the frame")
    path.write_bytes(data.tobytes())


def _read_png(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise FrameError(f"{path} is missing") from None
    except (OSError, SyntaxError, ValueError) as error:  # What Pillow raises for damaged files.
        raise FrameError(f"{path} is not a readable PNG ({error})") from None


def _split_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode not in ("RGB", "RGBA"):
        raise FrameError(f"{image.filename}: expected RGB or RGBA, got mode {image.mode}")
    array = np.asarray(image)
    return array[..., :3], array[..., 3] if image.mode == "RGBA" else None


def _read_video(path: Path, frames: int) -> Iterator[tuple[np.ndarray, None]]:
    if not path.is_file():
        raise FrameError(f"{path} is missing")
    # Absolute: of "12:30.mp4" FFmpeg would take "12" for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        if not capture.isOpened():
            raise FrameError(f"{path} is not a readable video: truncated or of another kind")
        for index in range(frames):
            ok, frame = capture.read()
            if not ok:
                raise FrameError(f"{path} ends or breaks after {index} of {frames} frames")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), None
        if capture.read()[0]:
            raise FrameError(f"{path} has more than the {frames} frames that identity.json says")
    finally:
        capture.release()
