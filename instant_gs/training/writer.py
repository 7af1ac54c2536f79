"""Scalars and pictures of a run: JSON lines and TensorBoard, process 0 only."""

import json
import pathlib

import imageio.v3 as iio
import jax
import numpy as np
import tensorboardX


class MetricWriter:
    """Writes ``metrics.jsonl``, TensorBoard events and ``samples/*.png`` under a folder."""

    def __init__(self, folder: str | pathlib.Path):
        self._active = jax.process_index() == 0
        self._folder = pathlib.Path(folder)
        if self._active:
            (self._folder / "samples").mkdir(parents=True, exist_ok=True)
            self._board = tensorboardX.SummaryWriter(str(self._folder / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends one line and the same values as TensorBoard scalars."""
        if self._active:
            with open(self._folder / "metrics.jsonl", "a") as lines:
                lines.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an (H, W, 3) uint8 picture."""
        if self._active:
            iio.imwrite(self._folder / "samples" / f"{name}_{step:07d}.png", image)
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._active:
            self._board.close()
