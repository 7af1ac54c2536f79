"""Checkpoints of a run.

One is one Orbax unit: state, the averaged parameters as their own item, the data iterator, the
configuration, and checksums of all of these.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import tempfile

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from instant_gs import cli
from instant_gs.config import Config
from instant_gs.training import completeness, distributed, failed_write, integrity
from instant_gs.training.state import TrainState

CHECKPOINTS = "checkpoints"  # below a run's folder
BROKEN = "broken_checkpoints"  # beside it; nothing here reads or deletes them

_ITEMS = ("state", "ema", "data", "config", "checksum")
_REASON = 200  # characters of a library's error worth a place in one line

_log = logging.getLogger(__name__)


class RunCheckpointer:
    """Saves and restores a run; asynchronous, whole or not at all.

    Args:
        workdir: The run's folder.
        keep: Newest checkpoints to keep.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 3):
        self._workdir = pathlib.Path(workdir)
        failed_write.quieten()
        self._manager = ocp.CheckpointManager(
            self._workdir.absolute() / CHECKPOINTS,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                cleanup_tmp_directories=True,  # what a killed process left half written
            ),
            item_names=_ITEMS,
        )

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict, config: Config) -> None:
        """Begins to save; returns when the arrays are copied, before they are written.

        Raises:
            UserError: The checkpoint before this one could not be written, e.g. a full disk; or
                hosts hold different numbers, of which none could be read again.
        """
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        arrays = {"state": _without_ema(state), "ema": state.ema}
        texts = {"data": data_state, "config": json.loads(config.to_json())}
        texts["checksum"] = {
            name: integrity.checksum(item) for name, item in (arrays | texts).items()
        }
        if wrong := distributed.differing({name: texts["checksum"][name] for name in arrays}):
            raise cli.UserError(
                f"--workdir={self._workdir}: hosts hold different numbers at step {step} "
                f"({', '.join(wrong)}), so that nothing was saved: they did not compute the same. "
                "Give all of them the same packages, drivers and kind of device, then run the same "
                "command again to resume"
            )
        items = {name: ocp.args.StandardSave(item) for name, item in arrays.items()}
        items |= {name: ocp.args.JsonSave(item) for name, item in texts.items()}
        with self.plain_errors("a checkpoint"):
            self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, template: TrainState) -> tuple[TrainState, dict, Config]:
        """Reads the newest whole checkpoint.

        Broken ones that are newer are moved to ``broken_checkpoints`` in the run's folder, with a
        warning for each.

        Args:
            template: A state of the right shapes, e.g. a fresh one.

        Returns:
            State, the data iterator's state, and the configuration it was trained with.

        Raises:
            UserError: There are checkpoints and none is whole, or the newest lacks parameters that
                the model needs.
        """
        _, item, broken = _find(self._manager, template)
        self._move_aside(broken)
        state = TrainState(ema=item["ema"], **item["state"])
        return state, item["data"], Config.from_json(json.dumps(item["config"]))

    def _move_aside(self, broken: dict[int, str]) -> None:
        """Broken checkpoints make room for new ones of the same step, and are kept."""
        if not broken:
            return
        aside = self._workdir.absolute() / BROKEN
        for step, reason in broken.items():
            _log.warning(
                "checkpoint %d of %s is broken and was moved to %s: %s",
                *(step, self._workdir, aside, reason),
            )
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                place = tempfile.mkdtemp(dir=aside, prefix=f"{step}-")
                os.rename(self._workdir.absolute() / CHECKPOINTS / str(step), place)
        multihost_utils.sync_global_devices("broken checkpoints are moved")
        self._manager.reload()

    def check(self) -> None:
        """Raises the UserError of a save that failed meanwhile, instead of at the next save."""
        with self.plain_errors("a checkpoint"):
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()  # raises what the writing thread met

    def close(self) -> None:
        """Waits until the last checkpoint is whole.

        Raises:
            UserError: It could not be written, e.g. a full disk.
        """
        with self.plain_errors("a checkpoint"):
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def plain_errors(self, what: str):
        """A block that writes ``what``; says what a failure means, and which checkpoint is whole.

        Raises:
            UserError: The file system refused, which raises an OSError, or of Orbax a long one.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            reason = failed_write.reason(error)
            if reason is None:
                raise
            with contextlib.suppress(OSError, ValueError):  # one may be on its way and get whole
                self._manager.wait_until_finished()
            self._manager.reload()  # forgets the step that it counted already
            whole = self._manager.latest_step()
            saved = "no checkpoint is saved yet" if whole is None else f"step {whole} is whole"
            raise cli.UserError(
                f"--workdir={self._workdir}: {what} could not be written: {reason}; {saved}."
                " Make room, then run the same command again to resume"
            ) from error


def _read(manager: ocp.CheckpointManager, step: int, items: dict) -> dict:
    """Some items of a checkpoint, compared with their checksums.

    The value of an item says how to read it; of "ema", None means whole on one device.
    """
    items = dict(items)
    if items.get("ema", "") is None:  # wherever it was trained, it is read by this device
        items["ema"] = ocp.args.StandardRestore(_shapes(manager.directory / str(step) / "ema"))
    items["checksum"] = ocp.args.JsonRestore()
    try:
        if not (manager.directory / str(step) / "checksum").is_dir():
            raise integrity.BrokenError("its checksums are missing")
        found = dict(manager.restore(step, args=ocp.args.Composite(**items)).items())
    except Exception:
        # Hosts that could read their part wait in Orbax for all.
        ocp.multihost.sync_global_processes("_Checkpointer:restore")
        raise
    for name, expected in found.pop("checksum").items():
        if name in found:
            integrity.check(name, found[name], expected)
    return found


def _shapes(folder):
    """A stored tree of arrays as shapes, whole on this host's first device."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # A StandardCheckpointer would warn: it expects a checkpoint, and this is an item of one.
    stored = ocp.StandardCheckpointHandler().metadata(folder).tree
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), stored
    )


