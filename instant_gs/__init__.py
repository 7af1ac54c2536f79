"""One photo in, an animatable 3D head made of Gaussians out.

`import instant_gs` is cheap: nothing heavy (jax, flax, cv2) is imported until it is used, so that
`--help` of a command need not wait for it.

    import instant_gs

    model = instant_gs.load()
    avatar = model.encode(photo)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from instant_gs.version import __version__

if TYPE_CHECKING:
    import os

__all__ = ["__version__", "load"]


def load(directory: str | os.PathLike[str] | None = None):
    """Loads trained weights for inference.

    Args:
      directory: a folder written by `python -m instant_gs.convert --out=DIR` or by
        `python -m instant_gs.average --out=DIR`, or a training run; "small" or "demo", which ship
        with the package. None is "small".

    Returns:
      `instant_gs.inference.avatar.InstantAvatar`: it has `config`, `planes`, `motion_code`,
      `code_from_coefficients`, `encode`, `motion`, `animate` and `render`. A licence that the
      weights state is shown on stderr.

    Raises:
      FileNotFoundError: there are no weights in `directory`.
    """
    from instant_gs.inference import avatar

    return avatar.load(directory)


def __getattr__(name: str):
    """`instant_gs.convert` without an import of its own, and without its cost until it is used."""
    if name == "convert":
        return importlib.import_module("instant_gs.convert")
    raise AttributeError(f"module 'instant_gs' has no attribute {name!r}")
