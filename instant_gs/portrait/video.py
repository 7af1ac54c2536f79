"""Reading and writing videos through FFmpeg, which comes with imageio.

FFmpeg is run directly: its exit status and messages tell a damaged file from a short one, which
the wrappers hide.
"""

import contextlib
import dataclasses
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from instant_gs import cli, output
from instant_gs.portrait import photo

#: Longer side of decoded frames: a face that fills a third of it is still 400 pixels wide.
MAX_SIDE = 1280

#: Of a folder of frames, and of a file that does not say: the teacher packs' rate.
DEFAULT_FPS = 25.0

#: Constant rate factor of H.264: visually lossless for faces at our sizes.
QUALITY = 18

#: A picture stands still for at most so long: a damaged time stamp may say days.
MAX_STILL_SECONDS = 10.0

_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_DAMAGE = re.compile("error while decoding|invalid nal|corrupt", re.IGNORECASE)
_CUT = re.compile("partial file|ended prematurely")
_JUMP = re.compile(r"\[Eval [^\]]*\] ([\d.]+)")  # what `_pauses` prints
_MAX_HEADER = 64  # bytes; "P6\n1280 1280\n255\n" is 17


@dataclasses.dataclass
class Video:
    """A video file or a folder of numbered frames.

    Attributes:
        path: Where it is.
        fps: Frames a second, as the caller wants to count them.
        expected_frames: What the file claims to hold, 0 if it does not say; fewer if it holds
            sound, too, which may be longer.
        rate: Frames a second that a file is decoded at: its own average, or that of its densest
            part if that is far denser. Where its rate varies, frames are repeated or left out so
            that each shows at its time.
        alone: Whether the file holds this stream of pictures and nothing else.
        problem: After reading to the end: what went wrong, or "".
    """

    path: Path
    fps: float
    expected_frames: int = 0
    rate: float = DEFAULT_FPS
    alone: bool = True
    problem: str = ""

    def frames(self, limit: int = 0) -> Iterator[np.ndarray]:
        """Decodes the frames in order, upright, as (H, W, 3) uint8 RGB.

        Frames with alpha come over black. A file whose tail is damaged yields what decodes and
        leaves a sentence in ``problem``. So does one whose time stamps jump, and a pause lasts at
        most ``MAX_STILL_SECONDS``.

        Args:
            limit: At most this many frames; 0 means all.

        Raises:
            cli.UserError: Not a single frame decodes, or they are too small to show a face.
        """
        self.problem = ""
        source = self._folder_frames() if self.path.is_dir() else self._file_frames()
        with contextlib.closing(source):
            for count, frame in enumerate(source, start=1):
                yield frame
                if count == limit:
                    return

    def _folder_frames(self):
        for path in _frame_files(self.path):
            yield photo.read(path).over(0)

    def _file_frames(self):
        count = 0
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(
                _decode_command(self.path, self.rate), stdout=subprocess.PIPE, stderr=messages
            )
            try:
                while (frame := _read_ppm(process.stdout)) is not None:
                    photo.check_size(self.path, "video", *frame.shape[:2])
                    count += 1
                    yield frame
            finally:
                process.stdout.close()
                if process.poll() is None:
                    process.terminate()
                status = process.wait()
            messages.seek(0)
            complaints = messages.read().decode(errors="replace")
        if count == 0:
            raise cli.UserError(
                f"{self.path}: the video is damaged or cut off, not one frame can be decoded; "
                "copy or download it again"
            )
        if jumps := [float(seconds) for seconds in _JUMP.findall(complaints)]:
            self.problem = (
                f"{self.path}: time stamps jump, by up to {max(jumps):.0f} s; a pause is cut to "
                f"{MAX_STILL_SECONDS:g} s"
            )
            return
        # The last frames' timestamps and a rounded duration differ by a frame or two.
        missing = self.expected_frames - count
        short = self.alone and missing > max(2, 0.02 * self.expected_frames)
        if short or _CUT.search(complaints):
            of = f" of about {max(self.expected_frames, count)}" if self.alone else ""
            self.problem = (
                f"{self.path}: the file is damaged or cut off; {count}{of} frames could be decoded"
            )
        elif status or _DAMAGE.search(complaints):
            self.problem = f"{self.path}: the file is damaged; some frames may look broken"


