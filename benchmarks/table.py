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
from collections.abc import Callable
from pathlib import Path

from absl import flags

from benchmarks import collect, provenance
from instant_gs import cli, output

ROOT = provenance.ROOT
RESULTS = ROOT / "benchmarks" / "results"
COMPILED = ROOT / "benchmarks" / "compiled_kernels.json"
PROGRAM = ROOT / "benchmarks" / "compiled_program.json"
COST = ROOT / "benchmarks" / "stage_cost.json"
_NAMES = ("README.md", "docs/animation.md", "docs/kernels.md", "docs/triton_backend.md")
DOCUMENTS = tuple(ROOT / name for name in _NAMES)

NOT_MEASURED = "not measured"
_CPU_CASE = "target_200k"
# Targets on an H100 for the first case, 200,000 splats at 512 x 512: microseconds, times gsplat.
_TARGETS = {"forward": (200, 1.5), "forward_backward": (550, 1.5)}
# What puts splats in order; the first until 20b0e87. Now splats join their bins in "project", and
# get their first slots in "emit".
_ORDER = "order by depth and tile"
_ORDERING = ("depth sort", "limits", "bins", "tile sort")
# Estimated floors on an H100 (3.0 TB/s, 67 TFLOP/s), microseconds; ordering has one for all.
_FLOORS = {
    "project": 5,
    _ORDER: 9,
    "emit": 4,
    "blend": 11,
    "blend backward": 60,
    "gather": None,
    "project backward": None,
}
# Stages of the model one after the other.
_SUMS = {
    "a photo": ("encode", "motion code", "fold"),
    "a frame with its driving face": ("motion code", "motion", "decode", "rasterize"),
}
_CLOCKS = {"cpu": "processor time of all threads", "gpu": "elapsed time"}
_HEAD = re.compile(r"<!-- table: ([\w ]+) -->\n(.*?)<!-- end of table: \1 -->", re.DOTALL)


def read_results(folder: Path) -> list[dict]:
    """GPU results, one of each device, the newest; rehearsals are none."""
    newest: dict[str, dict] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("kind") != collect.KIND or record["interpreted"]:
            continue
        if record["date"] >= newest.get(record["device"], record)["date"]:
            newest[record["device"]] = record
    return list(newest.values())


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


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _us(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f} µs" if value < 10_000 else f"{value / 1000:.1f} ms"


def _bytes(value: float | None, of: str) -> str:
    return NOT_MEASURED if value is None else f"{value / 1e6:.0f} MB, {of}"


def _ratio(case: dict, name: str, part: str = "") -> str:
    """gsplat's time, or that of its `part` "_kernels", over ours."""
    theirs = case.get("gsplat", {}).get(f"{name}{part}_us")
    return NOT_MEASURED if not theirs else f"{theirs / case['ours'][f'{name}_us']:.2f}x"


def _gsplat_us(theirs: dict, name: str) -> str:
    kernels = theirs.get(f"{name}_kernels_us")
    alone = f", its kernels alone {_us(kernels)}" if kernels else ""
    return _us(theirs[f"{name}_us"]) + alone


def _cameras(case: dict) -> str:
    scenes = case.get("scenes", 1)
    return f"{scenes} scenes x {case['cameras']}" if scenes > 1 else str(case["cameras"])


def _cases(record: dict) -> list[dict]:
    return record["bench"] if isinstance(record["bench"], list) else []


