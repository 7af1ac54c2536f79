"""From a photo and a video to a moving head: the engine, animation and export."""

import os


def load(directory: str | os.PathLike | None = None):
    """Loads weights; see ``instant_gs.inference.avatar.load``. None: those that ship."""
    from instant_gs.inference import avatar  # imports jax and flax, which --help does not need

    return avatar.load(avatar.SHIPPED_WEIGHTS if directory is None else directory)
