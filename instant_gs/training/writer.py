"""Scalars and pictures of a run: JSON lines and TensorBoard, process 0 only."""

import contextlib
import json
import pathlib
import time

import imageio.v3 as iio
import jax
import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from instant_gs import output


class MetricWriter:
    """Writes ``metrics.jsonl``, TensorBoard events and ``samples/*.png`` under a folder.

    All by the caller's thread: another could end at a full disk, and the run would wait for it.

    Args:
        folder: The run's.
        step: Where the run goes on. What was written of later steps, by a process that was
            killed, is taken back: these steps are taken again.
    """

    def __init__(self, folder: str | pathlib.Path, step: int = 0):
        self._active = jax.process_index() == 0
        self._folder = pathlib.Path(folder)
        if self._active:
            (self._folder / "samples").mkdir(parents=True, exist_ok=True)
            board = self._folder / "tensorboard"
            board.mkdir(exist_ok=True)
            self._events = event_file_writer.EventsWriter(str(board / "events"))
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step + 1, session_log=start)  # TensorBoard hides what others wrote from here
            _keep_lines_until(self._folder / "metrics.jsonl", step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends one line and the same values as TensorBoard scalars."""
        if self._active:
            with open(self._folder / "metrics.jsonl", "a") as lines:
                lines.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._add(step, summary=summary.scalar(name, value))
            self._events.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an (H, W, 3) uint8 picture."""
        if self._active:
            iio.imwrite(self._folder / "samples" / f"{name}_{step:07d}.png", image)
            self._add(step, summary=summary.image(name, image, dataformats="HWC"))
            self._events.flush()

    def close(self) -> None:
        """Closes the files; if something could not be written, that was raised before."""
        if self._active:
            with contextlib.suppress(OSError):
                self._events.close()

    def _add(self, step: int, **content) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)


def _keep_lines_until(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(errors="surrogateescape").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a kill may cut off the last one
    kept = [line for line in whole if _step_of(line) <= step]
    if kept != lines:
        with output.replacing(path) as partial:
            partial.write_text("".join(kept), errors="surrogateescape")


def _step_of(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return 0  # not ours to delete
