"""What a run needs of its folder: that it can be written, has room, and belongs to one process."""

import contextlib
import datetime
import fcntl
import logging
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from instant_gs import cli, output
from instant_gs.training import checkpoint, distributed

LOCK = "run.lock"

_SHOWN_SECONDS = 30  # within which a network file system shows a new file to all hosts

_log = logging.getLogger(__name__)


#: What says that a folder is something else, and what.
_OTHERS = {"manifest.json": "a teacher pack", "report.json": "an evaluation", "params": "weights"}


def check_place(workdir: pathlib.Path) -> None:
    """Refuses a path that cannot become a run's folder.

    Raises:
        UserError: It is a file, a bucket's address, or holds something else that this project
            wrote.
    """
    output.check_local(workdir, option="--workdir")
    if workdir.exists() and not workdir.is_dir():
        raise cli.UserError(f"--workdir={workdir}: is a file; give a folder")
    for name, what in _OTHERS.items():
        if (workdir / name).exists() and not (workdir / checkpoint.CHECKPOINTS).exists():
            raise cli.UserError(
                f"--workdir={workdir}: holds {what} ({name}); give a new folder for the run"
            )


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Creates the folder if need be and keeps other processes from training in it.

    The system frees the lock when its process ends, however it ends: no lock is ever stale. Of
    several hosts, the first holds it, and all see that they have the same folder. Folders that were
    created go again if nothing came into them.

    Raises:
        UserError: It cannot be written or is something else, another process trains there, or hosts
            see different folders.
    """
    holder = ""
    with contextlib.ExitStack() as stack:
        with distributed.together():
            check_place(workdir)
            if jax.process_index() == 0:
                holder = stack.enter_context(_locked(workdir))
        if jax.process_count() > 1:
            _check_shared(workdir, distributed.first_hosts(holder))
        yield


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[str]:
    """The folder, created and locked by this process; gives the line that the lock holds."""
    created = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / LOCK, "a+")  # noqa: SIM115
    except OSError as error:
        raise cli.UserError(
            f"--workdir={workdir}: cannot be written: {error.strerror}; choose another folder or "
            "change its permissions"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise cli.UserError(
                f"--workdir={workdir}: {file.read().strip() or 'another process'} is training "
                "there; wait until it ends, stop it, or choose another folder"
            ) from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): see to it yourself", workdir, error.strerror)
        since = datetime.datetime.now().isoformat(timespec="microseconds")
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {since},"
        file.truncate(0)
        file.write(f"{holder}\n")
        file.flush()
        os.fsync(file.fileno())  # other hosts read it
        try:
            yield holder
        finally:
            if created:
                _remove_empty(workdir, created)


def _check_shared(workdir: pathlib.Path, holder: str) -> None:
    """Compares the lock that every host sees; network file systems may show it late."""
    ends = time.monotonic() + _SHOWN_SECONDS
    while not (seen := _holder(workdir) == holder) and time.monotonic() < ends:
        time.sleep(1)
    if not multihost_utils.process_allgather(np.uint32(seen)).all():
        raise cli.UserError(
            f"--workdir={workdir}: expected one folder that all hosts see, and they see different "
            "ones; put it on storage that they share, and give its absolute path"
        )


def _holder(workdir: pathlib.Path) -> str:
    try:
        return (workdir / LOCK).read_text().strip()
    except OSError:
        return ""


def _remove_empty(workdir: pathlib.Path, created: list[pathlib.Path]) -> None:
    """Removes a run's folder without a run, and those above it, innermost first, if created."""
    with contextlib.suppress(OSError):  # something is in it
        folder = workdir / checkpoint.CHECKPOINTS
        if folder.exists():
            folder.rmdir()
        if [path.name for path in workdir.iterdir()] == [LOCK]:
            (workdir / LOCK).unlink()
        for folder in created:
            folder.rmdir()


def check_room(workdir: pathlib.Path, state, keep: int) -> None:
    """Compares what the checkpoints will take with what is free, before hours are spent.

    Args:
        workdir: The run's folder, which exists.
        state: All arrays of a checkpoint; they are stored as they are.
        keep: Checkpoints kept; one more exists while the newest is written.

    Raises:
        UserError: They do not fit.
    """
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    folder = workdir / checkpoint.CHECKPOINTS
    there = [path for path in folder.glob("*") if path.name.isdigit()]
    needed = one * max(keep + 1 - len(there), 1)
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise cli.UserError(
            f"--workdir={workdir}: checkpoints still need {_size(needed)} (up to {keep} + 1 of "
            f"{_size(one)} each) and {_size(free)} are free; make room, lower "
            "train.keep_checkpoints, or choose another folder"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
