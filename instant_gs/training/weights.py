"""Weights directories: what inference needs of a run, and what is released.

Parameters (bfloat16 on disk), ``config.json``, ``provenance.json`` and checksums.
"""

import json
import os
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from instant_gs import cli
from instant_gs.config import Config
from instant_gs.data import digest
from instant_gs.training import checkpoint, failed_write, provenance

CHECKSUMS = "checksums.json"

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "weights"
SHIPPED_NAMES = ("small", "demo")

#: What can be given as weights, for messages.
KINDS = (
    "a folder that train.py or `python -m instant_gs.convert --checkpoint=ckpt.pth --out=FOLDER` "
    f"wrote, or the name of shipped weights ({', '.join(SHIPPED_NAMES)})"
)


def find(name: str | os.PathLike) -> pathlib.Path:
    """A folder's absolute path; a shipped one's for its bare name.

    A folder of that name comes first if weights or a run are in it; one with other things does not.
    """
    here = pathlib.Path(name).absolute()
    parts = ("config.json", "params", "checkpoints", "provenance.json")
    is_meant = any((here / part).exists() for part in parts)
    return SHIPPED / name if os.fspath(name) in SHIPPED_NAMES and not is_meant else here


def check_new(folder: str | pathlib.Path, name: str) -> None:
    """Raises UserError if a folder to be written exists; ``name`` is what the message calls it."""
    if pathlib.Path(folder).exists():
        raise cli.UserError(f"{name}: {folder} exists already; choose another folder or remove it")


def save(
    folder: str | pathlib.Path,
    config: Config,
    params: dict,
    facts: dict,
    *,
    half: bool = True,
) -> None:
    """Writes a weights directory; it appears whole or not at all.

    Args:
        folder: Must not exist yet.
        config: Configuration of the run.
        params: Parameters.
        facts: JSON-able provenance: command, commit, data, licence, scores.
        half: Store as bfloat16 what is float32, as a release; False keeps every bit.

    Raises:
        UserError: The folder exists, or cannot be written, e.g. because the disk is full.
    """
    check_new(folder, "weights")
    folder = pathlib.Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    stored = jax.tree.map(
        lambda a: np.asarray(a, ml_dtypes.bfloat16 if half and a.dtype == jnp.float32 else a.dtype),
        params,
    )
    whole = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(whole / "params", stored, folder)
        (whole / "config.json").write_text(config.to_json() + "\n")
        (whole / CHECKSUMS).write_text(json.dumps(_checksums(whole), indent=1) + "\n")
        provenance.write(whole, facts)
        os.chmod(whole, 0o755)  # mkdtemp's is private
        os.rename(whole, folder)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _write(path: pathlib.Path, params: dict, folder: pathlib.Path) -> None:
    failed_write.quieten()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, params)
    except (OSError, ValueError) as error:
        reason = failed_write.reason(error)
        if reason is None:
            raise
        raise cli.UserError(
            f"{folder}: weights could not be written: {reason}; make room or choose another folder"
        ) from error


def load(folder: str | pathlib.Path) -> tuple[Config, dict, dict]:
    """Reads a weights directory, or the averaged parameters of a run's newest whole checkpoint.

    Args:
        folder: A weights directory or a run's folder, or the name of shipped weights.

    Returns:
        Configuration, parameters (float32) and provenance, whose licence, if it states one, is
        shown on stderr.

    Raises:
        FileNotFoundError: Neither kind is there.
        UserError: The weights are damaged, or none of a run's checkpoints can be read.
    """
    folder = find(folder)
    if (folder / "config.json").is_file() and (folder / "params").is_dir():
        config, params, facts = _read(folder)
    elif (run := checkpoint.read_average(folder)) is not None:
        config, params, step = run
        facts = provenance.read(folder) | {"step": step}
    else:
        raise FileNotFoundError(
            f"{folder}: neither a weights directory (config.json, params/) nor a run with "
            f"checkpoints/; give {KINDS}"
        )
    provenance.show_licence(folder, facts)
    params = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32 if a.dtype == jnp.bfloat16 else a.dtype), params
    )
    return config, params, facts


def _read(folder: pathlib.Path) -> tuple[Config, dict, dict]:
    """Configuration, parameters as they are stored, and provenance of a weights directory."""
    fix = "download or copy the whole folder again"
    try:
        config = Config.from_json((folder / "config.json").read_text())
        config.validate()
    except ValueError as error:  # JSON's and Unicode's are, too
        raise cli.UserError(f"{folder / 'config.json'}: {error}; {fix}") from error
    try:
        facts = provenance.read(folder)
        expected = json.loads((folder / CHECKSUMS).read_text())
    except FileNotFoundError as error:
        raise cli.UserError(f"{folder}: damaged ({CHECKSUMS} is missing); {fix}") from error
    except (ValueError, cli.UserError) as error:
        what = f"{CHECKSUMS} or {provenance.FILE_NAME}: {error}"
        raise cli.UserError(f"{folder}: damaged ({what}); {fix}") from error
    found = _checksums(folder)
    changed = sorted(name for name in expected if expected[name] != found.get(name))
    if changed:
        what = f"{changed[0]} is not what was written, or missing"
        raise cli.UserError(f"{folder}: damaged ({what}); {fix}")
    with ocp.StandardCheckpointer() as checkpointer:
        params = checkpointer.restore(folder / "params")
    return config, params, facts


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the parameters' files, by their paths in a weights directory."""
    files = sorted(path for path in (folder / "params").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest.file_sha256(path) for path in files}
