"""Expressions as tables of numbers: CSV files of ARKit's blend shapes, a row a frame.

Phones and animation programs write them, and programs that make expressions from speech. There is
no standard; what they share is a column for each blend shape, under ARKit's name.
"""

import csv
import os

import numpy as np

from instant_gs import cli
from instant_gs.data import format as data_format

_LOWEST, _HIGHEST = -1.0, 2.0  # a little beyond [0, 1] is exaggeration; percentages are a mistake
_COLUMNS = {name.lower(): index for index, name in enumerate(data_format.COEFFICIENT_NAMES)}


def load(path: str | os.PathLike) -> tuple[np.ndarray, list[str]]:
    """Reads a table.

    Args:
        path: A CSV file, UTF-8, commas, names in the first line. A column belongs to a blend shape
            if the last part of its name, after dots, is ARKit's, in any case: ``EyeBlinkLeft``,
            ``blendShapes.eyeBlinkLeft``. Other columns, time codes and head poses say, and empty
            lines are passed over. Frames follow one another evenly, whatever time codes say.

    Returns:
        (T, 52) float32, T > 0, order ``data.format.COEFFICIENT_NAMES``, about [0, 1]; 0 where there
        is no column. And the names that have none.

    Raises:
        FileNotFoundError: There is no such file.
        cli.UserError: It is no such table, or holds a cell that is no number from -1 to 2; says
            which.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            columns = _columns(path, header)
            table = [
                _row(path, lines.line_num, cells, columns, len(header)) for cells in lines if cells
            ]
    except UnicodeDecodeError as error:
        raise cli.UserError(f"{path}: not a text in UTF-8; export it as CSV in UTF-8") from error
    except csv.Error as error:
        raise cli.UserError(f"{path}: line {lines.line_num}: no CSV ({error}); mend it") from error
    if not table:
        raise cli.UserError(f"{path}: names columns and has no rows; give a row for each frame")
    rows = np.zeros((len(table), len(_COLUMNS)), np.float32)
    rows[:, list(columns)] = table
    return rows, [n for i, n in enumerate(data_format.COEFFICIENT_NAMES) if i not in columns]


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
            f"{path}: the first line, {','.join(header)[:40]!r}, names none of ARKit's blend "
            f"shapes, such as {data_format.COEFFICIENT_NAMES[8]}; name the columns there, with "
            "commas between them"
        )
    return columns


def _row(path, line: int, cells: list[str], columns: dict[int, int], width: int) -> list[float]:
    if len(cells) != width:
        raise cli.UserError(
            f"{path}: line {line} has {len(cells)} cells, the first line {width}; fill it in, or "
            "delete the line"
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
                f"0 (not at all) to 1 (fully), got {cells[column]!r}; fill it in, with a "
                "decimal point, and divide percentages by 100"
            )
        row.append(number)
    return row
