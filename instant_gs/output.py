"""Files that appear whole or not at all; those for the user never over something else."""

import contextlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from instant_gs import cli

#: Stands before the suffix of unfinished files.
PARTIAL = ".partial"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/")  # pathlib leaves one of two slashes
_PARTIAL_NAME = re.compile(rf"\..*{re.escape(PARTIAL)}(\.[^.]*)?")


def check_free(path: str | os.PathLike, *, overwrite: bool, option: str = "") -> Path:
    """Refuses a path that holds something already, before any work is done.

    Args:
        path: Where a file is going to be written.
        overwrite: Whether an existing file, or a link to nothing, may be replaced.
        option: The flag that named the path, for the message.

    Returns:
        The path.

    Raises:
        cli.UserError: A file is there and may not be replaced, or a folder is there, or as
            ``check_parents``.
    """
    path = Path(path)
    name = f"{option}: {path}" if option else str(path)
    check_parents(path, option=option)
    if path.is_dir():
        raise cli.UserError(f"{name} is a folder; give the path of a file to write")
    if os.path.lexists(path) and not overwrite:
        flag = " or add --overwrite" if "overwrite" in flags.FLAGS else " or remove it"
        raise cli.UserError(f"{name} exists already; choose another path{flag}")
    return path


def check_apart(
    path: str | os.PathLike, inputs: Mapping[str, str | None], *, option: str = ""
) -> None:
    """Refuses a result that would replace an input file.

    A link to an input is no input: what is written there replaces the link alone.

    Args:
        path: Where a file is going to be written.
        inputs: By the flag that names it; None is left out.
        option: The flag that named the path, for the message.

    Raises:
        cli.UserError: Names both flags.
    """
    if not os.path.lexists(path):
        return
    there = os.lstat(path)
    for name, taken in inputs.items():
        if not taken or not os.path.exists(taken):
            continue
        if any(os.path.samestat(there, one) for one in (os.stat(taken), os.lstat(taken))):
            prefix = f"{option}: " if option else ""
            raise cli.UserError(
                f"{prefix}{path} would replace {name}; choose another path", cli.EXIT_USAGE
            )


def check_local(path: str | os.PathLike, *, option: str) -> None:
    """Refuses an address such as gs://bucket/run: it would become a folder of that name here.

    Raises:
        cli.UserError: Names the option and the fix.
    """
    if _ADDRESS.match(str(path)):
        raise cli.UserError(
            f"{option}={path}: expected a path, not an address; give one on a file system that this"
            " machine sees (for several hosts, that all of them see: NFS, Filestore, FSx, Lustre)"
        )


def check_parents(path: str | os.PathLike, *, option: str = "") -> None:
    """Refuses a path where no file can be made, before any work is done.

    Args:
        path: Where a file or a folder is going to be written.
        option: The flag that named the path, for the message.

    Raises:
        cli.UserError: A part of the path is no folder, or the folder takes no files; names it. Or
            the path is an address.
    """
    check_local(path, option=option or "output")
    name = f"{option}: {path}" if option else str(path)
    for parent in Path(path).parents:
        if parent.is_dir():
            try:
                with tempfile.TemporaryFile(dir=parent):  # permissions alone do not tell of /proc
                    return
            except OSError as error:
                raise cli.UserError(
                    f"{name}: no file can be made in {parent} ({error.strerror}); choose another "
                    "path"
                ) from error
        if os.path.lexists(parent):
            raise cli.UserError(f"{name}: {parent} is no folder; choose another path")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """``replacing`` for a user's output; missing parent folders are made.

    Raises:
        cli.UserError: As ``check_free``.
    """
    path = check_free(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        yield partial


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """An empty file beside ``path``; renamed to it when the block ends well.

    After an exception it is removed and ``path`` is what it was before. No two writers share one.
    """
    path = Path(path)
    # The suffix stays last: FFmpeg, Pillow and NumPy choose the format by it.
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PARTIAL}{path.suffix}")
    partial.touch(exist_ok=False)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Writes a JSON object, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def is_partial(path: str | os.PathLike) -> bool:
    """Whether a file's name is that of an unfinished one: left by a killed process, if no writer
    is at work there, and safe to delete.
    """
    return _PARTIAL_NAME.fullmatch(Path(path).name) is not None


def remove_partials(folder: str | os.PathLike) -> None:
    """Deletes what killed writers left in a folder."""
    for path in Path(folder).iterdir():
        if is_partial(path):
            path.unlink(missing_ok=True)
