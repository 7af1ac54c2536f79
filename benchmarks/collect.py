"""Joins what one visit to a GPU left behind into one result file.

    python -m benchmarks.collect --folder=OUT

Reads OUT/parity.json, OUT/parity_rest.json, OUT/bench.json, OUT/graphs.json, OUT/gpu-*.json,
OUT/sanitizer.txt and OUT/tuned.json, each if it is there, and writes OUT/<device>.json. Copied to
benchmarks/results/ and committed, it is what `python -m benchmarks.table` makes the tables of
README.md and the docs from. Needs no GPU.
"""

import json
from pathlib import Path

from absl import flags

from benchmarks import kernel_tables, provenance
from instant_gs import cli

KIND = "gpu_results"
NOT_RUN = "not run"


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _head(parts: dict[str, dict]) -> dict:
    """What all parts say about where they come from.

    Raises:
      cli.UserError: the parts come from different sources or devices.
    """
    head = None
    for name, part in parts.items():
        mine = {key: part[key] for key in ("kernels_sha256", "versions", "driver")}
        if head is not None and mine != head:
            raise cli.UserError(
                f"--folder: {name} was made with other sources or versions than the files beside "
                "it; run benchmarks/on_gpu.sh into a new folder"
            )
        head = mine
    first = next(iter(parts.values()))
    return {key: first[key] for key in ("date", "device", "interpreted", "commit")} | head


def _graphs(part: dict) -> dict:
    """The first case with XLA's command buffers from the first launch on."""
    return {"xla_flags": part["xla_flags"], **part["cases"][0]["ours"]}


def collect(folder: Path) -> dict:
    """The joined record.

    Raises:
      cli.UserError: there is nothing to join, or parts do not belong together.
    """
    names = ("parity", "parity_rest", "bench", "graphs")
    parts = {name: _read(folder / f"{name}.json") for name in names}
    parts = {name: part for name, part in parts.items() if part}
    if not parts:
        raise cli.UserError(f"--folder: neither parity.json nor bench.json in {folder}")
    tests = [_read(path) for path in sorted(folder.glob("gpu-*.json"))]
    sanitizer = folder / "sanitizer.txt"
    tuned = _read(folder / "tuned.json")
    bench = parts.get("bench")
    parity = [parts[name] for name in names[:2] if name in parts]
    checked = [case for part in parity for case in part["cases"]]
    return {
        "kind": KIND,
        **_head(parts),
        "triton_sources_sha256": (bench or parity[0])["triton_sources_sha256"],
        "gpu_tests": tests[-1]["tests"] if tests else NOT_RUN,
        "sanitizer": sanitizer.read_text("utf-8").strip() if sanitizer.is_file() else NOT_RUN,
        "parity": {"bound": parity[0]["bound"], "cases": checked} if parity else NOT_RUN,
        "copy_gb_per_s": bench["copy_gb_per_s"] if bench else NOT_RUN,
        "bench": bench["cases"] if bench else NOT_RUN,
        "graphs": _graphs(parts["graphs"]) if "graphs" in parts else NOT_RUN,
        "tuned": tuned["entries"] if tuned else NOT_RUN,
    }


def define_flags() -> None:
    """Not at import: others import this module for its functions."""
    flags.DEFINE_string("folder", None, "What benchmarks/on_gpu.sh wrote into.", required=True)


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    folder = Path(flags.FLAGS.folder)
    record = collect(folder)
    path = folder / f"{provenance.file_name(record['device'])}.json"
    if record["interpreted"]:
        path = folder / "rehearsal.json"
    provenance.write(path, record)
    # Last, as the end of a long log is what one sees of it.
    print(kernel_tables.speed([record]) + "\n" + kernel_tables.stages([record]))
    print(f"gpu tests: {record['gpu_tests']}; {record['sanitizer']}")
    print(f"wrote {path}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
