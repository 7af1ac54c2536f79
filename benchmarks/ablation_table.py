"""The table of `benchmarks.ablation`."""

import json


def markdown(rows: list[dict], facts: dict) -> str:
    """A Markdown table of the rows, and under it how it was measured."""
    heads = ("variant", "PSNR", "LPIPS", "eyes and mouth", "against no motion", "s to train")
    keys = ("psnr", "lpips", "error_eyes_mouth", "against_no_motion", "train_seconds")
    digits = (2, 3, 4, 3, 0)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [
            "not measured" if row[key] is None else f"{row[key]:.{count}f}"
            for key, count in zip(keys, digits, strict=True)
        ]
        lines.append(f"| {row['variant']} | " + " | ".join(cells) + " |")
    steps, cases = ({row[key] for row in rows} for key in ("steps", "cases"))
    lines.append(
        f'\nCross-reenactment of {_values(cases)} cases after {_values(steps)} steps; "against no'
        f' motion" is the error at eyes and mouth, divided by that of the same avatar at rest.'
        f" {facts['device']}, commit {facts['commit']}: {json.dumps(facts['command'])}\n"
    )
    return "\n".join(lines)


def _values(values: set) -> str:
    return ", ".join(str(value) for value in sorted(values))