def summary(results: list[dict], cpu: dict[str, dict]) -> str:
    """README's table: the scene that targets are set for."""
    measured = cpu.get(_CPU_CASE, {})
    where = "CPU"
    for row in measured.values():
        where = f"{row['cores']} CPU cores, commit {row['commit'][:7]}"
    rows = [[f"`xla`, {where}", *_cpu_cells(measured)]]
    for record in results:
        for case in _cases(record)[:1]:
            ours, theirs = case["ours"], case.get("gsplat", {})
            rows.append(
                [
                    f"`triton`, {record['device']}, commit {record['commit'][:7]}",
                    _us(ours["forward_us"]),
                    _us(ours["forward_backward_us"]),
                    _bytes(ours["memory_bytes"], "XLA's plan"),
                ]
            )
            if theirs.get("forward_us"):
                rows.append(
                    [
                        f"gsplat {theirs['version']}, the same GPU and scene",
                        _gsplat_us(theirs, "forward"),
                        _gsplat_us(theirs, "forward_backward"),
                        NOT_MEASURED,
                    ]
                )
    head = [
        "rasterizer, 200,000 splats, 512 x 512 (`target_200k`)",
        "forward",
        "forward + backward",
        "memory",
    ]
    return _rows(head, rows)


def _cpu_cells(measured: dict[str, dict]) -> list[str]:
    """Forward, forward and backward, memory of the latter."""
    both = [measured.get(name) for name in ("forward", "forward_backward")]
    times = [_us(1000 * row["median_ms"]) if row else NOT_MEASURED for row in both]
    return [*times, _bytes(both[1]["peak_bytes"] if both[1] else None, "the process")]


def growth(results: list[dict], cpu: dict[str, dict]) -> str:
    """Every case of the xla backend on a CPU."""
    del results
    rows, machines = [], set()
    for name, measured in cpu.items():
        for row in measured.values():
            what = [f"{row['images']} x {row['splats']:,}", f"{row['height']} x {row['width']}"]
            machines.add(f"{row['cores']} CPU cores, JAX {row['jax']}, commit {row['commit'][:7]}")
        rows.append([f"`{name}`", *what, *_cpu_cells(measured)])
    head = ["case", "images x splats", "image", "forward", "forward + backward", "memory"]
    return "".join(f"{machine}.\n\n" for machine in sorted(machines)) + _rows(head, rows)


def _verdicts(case: dict) -> str:
    """Whether the first case reaches its targets."""
    lines = []
    for name, (limit, times) in _TARGETS.items():
        mine, theirs = case["ours"][f"{name}_us"], case.get("gsplat", {}).get(f"{name}_us")
        missed = mine > limit or (theirs and theirs < times * mine)
        word = "missed" if missed else "reached" if theirs else "not compared"
        lines.append(
            f"* {name.replace('_', ' + ')}: at most {limit} µs, at least {times}x gsplat's speed: "
            f"{_us(mine)}, {_ratio(case, name)}: {word}"
        )
    plain, fixed = (
        case["ours"].get(key)
        for key in ("forward_backward_us", "forward_backward_deterministic_us")
    )
    if fixed:
        word = "reached" if fixed <= 1.5 * plain else "missed"
        lines.append(f"* deterministic: at most 1.5x the time: {fixed / plain:.2f}x: {word}")
    return "\n" + "\n".join(lines) + "\n"


def speed(results: list[dict], cpu: dict[str, dict]) -> str:
    """Every case beside gsplat, and the targets."""
    del cpu
    head = ["splats", "image", "cameras", "D"]
    for name in _TARGETS:
        head += [name.replace("_", " + "), "x gsplat", "x its kernels"]
    text = ""
    for record in results:
        cases = _cases(record)
        rows = [
            [
                f"{entry['case']['splats']:,}",
                f"{entry['case']['size']}²",
                _cameras(entry["case"]),
                str(entry["case"]["channels"]),
                *(
                    cell
                    for name in _TARGETS
                    for cell in (
                        _us(entry["ours"][f"{name}_us"]),
                        _ratio(entry, name),
                        _ratio(entry, name, "_kernels"),
                    )
                ),
            ]
            for entry in cases
        ]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        text += f"{record['device']}, {record['date'][:10]}, commit {record['commit'][:7]}"
        text += f"{_age(record)}; {versions}; {_parity(record)}; "
        text += f"{_copies(record)}.\n\n"
        text += _rows(head, rows) + (_verdicts(cases[0]) if cases else "")
    return text


