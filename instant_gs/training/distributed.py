"""Several processes: how they start, and what one tells the others.

Slurm, Open MPI and TPU pods say themselves who is who, and Kubernetes does where the package
``kubernetes`` is installed; anywhere else the command line says it.
"""

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from instant_gs import cli

_TEXT_BYTES = 256


def say(line: str) -> None:
    """Prints a line once, however many processes there are; nobody need read along."""
    if jax.process_index() != 0:
        return
    try:
        print(line, flush=True)
    except BrokenPipeError:  # who read along has gone, as at the end of an ssh session
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that every host runs alone; if it fails on one, none goes on. It may not meet others.

    Raises:
        UserError: It failed on another host.
    """
    problem = None
    try:
        yield
    except Exception as error:
        problem = error
    failed = np.array([problem is not None])
    if jax.process_count() > 1:
        failed = multihost_utils.process_allgather(failed[0])
    if problem is not None:
        raise problem
    if failed.any():
        raise cli.UserError(f"host {failed.argmax()} cannot go on; what it wrote itself says why")


def differing(facts: dict[str, object]) -> list[str]:
    """Names of the facts in which hosts differ: all call it together, with the same names.

    Args:
        facts: What can be written as JSON, by name.
    """
    if jax.process_count() == 1:
        return []
    own = [zlib.crc32(json.dumps(value, sort_keys=True).encode()) for value in facts.values()]
    everyone = multihost_utils.process_allgather(np.array(own, np.uint32))
    same = (everyone == everyone[0]).all(axis=0)
    return [name for name, alike in zip(facts, same, strict=True) if not alike]


def first_hosts(text: str) -> str:
    """The first host's text, on all hosts, which call it together; 256 bytes at most."""
    if jax.process_count() == 1:
        return text
    own = np.frombuffer(text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0"), np.uint8)
    return bytes(multihost_utils.process_allgather(own)[0]).rstrip(b"\0").decode(errors="ignore")


def start(
    automatic: bool,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Meets the other processes; does nothing if no argument asks for it.

    Args:
        automatic: Ask the cluster for what is not given.
        coordinator: host:port of process 0.
        num_processes: How many there are.
        process_id: Which one this is, from 0.

    Raises:
        UserError: The values given make no sense, or the cluster does not know the missing ones.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if not automatic and len(missing) == len(given):
        return
    if not automatic and missing:
        raise cli.UserError(
            f"{', '.join(missing)}: expected with the other two, or --distributed to ask the "
            "cluster (Slurm, Open MPI, Kubernetes, TPU pod) for what is not given"
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise cli.UserError(f"--coordinator={coordinator}: expected host:port of process 0")
    if None not in (num_processes, process_id) and not 0 <= process_id < num_processes:
        raise cli.UserError(
            f"--process_id={process_id}: expected 0 to {num_processes - 1}, one less than "
            "--num_processes"
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        raise cli.UserError(
            "--distributed: found no Slurm, Open MPI, Kubernetes or TPU pod that says who is who "
            f"({error}); give --coordinator, --num_processes and --process_id"
        ) from error
