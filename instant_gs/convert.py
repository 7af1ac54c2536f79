"""The authors' published checkpoint, converted to a weights directory of this project.

    python -m instant_gs.convert --checkpoint=ckpt.pth --out=weights/released

Neither PyTorch nor anything else is needed. ``--motion_encoder`` takes X-NeMo's own motion encoder
file, for a checkpoint without one, or in place of its own; given alone it converts just that
network. ``.npz`` files work as well: arrays named as in the checkpoint.
"""

import hashlib
import os
import pathlib
import sys
from typing import Any

from absl import flags

from instant_gs import cli, output

LICENCE = (
    "Converted weights, and what is trained from them, keep their licence, which you accepted with "
    "the download. The authors' release (arXiv 2512.16893) is under the NVIDIA Source Code "
    "License: research and evaluation only, no commercial use. X-NeMo's motion encoder is CC BY-NC "
    "4.0."
)

#: Of the driving face, the share of the wide picture's side that is most like the release's own
#: rule, which is about a detector's box: docs/animation.md.
CROP = 0.52

_GROUPS = {"E_state_dict": "E", "M_state_dict": "M"}
# X-NeMo's own file lacks the outer "model." of the authors' checkpoint.
_MOTION_PREFIXES = ("bbox_proj.", "final_proj.")
_MOTION_CODE = "pe"
_TRAINING_WRAPPER = "module."  # torch's DistributedDataParallel


def from_state_dicts(encoder: dict, motion_encoder: dict | None = None, *, legacy: bool = False):
    """Does in memory what the command does.

    Args:
        encoder: Arrays keyed as in the checkpoint's ``E_state_dict`` (126 of them).
        motion_encoder: Those of ``M_state_dict`` (407); without it the model makes no motion
            codes.
        legacy: Whether they are the first release's: see ``released_config``.

    Returns:
        The model that ``instant_gs.load`` would return.

    Raises:
        ValueError: Lists every missing, unknown, misshapen or not finite array; or a whole
            checkpoint is given for one of its parts.
    """
    from instant_gs.inference import avatar

    for name, state in (("encoder", encoder), ("motion_encoder", motion_encoder)):
        missing = state is None and name == "encoder"
        if missing or (state is not None and not isinstance(state, dict)):
            raise ValueError(f"{name}: expected a dictionary of arrays, got {type(state).__name__}")
        if groups := sorted(set(state or ()) & set(_GROUPS)):
            raise ValueError(
                f"{name}: expected named arrays, got the whole checkpoint with its "
                f"{' and '.join(groups)}; pass checkpoint['E_state_dict'] as encoder and "
                "checkpoint['M_state_dict'] as motion_encoder"
            )
    params = _to_params(encoder, motion_encoder)
    return avatar.InstantAvatar(released_config(legacy=legacy), params)


def released_config(*, legacy: bool = False):
    """The configuration of the authors' release.

    Args:
        legacy: The first release: ray mode, the narrow view, antialiased pictures.

    Returns:
        ``config.Config``.
    """
    from instant_gs import config as config_lib
    from instant_gs.geometry import camera

    config = config_lib.Config(name="released_legacy" if legacy else "released")
    config.model.motion.encoder = "fan"
    config.model.motion.image_size = 224
    config.model.motion.crop = CROP
    config.model.gaussians.instantiation = "ray" if legacy else "plane"
    config.model.fov_degrees = camera.FOV_LEGACY_DEGREES if legacy else camera.FOV_WIDE_DEGREES
    config.model.raster_mode = "antialiased" if legacy else "classic"
    config.validate()
    return config


def read(path: str | os.PathLike) -> tuple[dict[str, dict], list[str]]:
    """Reads a checkpoint's state dicts.

    Args:
        path: ``.pth`` of ``torch.save`` or ``.npz``.

    Returns:
        State dicts by part ("E", "M"; those that are there), and the names of other groups in
        the file, which are not used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or damaged, or holds no array.
    """
    from instant_gs import torch_file

    if torch_file.is_torch_file(path):
        tree = torch_file.read(path)
    else:
        tree = _read_npz(path)
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(tree).__name__}")
    states = {part: tree[name] for name, part in _GROUPS.items() if name in tree}
    if states:
        unused = [str(name) for name in tree if name not in _GROUPS]
    else:
        states, unused = _split(tree), []
    for part, state in states.items():
        if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
            raise ValueError(f"{path}: part {part} is not a dictionary of named tensors")
        states[part] = _renamed(part, state)
    if not any(states.values()):
        raise ValueError(f"{path}: expected tensors of the authors' checkpoint, got none")
    return states, unused


def _read_npz(path) -> dict:
    import zipfile

    import numpy as np

    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is one array")
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a file of torch.save (PyTorch 1.6 or newer) or an .npz file, got "
            f"neither or a damaged one ({error}); download it again"
        ) from error


def _split(state: dict) -> dict[str, dict]:
    """Sorts a flat dict by network; .npz names may begin with the group's name."""
    states = {}
    for name, value in state.items():
        group, _, key = str(name).replace("/", ".", 1).partition(".")
        part = _GROUPS.get(group)
        if part is None:
            key = str(name)
            bare = key.removeprefix(_TRAINING_WRAPPER)
            is_motion = bare.startswith(("model.", *_MOTION_PREFIXES)) or bare == _MOTION_CODE
            part = "M" if is_motion else "E"
        states.setdefault(part, {})[key] = value
    return states


