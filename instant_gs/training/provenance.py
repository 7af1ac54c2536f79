"""Where weights come from: what a run notes when it starts and a release keeps."""

import datetime
import json
import pathlib
import platform
import sys
from collections.abc import Iterable

import jax

from instant_gs import cli, output, version
from instant_gs.config import Config
from instant_gs.data import reader

FILE_NAME = "provenance.json"


def write(folder: str | pathlib.Path, facts: dict) -> None:
    """Writes ``provenance.json`` into a folder, which is created if need be."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    output.write_json(folder / FILE_NAME, facts)


def read(folder: str | pathlib.Path) -> dict:
    """The facts that ``write`` left in a folder; empty if it left none.

    Raises:
        UserError: What is there is not JSON.
    """
    path = pathlib.Path(folder) / FILE_NAME
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise cli.UserError(f"{path}: not valid JSON ({error}); restore or remove it") from error


def record(config: Config, origins: dict[str, dict] | None = None) -> dict:
    """JSON-able facts: command, versions, commit, packs with their manifests, machine.

    Args:
        config: Of the run.
        origins: Provenance of other weights that it starts from, by option. It is repeated, and
            licences among it hold for what is trained, too.
    """
    origins = origins or {}
    return {
        "command": " ".join(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "instant_gs": version.__version__,
        "commit": version.commit() or "unknown",
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "packs": packs(config),
        **origins,
        **joined_licences(origins.values()),
    }


def joined_licences(origins: Iterable[dict]) -> dict[str, str]:
    """The licences among provenances, each once, as the fact "licence"; empty if none has one."""
    licences = dict.fromkeys(facts["licence"] for facts in origins if "licence" in facts)
    return {"licence": " ".join(licences)} if licences else {}


def packs(config: Config) -> dict[str, dict]:
    """What the packs of a configuration say of themselves, people included, in order.

    They go by the names of their folders, for paths are nobody else's business; a second one of the
    same name is "NAME (2)".

    Raises:
        PackError: One cannot be read.
    """
    found = {}
    for pack in config.data.packs:
        name = key = pathlib.Path(pack).resolve().name
        number = 1
        while key in found:
            number += 1
            key = f"{name} ({number})"
        found[key] = _manifest(pack)
    return found


def show_licence(source, facts: dict) -> None:
    """Prints on stderr the licence of weights, if their provenance states one; once a job."""
    if "licence" in facts and jax.process_index() == 0:
        print(f"{source}: {facts['licence']}", file=sys.stderr)


def _manifest(pack: str) -> dict:
    names = reader.Pack(pack, allow_broken=True).identities()
    manifest = json.loads((pathlib.Path(pack) / "manifest.json").read_text())
    people = {"count": len(names), "first": names[0], "last": names[-1]} if names else {"count": 0}
    kept = ("teacher", "licence", "content_sha256")
    return {key: manifest[key] for key in kept if key in manifest} | {"identities": people}
