"""Starting as one of several processes.

Slurm, Open MPI and TPU pods say themselves who is who, and Kubernetes does where the package
``kubernetes`` is installed; anywhere else the command line says it.
"""

import jax

from instant_gs import cli


def say(line: str) -> None:
    """Prints a line once, however many processes there are."""
    if jax.process_index() == 0:
        print(line, flush=True)


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
