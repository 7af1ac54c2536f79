"""One photo in, an animatable 3D head made of Gaussians out.

`import instant_gs` is cheap: nothing heavy (jax, flax, cv2) is imported until it is used, so that
`--help` of every command answers at once.

    import instant_gs

    engine = instant_gs.load("instant_gs/weights/demo")
    avatar = engine.encode(photo)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instant_gs.version import __version__

if TYPE_CHECKING:
    import os

__all__ = ["__version__", "load"]


def load(directory: str | os.PathLike[str]):
    """Loads exported weights for inference.

    Args:
      directory: a folder written by `python -m instant_gs.inference.export`, or the weights that
        ship with the package (`instant_gs/weights/demo`).

    Returns:
      The inference engine of `instant_gs.inference`: it has `config`, `encode`, `motion_code`,
      `animate` and `render`.

    Raises:
      FileNotFoundError: there are no weights in `directory`.
    """
    from instant_gs import inference

    return inference.load(directory)