def _age(record: dict) -> str:
    """A remark where the kernels are no longer those that were measured."""
    same = record["triton_sources_sha256"] == provenance.triton_hash()
    return "" if same else " (the kernels have changed since)"


def _copies(record: dict) -> str:
    rate = record.get("copy_gb_per_s")
    known = isinstance(rate, float)
    return f"a large copy moves {rate / 1000:.2f} TB/s" if known else f"copy {NOT_MEASURED}"


def _parity(record: dict) -> str:
    parity = record["parity"]
    if not isinstance(parity, dict):
        return f"parity {NOT_MEASURED}"
    passed = sum(case["pass"] for case in parity["cases"])
    worst = max(case["worst"] for case in parity["cases"])
    return f"parity: {passed} of {len(parity['cases'])} scenes pass, worst relative L2 {worst:.1e}"


def _stage_times(record: dict) -> dict[str, float]:
    for case in _cases(record)[:1]:
        times = dict(case["ours"].get("stages_us", {}))
        if "tile sort" in times:
            times[_ORDER] = sum(times.get(name, 0.0) for name in _ORDERING)
        return times
    return {}


def stages(results: list[dict], cpu: dict[str, dict]) -> str:
    """Each stage and its floor, for the scene that targets are set for."""
    del cpu
    rows = []
    for name, floor in _FLOORS.items():
        row = [name, "no estimate" if floor is None else f"{floor} µs"]
        for record in results:
            time = _stage_times(record).get(name)
            times = "no estimate" if floor is None else NOT_MEASURED
            row += [_us(time), f"{time / floor:.1f}x" if time and floor else times]
        rows.append(row)
    head = ["stage", "floor (estimate, H100)"]
    for record in results:
        head += [record["device"], "times the floor"]
    return _rows(head, rows)


def _short(kernel: str) -> str:
    """A name that fits into a table: CUB's are C++ templates of 500 characters."""
    if "RadixSort" in kernel:
        step = "passes" if "Onesweep" in kernel else "the rest"
        return f"CUB's radix sort, {16 if 'unsigned short' in kernel else 32} bits, {step}"
    return f"`{kernel}`"


def profile(results: list[dict], cpu: dict[str, dict]) -> str:
    """Time in each kernel of a forward and backward pass of the first scene."""
    del cpu
    text = ""
    for record in results:
        for case in _cases(record)[:1]:
            sums: dict[str, float] = {}
            for name, time in case["ours"].get("kernels_us", {}).items():
                sums[_short(name)] = sums.get(_short(name), 0.0) + time
            rows = [[name, f"{time:.1f} µs"] for name, time in sums.items()]
            rows.append(["all of these", f"{sum(sums.values()):.0f} µs"])
            text += _rows([f"kernel, {record['device']}", "a call"], rows)
    return text


def compiled(results: list[dict], cpu: dict[str, dict]) -> str:
    """Registers, shared memory and spills of every kernel, from the machine code."""
    del results, cpu
    record = json.loads(COMPILED.read_text(encoding="utf-8"))
    capabilities = sorted({entry["capability"] for entry in record["kernels"]})
    table: dict[tuple[str, str], dict[int, dict]] = {}
    for entry in record["kernels"]:
        key = entry["kernel"], entry["variant"]
        table.setdefault(key, {})[entry["capability"]] = entry
    rows = []
    for (kernel, what), entries in sorted(table.items()):
        registers = [str(entries[c]["registers"]) if c in entries else "" for c in capabilities]
        shared = max(entry["shared_bytes"] for entry in entries.values())
        spilled = max(entry["spill_bytes"] for entry in entries.values())
        rows.append([f"`{kernel}`", what, *registers, str(shared), str(spilled)])
    head = [
        "kernel",
        "variant",
        *(f"sm_{c}" for c in capabilities),
        "shared bytes",
        "spilled bytes",
    ]
    return f"Triton {record['triton']}; registers of a thread.\n\n" + _rows(head, rows)


