"""The tables of the rasterizer: its speed, its stages, its kernels.

Results are those of `benchmarks.gpu_bench` as `benchmarks.collect` joins them, one of each device;
`cpu` holds lines of `kernels.bench`, case -> direction -> line.
"""

from benchmarks import markdown, provenance

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


def _us(value: float | None) -> str:
    if value is None:
        return markdown.NOT_MEASURED
    return f"{value:.0f} µs" if value < 10_000 else f"{value / 1000:.1f} ms"


def _bytes(value: float | None, of: str) -> str:
    return markdown.NOT_MEASURED if value is None else f"{value / 1e6:.0f} MB, {of}"


def _ratio(case: dict, name: str, part: str = "") -> str:
    """gsplat's time, or that of its `part` "_kernels", over ours."""
    theirs = case.get("gsplat", {}).get(f"{name}{part}_us")
    return markdown.NOT_MEASURED if not theirs else f"{theirs / case['ours'][f'{name}_us']:.2f}x"


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
                        markdown.NOT_MEASURED,
                    ]
                )
    head = [
        "rasterizer, 200,000 splats, 512 x 512 (`target_200k`)",
        "forward",
        "forward + backward",
        "memory",
    ]
    return markdown.table(head, rows)


def _cpu_cells(measured: dict[str, dict]) -> list[str]:
    """Forward, forward and backward, memory of the latter."""
    both = [measured.get(name) for name in ("forward", "forward_backward")]
    times = [_us(1000 * row["median_ms"]) if row else markdown.NOT_MEASURED for row in both]
    return [*times, _bytes(both[1]["peak_bytes"] if both[1] else None, "the process")]


def growth(cpu: dict[str, dict]) -> str:
    """Every case of the xla backend on a CPU."""
    rows, machines = [], set()
    for name, measured in cpu.items():
        for row in measured.values():
            what = [f"{row['images']} x {row['splats']:,}", f"{row['height']} x {row['width']}"]
            machines.add(f"{row['cores']} CPU cores, JAX {row['jax']}, commit {row['commit'][:7]}")
        rows.append([f"`{name}`", *what, *_cpu_cells(measured)])
    head = ["case", "images x splats", "image", "forward", "forward + backward", "memory"]
    return "".join(f"{machine}.\n\n" for machine in sorted(machines)) + markdown.table(head, rows)


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


def speed(results: list[dict]) -> str:
    """Every case beside gsplat, and the targets."""
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
        text += markdown.table(head, rows) + (_verdicts(cases[0]) if cases else "")
    return text


def _age(record: dict) -> str:
    """A remark where the kernels are no longer those that were measured."""
    same = record["triton_sources_sha256"] == provenance.triton_hash()
    return "" if same else " (the kernels have changed since)"


def _copies(record: dict) -> str:
    rate = record.get("copy_gb_per_s")
    if not isinstance(rate, float):
        return f"copy {markdown.NOT_MEASURED}"
    return f"a large copy moves {rate / 1000:.2f} TB/s"


def _parity(record: dict) -> str:
    parity = record["parity"]
    if not isinstance(parity, dict):
        return f"parity {markdown.NOT_MEASURED}"
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


def stages(results: list[dict]) -> str:
    """Each stage and its floor, for the scene that targets are set for."""
    rows = []
    for name, floor in _FLOORS.items():
        row = [name, "no estimate" if floor is None else f"{floor} µs"]
        for record in results:
            time = _stage_times(record).get(name)
            times = "no estimate" if floor is None else markdown.NOT_MEASURED
            row += [_us(time), f"{time / floor:.1f}x" if time and floor else times]
        rows.append(row)
    head = ["stage", "floor (estimate, H100)"]
    for record in results:
        head += [record["device"], "times the floor"]
    return markdown.table(head, rows)


def _short(kernel: str) -> str:
    """A name that fits into a table: CUB's are C++ templates of 500 characters."""
    if "RadixSort" in kernel:
        step = "passes" if "Onesweep" in kernel else "the rest"
        return f"CUB's radix sort, {16 if 'unsigned short' in kernel else 32} bits, {step}"
    return f"`{kernel}`"


def profile(results: list[dict]) -> str:
    """Time in each kernel of a forward and backward pass of the first scene."""
    text = ""
    for record in results:
        for case in _cases(record)[:1]:
            sums: dict[str, float] = {}
            for name, time in case["ours"].get("kernels_us", {}).items():
                sums[_short(name)] = sums.get(_short(name), 0.0) + time
            rows = [[name, f"{time:.1f} µs"] for name, time in sums.items()]
            rows.append(["all of these", f"{sum(sums.values()):.0f} µs"])
            text += markdown.table([f"kernel, {record['device']}", "a call"], rows)
    return text


def compiled(record: dict) -> str:
    """Registers, shared memory and spills of every kernel, from the machine code."""
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
    return f"Triton {record['triton']}; registers of a thread.\n\n" + markdown.table(head, rows)


def program(record: dict) -> str:
    """What XLA's compiler makes around the kernels."""
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
    return text + markdown.table(["program", *columns.values()], rows)
