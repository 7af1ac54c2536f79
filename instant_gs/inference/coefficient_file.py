"""Expressions as tables of numbers: CSV files of ARKit's blend shapes, a row a frame.

Phones write them (Live Link Face), animation programs do, and programs that make expressions from
speech (Audio2Face). There is no standard; what they share is a column for each blend shape, under
ARKit's name.
"""

import csv
import dataclasses
import itertools
import os
import statistics

import numpy as np

from instant_gs import cli
from instant_gs.data import format as data_format

_LOWEST, _HIGHEST = -1.0, 2.0  # a little beyond [0, 1] is exaggeration; percentages are a mistake
_COLUMNS = {name.lower(): index for index, name in enumerate(data_format.COEFFICIENT_NAMES)}


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Expressions, a row a frame.

    Attributes:
        coefficients: (T, 52) float32, T > 0, order ``data.format.COEFFICIENT_NAMES``, about [0, 1];
            0 where there is no column.
        missing: Names that have no column.
        fps: Rows a second, by a column ``Timecode`` of hours:minutes:seconds:frames: those of most
            whole seconds, the first and last aside; None where there are none.
    """

    coefficients: np.ndarray
    missing: list[str]
    fps: float | None


def load(path: str | os.PathLike) -> Table:
    """Reads a table.

    Args:
        path: A CSV file, UTF-8, commas, names in the first line. A column belongs to a blend shape
            if the last part of its name, after dots, is ARKit's, in any case: ``EyeBlinkLeft``,
            ``blendShapes.eyeBlinkLeft``. Other columns, time codes and head poses say, and empty
            lines are passed over.

    Raises:
        FileNotFoundError: There is no such file.
        cli.UserError: It is no such table, or holds a cell that is no number from -1 to 2; says
            which.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            columns = _columns(path, header)
            table = [(lines.line_num, cells) for cells in lines if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise cli.UserError(f"{path}: not a CSV file in UTF-8; export it as one") from error
    if not table:
        raise cli.UserError(f"{path}: names columns and has no rows; give a row for each frame")
    rows = np.zeros((len(table), len(_COLUMNS)), np.float32)
    rows[:, list(columns)] = [_row(path, *line, columns, len(header)) for line in table]
    missing = [n for i, n in enumerate(data_format.COEFFICIENT_NAMES) if i not in columns]
    titles = [title.strip().lower() for title in header]
    fps = None
    if "timecode" in titles:
        fps = _rate([cells[titles.index("timecode")] for _, cells in table])
    return Table(rows, missing, fps)


def _rate(codes: list[str]) -> float | None:
    seconds = [
        len(list(rows)) for _, rows in itertools.groupby(c.rpartition(":")[0] for c in codes)
    ]
    return float(statistics.mode(seconds[1:-1])) if len(seconds) > 2 else None


def _columns(path, header: list[str]) -> dict[int, int]:
    """Number of a blend shape -> its column."""
    columns = {}
    for column, title in enumerate(header):
        index = _COLUMNS.get(title.split(".")[-1].strip().lower())
        if index in columns:
            raise cli.UserError(
                f"{path}: two columns are {data_format.COEFFICIENT_NAMES[index]}; leave one out"
            )
        if index is not None:
            columns[index] = column
    if not columns:
        raise cli.UserError(
            f"{path}: no column has the name of an ARKit blend shape, such as "
            f"{data_format.COEFFICIENT_NAMES[8]}; the first line must name the columns, with commas"
        )
    return columns


def _row(path, line: int, cells: list[str], columns: dict[int, int], width: int) -> list[float]:
    if len(cells) != width:
        raise cli.UserError(
            f"{path}: line {line} has {len(cells)} cells, the first line {width}; mend it"
        )
    row = []
    for index, column in columns.items():
        try:
            number = float(cells[column])
        except ValueError:
            number = np.nan
        if not _LOWEST <= number <= _HIGHEST:  # nan is neither
            raise cli.UserError(
                f"{path}: line {line}, {data_format.COEFFICIENT_NAMES[index]}: expected a number, "
                f"0 (not at all) to 1 (fully), got {cells[column]!r}; mend it, and divide "
                "percentages by 100"
            )
        row.append(number)
    return row
