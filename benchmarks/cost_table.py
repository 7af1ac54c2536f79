"""The table of `benchmarks.stage_cost`."""

from benchmarks import markdown

# Stages of the model one after the other.
_SUMS = {
    "a photo": ("encode", "motion code", "fold"),
    "a frame with its driving face": ("motion code", "motion", "decode", "rasterize"),
}
_CLOCKS = {"cpu": "processor time of all threads", "gpu": "elapsed time"}


def _number(value: float) -> str:
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _spread(times: dict[str, float] | None) -> str:
    if times is None:
        return markdown.NOT_MEASURED
    return "{} ({} to {})".format(*(_number(times[key]) for key in ("median", "least", "most")))


def cost(record: dict) -> str:
    """What each stage of the released model takes, from a record of `stage_cost`."""
    stages, timed, rows = record["stages"], record["timed_on"], []
    for name, stage in stages.items():
        counts = [stage[key] for key in ("gflop", "megabytes", "least_megabytes")]
        counts = ["not counted" if count is None else _number(count) for count in counts]
        times = [_spread(stage["milliseconds"].get(where)) for where in _CLOCKS]
        rows.append([name, *counts, *times])
    for name, parts in _SUMS.items():
        sums = [markdown.NOT_MEASURED] * len(_CLOCKS)
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
    return text + "\n" + markdown.table(head, rows)