def program(results: list[dict], cpu: dict[str, dict]) -> str:
    """What XLA's compiler makes around the kernels."""
    del results, cpu
    record = json.loads(PROGRAM.read_text(encoding="utf-8"))
    columns = {
        "triton": "Triton",
        "radix_sorts": "radix sorts",
        "other_sorts": "other sorts",
        "fusions": "kernels of XLA",
        "copies": "copies",
        "collectives": "collectives",
        "host": "host",
        "command_buffers": "command buffers",
        "launches_outside": "outside of them",
    }
    rows = [
        [entry["program"], *(str(entry[key]) for key in columns)] for entry in record["programs"]
    ]
    text = f"{record['device']}, JAX {record['jax']}, Triton {record['triton']}; launches.\n\n"
    return text + _rows(["program", *columns.values()], rows)


def _number(value: float) -> str:
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _spread(times: dict[str, float] | None) -> str:
    if times is None:
        return NOT_MEASURED
    return "{} ({} to {})".format(*(_number(times[key]) for key in ("median", "least", "most")))


def cost(results: list[dict], cpu: dict[str, dict]) -> str:
    """What each stage of the released model takes."""
    del results, cpu
    record = json.loads(COST.read_text(encoding="utf-8"))
    stages, timed, rows = record["stages"], record["timed_on"], []
    for name, stage in stages.items():
        counts = [stage[key] for key in ("gflop", "megabytes", "least_megabytes")]
        counts = ["not counted" if count is None else _number(count) for count in counts]
        times = [_spread(stage["milliseconds"].get(where)) for where in _CLOCKS]
        rows.append([name, *counts, *times])
    for name, parts in _SUMS.items():
        sums = [NOT_MEASURED] * len(_CLOCKS)
        for column, where in enumerate(_CLOCKS):
            if where in timed:
                times = (stages[part]["milliseconds"][where]["median"] for part in parts)
                sums[column] = _number(sum(times))
        rows.append([f"{name} ({', '.join(parts)})", *[""] * 3, *sums])
    text = f"Model `{record['model']}`, a frame of {record['frame']} x {record['frame']}.\n"
    for where, machine in timed.items():
        text += (
            f"{where.upper()}: medians (least to most) of {machine['runs']} calls after one that\n"
        )
        text += f"compiles, {_CLOCKS[where]}, {machine['cores']} core(s) of {machine['device']},\n"
        text += f"JAX {machine['jax']}, commit {machine['commit'][:7]}, "
        text += f"load average {machine['load']:.0f}.\n"
    head = ["stage", "GFLOP", "MB before fusion", "MB at least", "ms, CPU", "ms, GPU"]
    return text + "\n" + _rows(head, rows)


BLOCKS: dict[str, Callable[[list[dict], dict[str, dict]], str]] = {
    "summary": summary,
    "speed": speed,
    "stages": stages,
    "growth": growth,
    "profile": profile,
    "compiled": compiled,
    "program": program,
    "cost": cost,
}


def rewrite(
    text: str, results: list[dict], cpu: dict[str, dict], name: str = "the document"
) -> str:
    """The document with its blocks made anew.

    Raises:
      cli.UserError: a block has a name that does not exist, or there is no block.
    """
    found = [match[1] for match in _HEAD.finditer(text)]
    unknown = sorted(set(found) - set(BLOCKS))
    if unknown or not found:
        raise cli.UserError(f"{name}: expected blocks of {sorted(BLOCKS)}, got {unknown or 'none'}")

    def block(match: re.Match) -> str:
        body = BLOCKS[match[1]](results, cpu)
        return f"<!-- table: {match[1]} -->\n{body}<!-- end of table: {match[1]} -->"

    return _HEAD.sub(block, text)


def stale() -> dict[Path, str]:
    """Documents whose blocks are not what they should be, with what they should hold."""
    results, cpu = read_results(RESULTS), read_cpu(RESULTS)
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    made = {path: rewrite(text, results, cpu, path.name) for path, text in texts.items()}
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