def _renamed(part: str, state: dict) -> dict:
    """The state dict with the authors' names.

    Raises:
        ValueError: Two names become one.
    """
    out = {}
    for key, value in state.items():
        name = _author_name(part, key)
        if name in out:
            raise ValueError(f"{name}: there twice, under two names; keep one of them")
        out[name] = value
    return out


def _author_name(part: str, key: str) -> str:
    key = key.removeprefix(_TRAINING_WRAPPER)
    outer = ("model.model.", "model.pe", *(f"model.{name}" for name in _MOTION_PREFIXES))
    inner = ("model.", *_MOTION_PREFIXES)
    is_inner = key == _MOTION_CODE or (key.startswith(inner) and not key.startswith(outer))
    return "model." + key if part == "M" and is_inner else key


def _to_params(encoder: dict | None, motion_encoder: dict | None) -> dict:
    import jax
    import jax.numpy as jnp

    from instant_gs.models import checkpoint_map

    states = {"E": encoder, "M": motion_encoder}
    states = {part: state for part, state in states.items() if state is not None}
    lines = [line for part in states for line in checkpoint_map.problems(part, states[part])]
    if lines:
        raise ValueError(
            f"{len(lines)} tensors do not fit the published model:\n  " + ";\n  ".join(lines)
        )
    params = {}
    if "E" in states:
        params |= checkpoint_map.to_params("E", encoder)
    if "M" in states:
        params["motion_encoder"] = checkpoint_map.to_params("M", motion_encoder)
    return jax.tree.map(jnp.asarray, params)


def convert(
    checkpoint: str | os.PathLike | None,
    motion_encoder: str | os.PathLike | None,
    out: str | os.PathLike,
    *,
    legacy: bool = False,
) -> dict[str, Any]:
    """Writes a weights directory, float32, whole or not at all.

    Beside them lie the motion codes that culling needs (``inference.motion_bank``): weights work
    without, but every program then makes them anew.

    Args:
        checkpoint: The authors' file, or None.
        motion_encoder: X-NeMo's file, or None; its network takes the place of the checkpoint's.
        out: Must not exist yet.
        legacy: Whether the checkpoint is the first release's.

    Returns:
        The provenance that was recorded.

    Raises:
        cli.UserError: ``out`` exists, or no file is given.
        ValueError: A file does not fit; the message lists everything.
    """
    from instant_gs.inference import avatar, motion_bank
    from instant_gs.training import checkpoint as checkpoint_lib
    from instant_gs.training import provenance as provenance_lib

    if not checkpoint and not motion_encoder:
        raise cli.UserError(
            "--checkpoint is missing; give the authors' ckpt.pth, or --motion_encoder alone", 2
        )
    output.check_parents(out, option="--out")
    if pathlib.Path(out).exists():
        raise cli.UserError(f"--out: {out} exists already; choose another or remove it")
    states, unused, files = {}, [], []
    for path, wanted in ((checkpoint, ("E", "M")), (motion_encoder, ("M",))):
        if not path:
            continue
        found, others = read(path)
        if not set(found) & set(wanted):
            raise cli.UserError(f"{path}: it holds no {' or '.join(wanted)} network")
        states |= {part: state for part, state in found.items() if part in wanted}
        unused += others
        files.append(_fingerprint(path))
    config = released_config(legacy=legacy)
    try:
        params = _to_params(states.get("E"), states.get("M"))
    except ValueError as error:
        names = ", ".join(file["name"] for file in files)
        raise ValueError(f"{names}: {error}; is it the authors' checkpoint, whole?") from error
    provenance = provenance_lib.record(config) | {
        "kind": "converted from the authors' checkpoint",
        "files": files,
        "tensors": {part: len(state) for part, state in states.items()},
        "unused_groups": unused,
        "licence": LICENCE,
    }
    checkpoint_lib.save_weights(out, config, params, provenance, half=False)
    if len(states) == 2:
        bank = avatar.InstantAvatar(config, params).bank
        motion_bank.save(out, bank, config.model.motion.crop)
    return provenance


def _fingerprint(path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": os.path.basename(path), "bytes": os.path.getsize(path), "sha256": digest}


def main(argv):
    del argv
    given = flags.FLAGS
    if not given.out:
        raise cli.UserError("--out is missing; give the weights directory to write (--help)", 2)
    provenance = convert(given.checkpoint, given.motion_encoder, given.out, legacy=given.legacy)
    counts = ", ".join(f"{part}: {count}" for part, count in provenance["tensors"].items())
    print(f"{given.out}: every tensor of these networks used once ({counts})")
    if provenance["unused_groups"]:
        print("other groups of the file, not used: " + ", ".join(provenance["unused_groups"]))
    if "M" not in provenance["tensors"]:
        print(
            "warning: the file has no motion encoder, so the result cannot be animated by pictures;"
            " give X-NeMo's as --motion_encoder=FILE",
            file=sys.stderr,
        )
    print(f"licence: {LICENCE}")


def _define_flags() -> None:
    """Not at import: this module is a library, too, and other commands have an --out."""
    flags.DEFINE_string("checkpoint", None, "The authors' ckpt.pth, or an .npz file.")
    flags.DEFINE_string("motion_encoder", None, "X-NeMo's motion encoder file.")
    flags.DEFINE_string("out", None, "Weights directory to write; must not exist.")
    legacy = "The first release (ckpt-legacy.pth): Gaussians along rays, narrow view, antialiased."
    flags.DEFINE_bool("legacy", False, legacy)


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
