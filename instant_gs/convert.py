"""The authors' published checkpoint, converted to a weights directory of this project.

    python -m instant_gs.convert --checkpoint=ckpt.pth --out=weights/released

Neither PyTorch nor anything else is needed. ``--motion_encoder`` takes X-NeMo's own motion encoder
file, for a checkpoint without one, or in place of its own; given alone it converts just that
network. ``.npz`` files work as well: arrays named as in the checkpoint.
"""

import os
import sys
from typing import Any

from absl import flags

from instant_gs import cli, output
from instant_gs.data import digest

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
_WHOLE = "state_dict"  # some training programs put the groups, or the tensors, one level down
# X-NeMo's own file lacks the outer "model." of the authors' checkpoint.
_MOTION_PREFIXES = ("bbox_proj.", "final_proj.")
_MOTION_CODE = "pe"
_TRAINING_WRAPPER = "module."  # torch's DistributedDataParallel


def from_state_dicts(encoder: dict, motion_encoder: dict | None = None, *, legacy: bool = False):
    """Does in memory what the command does, and shows the licence on stderr, as loading does.

    Args:
        encoder: Arrays keyed as in the checkpoint's ``E_state_dict`` (126 of them).
        motion_encoder: Those of ``M_state_dict`` (407), or of X-NeMo's own file; without it the
            model makes no motion codes.
        legacy: Whether they are the first release's: see ``released_config``.

    Returns:
        The model that ``instant_gs.load`` would return.

    Raises:
        ValueError: Lists every missing, unknown, misshapen or not finite array and every other
            type than floats; or a whole checkpoint is given for one of its parts.
    """
    from instant_gs.inference import avatar
    from instant_gs.training import provenance as provenance_lib

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
    states = {"E": _renamed("encoder", "E", encoder)}
    if motion_encoder is not None:
        states["M"] = _renamed("motion_encoder", "M", motion_encoder)
    params, config = _to_params(states), released_config(legacy=legacy)
    provenance = _provenance(config, states)
    provenance_lib.show_licence("convert.from_state_dicts", provenance)
    return avatar.InstantAvatar(config, params, provenance=provenance)


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
        the file, which are not used; so is what lies beside a ``state_dict``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or damaged, or holds no array, or one twice.
    """
    from instant_gs import torch_file

    if torch_file.is_torch_file(path):
        tree = torch_file.read(path)
    else:
        tree = _read_npz(path)
    unused = []
    if isinstance(tree, dict) and isinstance(tree.get(_WHOLE), dict):
        unused = [str(name) for name in tree if name != _WHOLE]
        tree = tree[_WHOLE]
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(tree).__name__}")
    states = {part: tree[name] for name, part in _GROUPS.items() if name in tree}
    if states:
        unused += [str(name) for name in tree if name not in _GROUPS]
    else:
        states = _split(path, tree)
    states = {part: _renamed(f"{path}: part {part}", part, states[part]) for part in states}
    if not any(states.values()):
        raise ValueError(f"{path}: expected tensors of the authors' checkpoint, got none")
    return states, unused


def _read_npz(path) -> dict:
    import tokenize

    import numpy as np

    from instant_gs import torch_file

    # An array's header is parsed as Python and may promise any size.
    damage = (*torch_file.DAMAGE, tokenize.TokenError, SyntaxError, MemoryError)
    with open(path, "rb") as opened:
        try:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is one array")
            arrays = [(name, file[name]) for name in file.files]
        except damage as error:
            raise ValueError(
                f"{path}: expected a file of torch.save (PyTorch 1.6 or newer) or an .npz file of "
                "numbers, got neither, a damaged one or one that memory cannot hold; download it "
                "again, or use another machine"
            ) from error
    tree = {}
    for name, array in arrays:
        _put(path, tree, name, array)
    return tree


def _put(source, state: dict, name: str, value) -> None:
    if name in state:
        raise ValueError(f"{source}: {name}: there twice, or under two names; keep one of them")
    state[name] = value


def _split(path, state: dict) -> dict[str, dict]:
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
        _put(path, states.setdefault(part, {}), key, value)
    return states


def _renamed(source: str, part: str, state: dict) -> dict:
    """The state dict with the authors' names.

    Raises:
        ValueError: It is none, or two names become one.
    """
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{source}: expected named tensors; save the networks' state_dict()s")
    out = {}
    for key, value in state.items():
        _put(source, out, _author_name(part, key), value)
    return out


def _author_name(part: str, key: str) -> str:
    key = key.removeprefix(_TRAINING_WRAPPER)
    outer = ("model.model.", "model.pe", *(f"model.{name}" for name in _MOTION_PREFIXES))
    inner = ("model.", *_MOTION_PREFIXES)
    is_inner = key == _MOTION_CODE or (key.startswith(inner) and not key.startswith(outer))
    return "model." + key if part == "M" and is_inner else key


def _to_params(states: dict[str, dict]) -> dict:
    import jax
    import jax.numpy as jnp

    from instant_gs.models import checkpoint_map

    lines = [line for part in states for line in checkpoint_map.problems(part, states[part])]
    if lines:
        raise ValueError(
            f"{len(lines)} tensors do not fit the published model:\n  " + ";\n  ".join(lines)
        )
    params = {}
    if "E" in states:
        params |= checkpoint_map.to_params("E", states["E"])
    if "M" in states:
        params["motion_encoder"] = checkpoint_map.to_params("M", states["M"])
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
    from instant_gs.training import weights

    if not checkpoint and not motion_encoder:
        raise cli.UserError(
            "--checkpoint is missing; give the authors' ckpt.pth, or --motion_encoder alone", 2
        )
    output.check_parents(out, option="--out")
    weights.check_new(out, "--out")
    states, unused, files = {}, [], []
    first = ("E",) if motion_encoder else ("E", "M")
    for path, wanted in ((checkpoint, first), (motion_encoder, ("M",))):
        if not path:
            continue
        found, others = read(path)
        if not set(found) & set(wanted):
            raise cli.UserError(f"{path}: it holds no {' or '.join(wanted)} network")
        files.append(_fingerprint(path))
        states |= {part: found[part] for part in wanted if part in found}
        others += [group for group, part in _GROUPS.items() if part in set(found) - set(wanted)]
        unused += [f"{name} of {files[-1]['name']}" for name in others]
    config = released_config(legacy=legacy)
    try:
        params = _to_params(states)
    except ValueError as error:
        names = ", ".join(file["name"] for file in files)
        raise ValueError(f"{names}: {error}; is it the authors' checkpoint, whole?") from error
    provenance = _provenance(config, states, files, unused)
    weights.save(out, config, params, provenance, half=False)
    if len(states) == 2:
        bank = avatar.InstantAvatar(config, params).bank
        motion_bank.save(out, bank, config.model.motion.crop)
    return provenance


def _provenance(config, states: dict, files=(), unused=()) -> dict[str, Any]:
    from instant_gs.training import provenance as provenance_lib

    return provenance_lib.record(config) | {
        "kind": "converted from the authors' checkpoint",
        "files": list(files),
        "tensors": {part: len(state) for part, state in states.items()},
        "unused_groups": list(unused),
        "licence": LICENCE,
    }


def _fingerprint(path) -> dict[str, Any]:
    return {
        "name": os.path.basename(path),
        "bytes": os.path.getsize(path),
        "sha256": digest.file_sha256(path),
    }


def main(argv):
    del argv
    given = flags.FLAGS
    if not given.out:
        raise cli.UserError("--out is missing; give the weights directory to write (--help)", 2)
    provenance = convert(given.checkpoint, given.motion_encoder, given.out, legacy=given.legacy)
    counts = ", ".join(f"{part}: {count}" for part, count in provenance["tensors"].items())
    print(f"{given.out}: every tensor of these networks used once ({counts})")
    if provenance["unused_groups"]:
        print("not used: " + ", ".join(provenance["unused_groups"]))
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
