"""Text of a table to numbers, with the line and the nucleus named in every complaint.

A `Sheet` is a CSV as read: comments (`# key: value`, before the header), a header in small letters, cells. A cell is
missing where it is empty or NULL; everything else must be the number that its column is said to hold.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from microtome.core.errors import DataError, did_you_mean
from microtome.data.nuclear.constants import label

__all__ = ["MISSING", "Sheet", "header_of", "read_sheet"]

MISSING = ("", "NULL")
"""Cells that say there is no number, blanks stripped."""


@dataclass(frozen=True)
class Sheet:
    """A CSV as read.

    Attributes:
        source: how messages name it.
        comments: what stood before the header, by key.
        columns: names, stripped and in small letters.
        cells: rows of text, stripped.
        lines: where each row stands in the file, from 1.
        z: protons.
        n: neutrons.
    """

    source: str
    comments: Mapping[str, str]
    columns: tuple[str, ...]
    cells: list[list[str]]
    lines: list[int]
    z: Int[np.ndarray, "row"]
    n: Int[np.ndarray, "row"]

    def where(self, row: int) -> str:
        """Return how a message names a row."""
        return f"Line {self.lines[row]} ({label(int(self.z[row]), int(self.n[row]))}) of '{self.source}'"

    def texts(self, column: str) -> list[str]:
        """Return a column's cells, NULL as empty.

        Raises:
            DataError: no such column; the message names the nearest.
        """
        place = _place(column, self.columns, self.source)
        return ["" if row[place] in MISSING else row[place] for row in self.cells]

    def numbers(self, column: str, unit: str) -> Float[np.ndarray, "row"]:
        """Return a column's numbers, NaN where missing.

        Args:
            column: its name.
            unit: what the numbers are in, for messages.

        Raises:
            DataError: no such column, or a cell that is no finite number.
        """
        return np.array(
            [self._number(cell, row, column, unit) for row, cell in enumerate(self.texts(column))], np.float64
        )

    def _number(self, cell: str, row: int, column: str, unit: str) -> float:
        if not cell:
            return np.nan
        value = _parsed(float, cell)
        if value is None or not np.isfinite(value):
            raise DataError(
                f"{self.where(row)} has '{cell[:40]}' for {column}; give a number ({unit}) or leave it empty."
            )
        return value


def header_of(text: str) -> tuple[str, ...]:
    """Return the names in the first line that is no comment, stripped and in small letters."""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return tuple(name.strip().casefold() for name in next(csv.reader([first]), []))


def read_sheet(text: str, source: str) -> Sheet:
    """Return a CSV's rows, with the columns `z` and `n` read.

    Raises:
        DataError: no column z or n, a column twice, a row of another width, a cell of these two that is no whole number
            from 0 up, or quotes that do not close.
    """
    comments, body, skipped = _comments(text)
    reader, cells, lines = csv.reader(io.StringIO(body, newline=""), strict=True), [], []
    try:
        header = tuple(name.strip().casefold() for name in next(reader, []))
        for row in reader:
            if row:
                cells.append([cell.strip() for cell in row])
                lines.append(reader.line_num + skipped)
    except csv.Error as error:
        raise DataError(f"'{source}' is not CSV at line {reader.line_num + skipped} ({error}); mend it.") from error
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"'{source}' has the column '{twice[0]}' {header.count(twice[0])} times; keep one.")
    for row, line in zip(cells, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"Line {line} of '{source}' has {len(row)} cells where the header has {len(header)}; the file is cut "
                "short or damaged: fetch it again or mend the line."
            )
    z, n = (_counts(name, header, cells, lines, source) for name in ("z", "n"))
    return Sheet(source, comments, header, cells, lines, z, n)


def _comments(text: str) -> tuple[dict[str, str], str, int]:
    comments, lines = {}, text.splitlines(keepends=True)
    skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    for line in lines[:skipped]:
        key, _, value = line.lstrip("# ").partition(":")
        comments[key.strip().casefold()] = value.strip()
    return comments, "".join(lines[skipped:]), skipped


def _place(column: str, columns: tuple[str, ...], source: str) -> int:
    if column not in columns:
        raise DataError(
            f"No column '{column}' in '{source}', which has {', '.join(columns[:12])}{', ...' * (len(columns) > 12)}; "
            f"rename or add it.{did_you_mean(column, columns)}"
        )
    return columns.index(column)


def _counts(
    name: str, header: tuple[str, ...], cells: list[list[str]], lines: list[int], source: str
) -> Int[np.ndarray, "row"]:
    place, counts = _place(name, header, source), []
    for row, line in zip(cells, lines, strict=True):
        count = _parsed(int, row[place])
        if count is None or not 0 <= count < 1000:
            raise DataError(
                f"Line {line} of '{source}' has '{row[place][:40]}' for {name}; give a whole number of nucleons."
            )
        counts.append(count)
    return np.array(counts, np.int64)


def _parsed(kind: type[int] | type[float], cell: str) -> int | float | None:
    try:
        return kind(cell)
    except ValueError:
        return None
