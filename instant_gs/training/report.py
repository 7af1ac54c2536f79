"""A run's page: `report.html` in its folder, self-contained, made from the files that lie there."""

import base64
import json
import math
import pathlib
import re

import jinja2

from instant_gs import output
from instant_gs.config import Config
from instant_gs.training import provenance, sample_grid

FILE_NAME = "report.html"
_POINTS = 300  # of a curve; more are averaged in groups
_WIDTH, _HEIGHT = 300, 120  # of a chart, in its own units
_PICTURES = 3  # newest sample grids shown


def write(workdir: str | pathlib.Path, config: Config) -> pathlib.Path:
    """Makes the page anew; it appears whole or not at all.

    Args:
        workdir: The run's folder, with ``metrics.jsonl``.
        config: Of the run.

    Returns:
        Path of the page.
    """
    workdir = pathlib.Path(workdir)
    curves = read_curves(workdir / "metrics.jsonl")
    pictures = sorted((workdir / "samples").glob("*.png"), key=_step_of)[-_PICTURES:]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instant_gs.training", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(FILE_NAME).render(
        name=config.name,
        steps=max((points[-1][0] for points in curves.values()), default=0),
        total=config.motion_pretrain.steps + config.train.steps,
        groups=_groups(curves),
        width=_WIDTH,
        height=_HEIGHT,
        pictures=[(path.stem, _data_uri(path)) for path in reversed(pictures)],
        columns=sample_grid.COLUMNS,
        provenance=provenance.read(workdir),
        config=config.to_json(),
    )
    path = workdir / FILE_NAME
    with output.replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def read_curves(path: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """Metrics by name as (step, value), steps increasing; of one logged twice, the last value.

    Damaged lines, which a crash of the machine may leave, are passed over.
    """
    lines = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            lines.setdefault(line.pop("step"), {}).update(line)
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
    curves = {}
    for step in sorted(lines):
        for name, value in lines[step].items():
            curves.setdefault(name, []).append((step, value))
    return curves


def _groups(curves):
    """Charts of the page by what comes before the slash: speed first, then the newest phase."""
    groups = {}
    for name, points in curves.items():
        group, _, title = name.partition("/")
        groups.setdefault(group, []).append(_chart(title, points))
    order = sorted(groups, key=lambda group: (group != "speed", -groups[group][0]["last_step"]))
    return {group: groups[group] for group in order}


def _chart(title, points):
    """What the template needs to draw one curve."""
    points = _thinned([point for point in points if math.isfinite(point[1])]) or [(0, 0.0)]
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    span, length = (high - low) or 1.0, (steps[-1] - steps[0]) or 1
    line = " ".join(
        f"{_WIDTH * (step - steps[0]) / length:.1f},{_HEIGHT * (high - value) / span:.1f}"
        for step, value in points
    )
    return {
        "title": title,
        "line": line,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "last": f"{values[-1]:.4g}",
        "first_step": steps[0],
        "last_step": steps[-1],
    }


def _thinned(points):
    """At most ``_POINTS`` points: means of neighbours."""
    size = -(-len(points) // _POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _step_of(path: pathlib.Path) -> int:
    return int(re.search(r"(\d+)$", path.stem)[1])


def _data_uri(path: pathlib.Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
