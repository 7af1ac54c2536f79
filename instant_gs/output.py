"""Files for the user: written whole or not at all, and never over something else."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import flags

from instant_gs import cli


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


def check_parents(path: str | os.PathLike, *, option: str = "") -> None:
    """Refuses a path where no file can be made, before any work is done.

    Args:
        path: Where a file or a folder is going to be written.
        option: The flag that named the path, for the message.

    Raises:
        cli.UserError: A part of the path is no folder, or the folder takes no files; names it.
    """
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
    """A temporary path beside ``path``; renamed to it when the block ends well.

    After an exception the temporary file is removed and ``path`` is what it was before.
    Missing parent folders are made.

    Raises:
        cli.UserError: As ``check_free``.
    """
    path = check_free(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: FFmpeg and Pillow choose the format by it.
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private, a user's output is not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