def open_video(path: str | os.PathLike, *, fps: float = 0.0) -> Video:
    """Opens a video file or a folder of frames and checks that it is one.

    Args:
        path: A video in any format that FFmpeg decodes, or a folder of images, which are taken in
            the order of the numbers in their names.
        fps: Overrides what the file says; 0 keeps it.

    Returns:
        Video.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        cli.UserError: It is no video, is damaged beyond reading, or holds no frames.
    """
    path = Path(path)
    if path.is_dir():
        files = _frame_files(path)
        if not files:
            raise cli.UserError(
                f"{path}: the folder holds no frames; give a video file or a folder of "
                "numbered PNG or JPEG images"
            )
        return Video(path, fps or DEFAULT_FPS, len(files))
    with path.open("rb"):  # FileNotFoundError and PermissionError name the path
        pass
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", _url(path)]
    # Without an output FFmpeg describes the input and exits with 1, always.
    text = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
    stream = re.search(r"Stream #\S+.*?: Video: (.*)", text)
    # FFmpeg plays text files as a terminal would.
    if stream is None or stream[1].startswith("ansi"):
        raise cli.UserError(_unreadable(path, text))
    found = _rate(stream[1])
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    seconds = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]) if length else 0.0
    rate = found or DEFAULT_FPS
    alone = len(re.findall(r"^ *Stream #", text, re.MULTILINE)) == 1
    return Video(path, fps or rate, int(seconds * found), rate, alone)


class Writer:
    """Writes an H.264 mp4 that plays everywhere; use as a context manager.

    The file appears under its name when the block ends without an exception. After the first frame
    ``shape`` is that of its frames, (H, W, 3), padding included.
    """

    def __init__(self, path: str | os.PathLike, *, fps: float, overwrite: bool = False):
        """Args: path (.mp4), frames a second, whether an existing file may be replaced.

        Raises:
            cli.UserError: The name does not end in .mp4, or the file exists.
        """
        self.path = output.check_free(path, overwrite=overwrite)
        if self.path.suffix.lower() != ".mp4":
            raise cli.UserError(f"{path}: the name of the video must end in .mp4")
        self.fps, self.overwrite, self.count = fps, overwrite, 0
        self._stack = contextlib.ExitStack()
        self._process = None

    def __enter__(self) -> "Writer":
        self._temporary = self._stack.enter_context(
            output.whole_file(self.path, overwrite=self.overwrite)
        )
        self._messages = self._stack.enter_context(tempfile.TemporaryFile())
        return self

    def append(self, frame: np.ndarray) -> None:
        """Adds (H, W, 3) uint8 RGB; an odd size is padded by a black row or column."""
        height, width = frame.shape[:2]
        pad = height % 2, width % 2  # yuv420p halves both
        if any(pad):
            frame = np.pad(frame, ((0, pad[0]), (0, pad[1]), (0, 0)))
        if self._process is None:
            self.shape = frame.shape
            self._process = subprocess.Popen(
                _encode_command(self._temporary, frame.shape, self.fps),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
            )
        if frame.shape != self.shape:
            raise ValueError(
                f"frame: expected the first frame's shape {self.shape}, got {frame.shape}; "
                "resize all frames to one size"
            )
        try:
            self._process.stdin.write(np.ascontiguousarray(frame, np.uint8).data)
        except BrokenPipeError:
            self._finish()
            raise OSError(f"{self.path}: FFmpeg stopped before the last frame") from None
        self.count += 1

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                if self._process is None:
                    raise ValueError("frames: expected at least one, got none; append() frames")
                self._finish()
            elif self._process is not None:
                self._process.kill()
                self._process.communicate()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._process.wait() != 0:
            self._messages.seek(0)
            text = self._messages.read().decode(errors="replace").strip()
            raise OSError(f"{self.path}: FFmpeg could not write the video: {text[-300:]}")


