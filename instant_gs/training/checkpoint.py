"""Checkpoints of a run, and the weights that are released from one.

A run's checkpoint is one Orbax unit: state, the averaged parameters as their own item, the data
iterator and the configuration. A weights directory is what inference needs: parameters (bfloat16
on disk), ``config.json`` and ``provenance.json``.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from instant_gs import cli
from instant_gs.config import Config
from instant_gs.training import provenance
from instant_gs.training.state import TrainState

CHECKPOINTS = "checkpoints"  # below a run's folder


class RunCheckpointer:
    """Saves and restores a run; asynchronous, whole or not at all.

    Args:
        workdir: The run's folder.
        keep: Newest checkpoints to keep.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 3):
        self._workdir = pathlib.Path(workdir)
        self._manager = ocp.CheckpointManager(
            self._workdir.absolute() / CHECKPOINTS,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_names=("state", "ema", "data", "config"),
        )

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict, config: Config) -> None:
        """Begins to save; returns before the files are whole (see ``close``).

        Raises:
            UserError: The checkpoint before this one could not be written, e.g. a full disk.
        """
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_without_ema(state)),
            ema=ocp.args.StandardSave(state.ema),
            data=ocp.args.JsonSave(data_state),
            config=ocp.args.JsonSave(json.loads(config.to_json())),
        )
        with self._plain_errors():
            self._manager.save(step, args=items)

    def restore(
        self, template: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict, Config]:
        """Reads a checkpoint.

        Args:
            template: A state of the right shapes, e.g. a fresh one.
            step: Which; None is the newest.

        Returns:
            State, the data iterator's state, and the configuration it was trained with.
        """
        step = self._manager.latest_step() if step is None else step
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        item = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_without_ema(abstract)),
                ema=ocp.args.StandardRestore(abstract.ema),
                data=ocp.args.JsonRestore(),
                config=ocp.args.JsonRestore(),
            ),
        )
        state = TrainState(ema=item["ema"], **item["state"])
        return state, item["data"], Config.from_json(json.dumps(item["config"]))

    def close(self) -> None:
        """Waits until the last checkpoint is whole.

        Raises:
            UserError: It could not be written, e.g. a full disk.
        """
        with self._plain_errors():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def _plain_errors(self):
        """Says what a failed write means: Orbax raises the file system's error, or a long one."""
        try:
            yield
        except (OSError, ValueError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if not code and not isinstance(error, OSError):
                raise
            reason = os.strerror(int(code[1])) if code else error.strerror or str(error)
            whole = max(self._manager.all_steps(), default=None)
            before = "there is none before it" if whole is None else f"step {whole} is whole"
            raise cli.UserError(
                f"--workdir={self._workdir}: a checkpoint could not be written: {reason}; {before}."
                " Make room, then run the same command again to resume"
            ) from error


def read_run_config(workdir: str | pathlib.Path) -> Config | None:
    """The configuration of a run's newest checkpoint, or None if there is none."""
    folder = pathlib.Path(workdir).absolute() / CHECKPOINTS
    if not folder.is_dir():
        return None
    with ocp.CheckpointManager(folder, item_names=("config",)) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        return Config.from_json(json.dumps(manager.restore(step, args=args)["config"]))


def _without_ema(state: TrainState) -> dict:
    return {
        "step": state.step,
        "params": state.params,
        "optimizers": state.optimizers,
        "bad_step": state.bad_step,
    }


def save_weights(
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
        UserError: The folder exists.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists():
        raise cli.UserError(f"{folder} exists already; choose another --out or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    stored = jax.tree.map(
        lambda a: np.asarray(a, ml_dtypes.bfloat16 if half and a.dtype == jnp.float32 else a.dtype),
        params,
    )
    whole = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(whole / "params", stored)
        (whole / "config.json").write_text(config.to_json() + "\n")
        provenance.write(whole, facts)
        os.chmod(whole, 0o755)  # mkdtemp's is private
        os.rename(whole, folder)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def load_weights(folder: str | pathlib.Path) -> tuple[Config, dict, dict]:
    """Reads a weights directory, or the averaged parameters of a run's newest checkpoint.

    Args:
        folder: A weights directory or a run's folder.

    Returns:
        Configuration, parameters (float32) and provenance.

    Raises:
        FileNotFoundError: Neither kind is there.
    """
    folder = pathlib.Path(folder).absolute()
    if (folder / "config.json").is_file() and (folder / "params").is_dir():
        config = Config.from_json((folder / "config.json").read_text())
        facts = provenance.read(folder)
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(folder / "params")
    elif (config := read_run_config(folder)) is not None:
        with ocp.CheckpointManager(folder / CHECKPOINTS, item_names=("ema",)) as manager:
            step = manager.latest_step()
            args = ocp.args.Composite(ema=ocp.args.StandardRestore())
            params = manager.restore(step, args=args)["ema"]
        facts = provenance.read(folder) | {"step": step}
    else:
        raise FileNotFoundError(
            f"{folder}: neither a weights directory (config.json, params/) nor a run with "
            "checkpoints/; give --weights one of these"
        )
    params = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32 if a.dtype == jnp.bfloat16 else a.dtype), params
    )
    return config, params, facts