def _read_newest(manager: ocp.CheckpointManager, items: dict) -> tuple[int, dict, dict[int, str]]:
    """Step and items of the newest whole checkpoint, and why each newer one is broken.

    Raises:
        UserError: None is whole.
    """
    broken = {}
    for step in sorted(manager.all_steps(), reverse=True):
        found, problem = {}, ""
        try:
            found = _read(manager, step, items)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:_REASON]}"
        problem = integrity.agreed(problem)
        if not problem:
            return step, found, broken
        broken[step] = problem
    reasons = "; ".join(f"step {step}: {reason}" for step, reason in broken.items())
    raise cli.UserError(
        f"{manager.directory}: no checkpoint can be read ({reasons}); restore one from a copy, or "
        "use another folder"
    )


def _whole(template: TrainState) -> dict:
    """The items of ``_read`` that make a state like a template, with its data and configuration."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    return {
        "state": ocp.args.StandardRestore(_without_ema(abstract)),
        "ema": ocp.args.StandardRestore(abstract.ema),
        "data": ocp.args.JsonRestore(),
        "config": ocp.args.JsonRestore(),
    }


def _find(manager: ocp.CheckpointManager, template: TrainState) -> tuple[int, dict, dict[int, str]]:
    """What a run goes on with, as ``_read_newest`` says it.

    Raises:
        UserError: None is whole, or the newest lacks parameters that the model needs.
    """
    newest = manager.directory / str(manager.latest_step())
    try:
        stored = _shapes(newest / "ema")
    except Exception:  # it is broken; reading it will say how
        stored = None
    if stored is not None:  # with fewer parameters it is whole: it must not pass for a broken one
        completeness.check(template.ema, stored, str(newest), completeness.OTHER_VERSION)
    return _read_newest(manager, _whole(template))


def find(
    workdir: str | pathlib.Path, template: TrainState
) -> tuple[int, Config, dict[int, str]] | None:
    """What ``RunCheckpointer.restore`` would read, or None; nothing is moved.

    Returns:
        Its step and configuration, and why each newer checkpoint is broken.

    Raises:
        UserError: As ``RunCheckpointer.restore``.
    """
    with _opened(workdir) as manager:
        if manager is None:
            return None
        step, item, broken = _find(manager, template)
        return step, Config.from_json(json.dumps(item["config"])), broken


@contextlib.contextmanager
def _opened(workdir: str | pathlib.Path):
    """A run's checkpoints for reading, or None if there are none."""
    folder = pathlib.Path(workdir).absolute() / CHECKPOINTS
    if not folder.is_dir():
        yield None
        return
    with ocp.CheckpointManager(folder, item_names=_ITEMS) as manager:
        yield None if manager.latest_step() is None else manager


def read_run_config(workdir: str | pathlib.Path) -> Config | None:
    """The configuration of a run's newest whole checkpoint, or None if there is no checkpoint.

    Raises:
        UserError: There are checkpoints and none can be read.
    """
    with _opened(workdir) as manager:
        if manager is None:
            return None
        _, item, _ = _read_newest(manager, {"config": ocp.args.JsonRestore()})
        return Config.from_json(json.dumps(item["config"]))


def read_average(workdir: str | pathlib.Path) -> tuple[Config, dict, int] | None:
    """What a run has learned: the averaged parameters of its newest whole checkpoint.

    Returns:
        Configuration, parameters and step, or None if there is no checkpoint.

    Raises:
        UserError: There are checkpoints and none can be read.
    """
    config = read_run_config(workdir)
    if config is None:
        return None
    with _opened(workdir) as manager:
        step, item, broken = _read_newest(manager, {"ema": None})
    for other, reason in broken.items():
        _log.warning("%s: using step %d; step %d is broken: %s", workdir, step, other, reason)
    return config, item["ema"], step


def _without_ema(state: TrainState) -> dict:
    items = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    del items["ema"]
    if not state.discriminator:  # Orbax keeps no empty dictionary
        del items["discriminator"]
    return items
