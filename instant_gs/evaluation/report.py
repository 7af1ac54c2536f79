"""Writes an evaluation: `report.json` for programs, `report.html` for people, in one folder."""

import base64
import json
import os
from pathlib import Path

import jinja2

from instant_gs import output
from instant_gs.evaluation import evaluator, picture

#: Scores as the report lists them: name -> (title, unit or format, which way is better).
SCORES = {
    "psnr": ("PSNR, dB", "{:.2f}", "higher"),
    "ssim": ("SSIM", "{:.4f}", "higher"),
    "lpips": ("LPIPS (AlexNet)", "{:.4f}", "lower"),
    "lpips_vgg": ("LPIPS (VGG16)", "{:.4f}", "lower"),
    "l1": ("L1, whole image", "{:.4f}", "lower"),
    "error_eyes": ("L1 over the eyes", "{:.4f}", "lower"),
    "error_mouth": ("L1 over the mouth", "{:.4f}", "lower"),
    "error_eyes_mouth": ("L1 over eyes and mouth", "{:.4f}", "lower"),
    "expression_error": ("expression error (reliable blend shapes)", "{:.4f}", "lower"),
    "landmark_error": ("landmark error (lips and eyes, pupils 1 apart)", "{:.4f}", "lower"),
    "face_found": ("face found", "{:.3f}", "higher"),
    "identity_distance": ("identity distance to the truth, else source (dlib)", "{:.3f}", "lower"),
    "identity_kept": ("nearer to the source's identity than to the driver's", "{:.3f}", "higher"),
}


def write(out: str | os.PathLike, evaluation: evaluator.Evaluation, *, overwrite: bool) -> Path:
    """Writes both files, which appear when both are whole.

    Args:
        out: Folder.
        evaluation: From ``evaluator.evaluate``.
        overwrite: Whether an earlier report in that folder may be replaced.

    Returns:
        Path of the HTML file.

    Raises:
        ValueError, cli.UserError: As ``check_out``.
    """
    out = Path(out)
    check_out(out, overwrite=overwrite)
    page = render(evaluation)
    text = json.dumps(evaluation.result, indent=1, allow_nan=False)
    with (
        output.whole_file(out / "report.json", overwrite=overwrite) as numbers,
        output.whole_file(out / "report.html", overwrite=overwrite) as shown,
    ):
        numbers.write_text(text + "\n", encoding="utf-8")
        shown.write_text(page, encoding="utf-8")
    return out / "report.html"


def check_out(out: str | os.PathLike, *, overwrite: bool) -> None:
    """Refuses a folder that holds something or cannot be written, before hours of work.

    Raises:
        ValueError, cli.UserError: Says what is in the way and which flag helps.
    """
    out = Path(out)
    output.check_parents(out / "report.html", option="--out")
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if held - {"report.json", "report.html"}:
        raise ValueError(f"--out: {out} holds other files; give a folder that does not exist yet")
    if held and not overwrite:
        raise ValueError(f"--out: {out} holds a report already; choose another or add --overwrite")


def render(evaluation: evaluator.Evaluation) -> str:
    """The report as one self-contained HTML page."""
    loader = jinja2.PackageLoader("instant_gs.evaluation", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["picture"] = _data_uri
    environment.filters["caption"] = _caption
    return environment.get_template("report.html").render(
        result=evaluation.result,
        tables={name: table(part) for name, part in evaluation.result["protocols"].items()},
        titles={name: title for name, (title, _, _) in SCORES.items()},
        shown=evaluation.shown,
        worst=evaluation.worst,
        strips=evaluation.strips,
        columns=picture.COLUMNS,
        yaws=picture.STRIP_YAWS_DEGREES,
    )


def table(part: dict) -> list[tuple[str, str, str, str, int]]:
    """Rows of a protocol's table: title, better, with motion, without motion, cases."""
    rows = []
    for name, (title, pattern, better) in SCORES.items():
        moved, rest = (part["scores"][variant].get(name) for variant in ("moved", "rest"))
        if moved is None or moved["mean"] is None:
            continue
        values = [_format(pattern, value) for value in (moved, rest)]
        rows.append((title, better, *values, moved["count"]))
    return rows


def text_summary(result: dict) -> str:
    """The figures in a few lines for the terminal."""
    lines = []
    for name, part in result["protocols"].items():
        lines.append(
            f"{name}-reenactment, {part['count']} cases ({part['distinct']} distinct, of "
            f"{part['people']} people): with motion (without)"
        )
        for title, _, moved, rest, count in table(part):
            lines.append(f"  {title:<50} {moved:>16} ({rest}) over {count}")
        for score, ratio in part["ratios"].items():
            lines.append(f"  ratio {SCORES[score][0]:<44} {ratio['ratio']:>16.3f}")
        if part["failure_rate"] is not None:
            lines.append(f"  {'failure rate (no face found)':<50} {part['failure_rate']:>16.3f}")
    for stage, timed in (result["speed"] or {}).items():
        if isinstance(timed, dict):
            lines.append(f"{stage:<12} {timed['ms']:9.2f} ms {timed['fps']:9.1f} FPS")
    return "\n".join(lines)


def _format(pattern: str, value: dict | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    text = pattern.format(value["mean"])
    return text if value["stderr"] is None else f"{text} ± {pattern.format(value['stderr'])}"


def _data_uri(image) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png(image)).decode()


def _caption(scores: dict) -> str:
    kept = ("psnr", "lpips", "error_eyes", "error_mouth", "expression_error", "identity_distance")
    parts = [
        f"{SCORES[name][0]}: {SCORES[name][1].format(scores[name])}"
        for name in kept
        if scores.get(name) is not None and scores[name] == scores[name]
    ]
    if scores.get("face_found") == 0:
        parts.insert(0, "no face found in the result")
    return "; ".join(parts)
