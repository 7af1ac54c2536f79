"""Deterministic stand-in for the authors' checkpoint, and for an input image.

Real weights cannot be shipped (their licence is non-commercial), so parity is tested on synthetic
ones: every tensor of the checkpoint is drawn from a generator seeded by (seed, key name) and scaled
so that activations stay of order one. Anyone who regenerates the same dictionary must get the
outputs stored in ``tests/data/golden/model_seed0.npz``, which were computed once, on CPU in
float32, with the reference PyTorch implementation.

Keys, shapes and gains come from ``instant_gs/models/checkpoint_keys_{E,M}.tsv``.
"""

import ast
import csv
import hashlib
import math
import pathlib

import numpy as np

from instant_gs import models

SPEC = pathlib.Path(models.__file__).parent  # the tables of the checkpoint's keys
GAIN = {"0.5": 0.5}  # equalised layers ("1/sqrt(n)") store N(0, 1) weights and need no compensation


def _rng(seed: int, key: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def motion_token_code() -> np.ndarray:
    """The constant sin-cos token code stored as ``model.pe``, shape (1, 32, 16)."""
    frequency = 10000.0 ** (-np.arange(8) / 8.0)
    phase = np.arange(32)[:, None] * frequency[None]
    return np.concatenate([np.sin(phase), np.cos(phase)], -1)[None].astype(np.float32)


def _tensor(seed: int, key: str, shape: tuple[int, ...], gain: str) -> np.ndarray:
    rng, name = _rng(seed, key), key.rsplit(".", 1)[-1]
    if key == "model.pe":
        return motion_token_code()
    if name == "num_batches_tracked":
        return np.asarray(1000, np.int64)
    if name == "running_mean":
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if name == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 1.0 / GAIN.get(gain, 1.0)
    if name == "bias":
        return (0.1 * scale * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:  # a normalisation weight
        return (scale * (1.0 + 0.1 * rng.standard_normal(shape))).astype(np.float32)
    if gain.startswith("1/sqrt"):
        return rng.standard_normal(shape).astype(np.float32)
    fan_in = math.prod(shape[1:])
    return (scale * math.sqrt(1.0 / fan_in) * rng.standard_normal(shape)).astype(np.float32)


def state_dict(part: str, seed: int) -> dict[str, np.ndarray]:
    """Tensors of one network, in the layout of the authors' file.

    Args:
        part: ``"E"`` (avatar encoder, 126 tensors) or ``"M"`` (motion encoder, 407 entries).
        seed: Any integer; each seed is another checkpoint.

    Returns:
        Checkpoint key -> array, float32 except the integer batch counters.
    """
    with open(SPEC / f"checkpoint_keys_{part}.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        r["torch_key"]: _tensor(
            seed, r["torch_key"], tuple(ast.literal_eval(r["shape"])), r["gain"]
        )
        for r in rows
    }


def image(seed: int, size: int) -> np.ndarray:
    """A smooth RGB test image in [-1, 1], shape (3, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    out = np.zeros((3, size, size))
    for channel in range(3):
        for _ in range(6):
            fx, fy, phase = rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(0, 2 * np.pi)
            out[channel] += np.sin(fx * x + fy * y + phase) / 6
    return np.clip(out, -1, 1).astype(np.float32)
