"""Writes the measured tables of README.md and the docs from committed result files.

    python -m benchmarks.table            rewrites the marked blocks
    python -m benchmarks.table --check    only fails if a block is not what it would write

A block lies between `<!-- table: NAME -->` and `<!-- end of table: NAME -->`. Numbers come from
benchmarks/results/*.json (GPU, see benchmarks/on_gpu.sh), benchmarks/results/*.jsonl (lines of
`python -m kernels.bench`), benchmarks/compiled_*.json and benchmarks/stage_cost.json.
What no file holds is "not measured".
"""

import json
import re
from pathlib import Path

from absl import flags

from benchmarks import collect, cost_table, kernel_tables, provenance
from instant_gs import cli, output

ROOT = provenance.ROOT
RESULTS = ROOT / "benchmarks" / "results"
COMPILED = ROOT / "benchmarks" / "compiled_kernels.json"
PROGRAM = ROOT / "benchmarks" / "compiled_program.json"
COST = ROOT / "benchmarks" / "stage_cost.json"
_NAMES = ("README.md", "docs/animation.md", "docs/kernels.md", "docs/triton_backend.md")
DOCUMENTS = tuple(ROOT / name for name in _NAMES)

_HEAD = re.compile(r"<!-- table: ([\w ]+) -->\n(.*?)<!-- end of table: \1 -->", re.DOTALL)


def read_results(folder: Path) -> list[dict]:
    """GPU results, one of each device, the newest; rehearsals are none."""
    newest: dict[str, dict] = {}
    for path in sorted(folder.glob("*.json")):
        record = _read(path)
        if record.get("kind") != collect.KIND or record["interpreted"]:
            continue
        if record["date"] >= newest.get(record["device"], record)["date"]:
            newest[record["device"]] = record
    return list(newest.values())


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def read_cpu(folder: Path) -> dict[str, dict[str, dict]]:
    """`kernels.bench` lines of the xla backend: case -> direction -> line."""
    lines = [
        line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().split("\n")
    ]
    table: dict[str, dict[str, dict]] = {}
    for row in map(json.loads, filter(str.strip, lines)):
        if row["platform"] == "cpu":
            table.setdefault(row["case"], {})[row["direction"]] = row
    return table


def blocks(results: list[dict], cpu: dict[str, dict]) -> dict[str, str]:
    """Every table by name."""
    return {
        "summary": kernel_tables.summary(results, cpu),
        "speed": kernel_tables.speed(results),
        "stages": kernel_tables.stages(results),
        "growth": kernel_tables.growth(cpu),
        "profile": kernel_tables.profile(results),
        "compiled": kernel_tables.compiled(_read(COMPILED)),
        "program": kernel_tables.program(_read(PROGRAM)),
        "cost": cost_table.cost(_read(COST)),
    }


def rewrite(text: str, tables: dict[str, str], name: str = "the document") -> str:
    """The document with its blocks made anew.

    Raises:
      cli.UserError: a block has a name that does not exist, or there is no block.
    """
    found = {match[1] for match in _HEAD.finditer(text)}
    unknown = sorted(found - set(tables))
    if unknown or not found:
        raise cli.UserError(f"{name}: expected blocks of {sorted(tables)}, got {unknown or 'none'}")
    return _HEAD.sub(
        lambda match: (
            f"<!-- table: {match[1]} -->\n{tables[match[1]]}<!-- end of table: {match[1]} -->"
        ),
        text,
    )


def stale() -> dict[Path, str]:
    """Documents whose blocks are not what they should be, with what they should hold."""
    tables = blocks(read_results(RESULTS), read_cpu(RESULTS))
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    made = {path: rewrite(text, tables, path.name) for path, text in texts.items()}
    return {path: text for path, text in made.items() if text != texts[path]}


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_bool("check", False, "Write nothing; fail if something would change.")


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    changed = stale()
    names = ", ".join(path.name for path in changed)
    if flags.FLAGS.check and changed:
        raise cli.UserError(f"{names}: tables are not those of benchmarks/; run it without --check")
    for path, text in changed.items():
        with output.replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"wrote {names}" if changed else "nothing to change")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
