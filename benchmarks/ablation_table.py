"""The table of `benchmarks.ablation`."""

import json


def markdown(rows: list[dict], facts: dict) -> str:
    """A Markdown table of the rows, and under it how it was measured."""
    columns = {
        "PSNR": ("psnr", 2),
        "LPIPS": ("lpips", 3),
        "eyes and mouth": ("error_eyes_mouth", 4),
        "against no motion": ("against_no_motion", 3),
        "cases improved": ("share_improved", 2),
        "CPU s": ("cpu_seconds", 0),
    }
    heads = ("variant", *columns)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [
            "not measured" if row[key] is None else f"{row[key]:.{count}f}"
            for key, count in columns.values()
        ]
        lines.append(f"| {row['variant']} | " + " | ".join(cells) + " |")
    steps, cases, seeds = ({row[key] for row in rows} for key in ("steps", "cases", "seed"))
    lines.append(
        f"\nCross-reenactment of {_values(cases)} cases after {_values(steps)} steps, seed"
        f' {_values(seeds)}; "against no motion" is the error at eyes and mouth, divided by that of'
        f' the same avatar at rest; "cases improved" is the share in which it is smaller.'
        f" {facts['device']}, commit {facts['commit']}: {json.dumps(facts['command'])}\n"
    )
    return "\n".join(lines)


def _values(values: set) -> str:
    return ", ".join(str(value) for value in sorted(values))
