"""Whether a command goes on with the run that its folder holds, and what it changes in it."""

import dataclasses
import json
import pathlib

import jax

from instant_gs import cli
from instant_gs.config import Config, TrainConfig
from instant_gs.training import checkpoint, distributed, provenance, weights

# May differ between a run and its continuation: how long, how often, how fast, with which memory.
_FREE = {
    "name",
    "optimizer.learning_rate",
    "optimizer.clip_norm",
    "motion_pretrain.learning_rate",
    "adversarial.learning_rate",
    "adversarial.group_size",  # another number of devices may need another one
    "data.broken",
    "data.cache_gigabytes",
    "data.threads",
    "model.encoder.remat",
    *(
        f"train.{field.name}"
        for field in dataclasses.fields(TrainConfig)
        if field.name != "resolutions"
    ),
}
_LISTED = 10  # fields in a message


def check(
    workdir: str | pathlib.Path,
    config: Config,
    init_from: str | None = None,
    motion_encoder: str | None = None,
) -> None:
    """Refuses to go on with a run of another configuration or start; an empty folder fits any.

    Args:
        workdir: The run's folder.
        config: That of the command, as are the others.
        init_from: As for ``loop.train``; the run began with it, or it is None.
        motion_encoder: The same.

    Raises:
        UserError: Names every field that differs, the packs, or the option.
        PackError: A pack cannot be read.
    """
    old = checkpoint.read_run_config(workdir)
    if old is None:
        return
    noted = provenance.read(workdir)
    _check_start("init_from", init_from, noted, workdir)
    _check_start("motion_encoder", motion_encoder, noted, workdir)
    differing = {name: pair for name, pair in changes(old, config).items() if name not in _FREE}
    if _same_packs(workdir, noted, old, config):
        differing.pop("data.packs", None)
    if differing:
        raise cli.UserError(
            f"--workdir={workdir} holds a run of another configuration: {describe(differing)}; "
            "give another --workdir or the run's own --config"
        )


def note_changes(workdir: str | pathlib.Path, step: int, before: Config, now: Config) -> None:
    """Says in one line what changes in a run from a step on, and keeps it in ``provenance.json``.

    What was noted of later steps goes: these are taken again.
    """
    changed = changes(before, now)
    if changed:
        distributed.say(f"changed from step {step} on: {describe(changed)}")
    if jax.process_index() != 0:
        return
    facts = provenance.read(workdir)
    kept = [line for line in facts.get("changes", []) if line["step"] < step]
    kept += [{"step": step, **changed}] if changed else []
    if kept != facts.get("changes", []):
        provenance.write(workdir, facts | {"changes": kept})


def changes(before: Config, now: Config) -> dict[str, list]:
    """Both values of the fields that differ, by full name."""
    old, new = fields(before), fields(now)
    return {name: [old[name], new[name]] for name in new if old[name] != new[name]}


def describe(changed: dict[str, list]) -> str:
    """Such as "optimizer.b1 was 0.9 and is 0.8"."""
    named = [f"{name} was {old!r} and is {new!r}" for name, (old, new) in changed.items()]
    more = [f"{len(named) - _LISTED} more"] if len(named) > _LISTED else []
    return ", ".join(named[:_LISTED] + more)


def fields(config: Config) -> dict:
    """JSON-able values of all fields, by full name such as "optimizer.b1"."""
    return _flat(json.loads(config.to_json()))


def _flat(tree: dict, path: str = "") -> dict:
    found = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{path}{name}.") if inner else {path + name: value}
    return found


def _check_start(option: str, given: str | None, noted: dict, workdir) -> None:
    """Refuses weights that a resumed run would ignore, unless it began with them."""
    if not given or not noted:
        return
    began = noted[option]["folder"] if option in noted else None
    if began is None or weights.find(given).resolve() != weights.find(began).resolve():
        raise cli.UserError(
            f"--{option}={given}: --workdir={workdir} holds a run already, which began "
            f"{f'with {began}' if began else 'without it'}; leave it out to go on with that run, "
            "or give another --workdir"
        )


def _same_packs(workdir, noted: dict, old: Config, config: Config) -> bool:
    """Whether packs hold what the run noted when it began, wherever they lie now."""
    if not noted:
        return False  # provenance.json is gone: their paths must do
    before, now = list(noted["packs"].values()), list(provenance.packs(config).values())
    hashes, hashes_now = ([pack["content_sha256"] for pack in packs] for packs in (before, now))
    if hashes == hashes_now:
        return True
    if sorted(hashes) == sorted(hashes_now):
        fix = "give them in that order"
    else:
        fix = (
            "give the packs that it began with, or go on from its weights in another folder: "
            f"--workdir=NEW --init_from={workdir}"
        )
    raise cli.UserError(
        f"--workdir={workdir}: its run learns from {_describe_packs(old, before)}, and data.packs "
        f"is now {_describe_packs(config, now)}; {fix}"
    )


def _describe_packs(config: Config, packs: list[dict]) -> str:
    """Such as "packs/a (40 people, a00 to a39, content 1f0c9a33)"."""
    named = []
    for path, facts in zip(config.data.packs, packs, strict=True):
        people = facts["identities"]
        span = f", {people['first']} to {people['last']}" if people["count"] else ""
        named.append(
            f"{path} ({people['count']} people{span}, content {facts['content_sha256'][:8]})"
        )
    return " and ".join(named) or "none"
