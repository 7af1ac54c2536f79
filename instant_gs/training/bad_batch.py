"""Keeps the batch on which training broke, for inspection.

batch = numpy.load("runs/demo/bad_batch_0000123.npz")
batch["source.image"], batch["driven.coefficients"]
"""

import pathlib

import jax
import numpy as np

from instant_gs import output


def redraw(loader, data_state: dict, skip: int):
    """A batch that was drawn before: the order is a function of the iterator's state alone.

    Args:
        loader: The iterator, which is left behind that batch.
        data_state: Its state at some step.
        skip: Batches drawn since that state, before the one that is wanted.
    """
    loader.set_state(data_state)
    for _ in range(skip):
        next(loader)
    return next(loader)


def write(workdir: pathlib.Path, step: int, batch) -> pathlib.Path:
    """Writes a batch's arrays under their names; of several hosts, each its own samples."""
    host = f"_host{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"bad_batch_{step:07d}{host}.npz"
    arrays = {
        jax.tree_util.keystr(keys, simple=True, separator="."): np.asarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(batch)
    }
    with output.replacing(path) as partial:
        np.savez_compressed(partial, **arrays)
    return path