def _rate(description: str) -> float:
    """Frames a second by FFmpeg's description of a stream, 0 if it does not say.

    That is the average, but where far denser parts exist (long pauses, damaged time stamps) theirs.
    """
    words = (re.search(rf"([\d.]+)(k?) {name}\b", description) for name in ("fps", "tbr"))
    average, dense = (float(w[1]) * (1000 if w[2] else 1) if w else 0.0 for w in words)
    return min(dense, DEFAULT_FPS) if dense > 4 * average else average


def _frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder by the numbers in their names: 2.png before 10.png."""
    seen = (path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in seen if path.suffix.lower() in _FRAME_SUFFIXES]
    padded = {path: re.sub(r"\d+", lambda found: found[0].zfill(20), path.name) for path in files}
    return sorted(files, key=lambda path: (padded[path], path.name))


def _pauses() -> str:
    """The filter that cuts pauses and prints how long they were, as an error (level 16)."""
    gap, most = "(PTS-PREV_INPTS)", MAX_STILL_SECONDS
    cut = f"if(gt({gap}*TB,{most}),0*print({gap}*TB,16)+{most}/TB,{gap})"
    return f"setpts='if(isnan(PREV_INPTS),PTS,PREV_OUTPTS+{cut})'"


def _decode_command(path: Path, rate: float) -> list[str]:
    # Portable pixmaps carry their own size, so a turned phone video needs no special care.
    limit = f"min(1,{MAX_SIDE}/max(iw*sar,ih))"  # "sar": pixels that are not square
    return [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", _url(path)),
        *("-map", "0:v:0", "-fps_mode", "passthrough"),
        "-vf",
        f"{_pauses()},fps={rate:.6g},"
        f"scale=w='round(iw*sar*{limit})':h='round(ih*{limit})':flags=area",
        *("-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"),
    ]


def _encode_command(path: Path, shape, fps: float) -> list[str]:
    # Untagged, players guess: by the size, or by what FFmpeg's own conversion is not.
    tags = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
    return [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{shape[1]}x{shape[0]}"),
        *("-r", f"{fps:.6g}", "-i", "-", "-an", "-c:v", "libx264", "-crf", str(QUALITY)),
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv", *tags, "-color_range", "tv"),
        *("-pix_fmt", "yuv420p", "-movflags", "+faststart", _url(path)),
    ]


def _url(path: Path) -> str:
    return str(path.absolute())  # of "12:30.mp4" FFmpeg would take "12" for a protocol


def _read_ppm(stream) -> np.ndarray | None:
    """The next binary PPM of a stream; None at its end or at a frame cut short."""
    fields: list[bytes] = []
    for _ in range(3):  # "P6", "width height", "255", each on a line of its own
        fields += stream.readline(_MAX_HEADER).split()
    if len(fields) != 4 or fields[0] != b"P6":
        return None
    width, height = int(fields[1]), int(fields[2])
    data = stream.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _unreadable(path: Path, text: str) -> str:
    if path.stat().st_size == 0:
        return f"{path}: the file is empty; copy or download it again"
    with path.open("rb") as file:
        is_mp4 = file.read(8)[4:] == b"ftyp"
    if is_mp4 and "moov atom not found" in text:
        return (
            f"{path}: the video is cut off (its index, written last, is missing); "
            "copy or download it again"
        )
    if "Audio:" in text and "Video:" not in text:
        return f"{path}: the file has sound only; give a video that shows a face"
    return f"{path}: not a video that FFmpeg can read; give an mp4, mov, webm or avi file"
