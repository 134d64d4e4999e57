"""The mass files of the Atomic Mass Data Center (`mass_1.mas20` and its elders): one nucleus a line, columns by place.

The header states the layout as a Fortran format, `a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6,...`, which is what the places
are computed from, so that the evaluations of 2003 to 2020, whose widths differ, are read alike. The fields are, in
order: control, N - Z, N, Z, A, symbol, origin, mass excess, its uncertainty, binding energy per nucleon, its
uncertainty; the rest is not read. `#` in place of the decimal point marks an extrapolated number, `*` one that could
not be computed; a line that ends before them has been cut short.
"""

import re

import numpy as np

from microtome.core.errors import DataError
from microtome.data.nuclear.iaea import AME2020
from microtome.data.nuclear.rows import Format, Rows

__all__ = ["FIXED_WIDTH", "LAYOUT_2020", "places"]

LAYOUT_2020 = "a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6,f13.5,1x,f10.5,1x,a2,f13.5,f11.5,1x,i3,1x,f13.6,f12.6"
"""The layout of `mass_1.mas20`, taken where a file states none."""

_STATED = re.compile(r"format\s*:\s*(a1,\s*i3,[0-9aifx.,\s]+?)\s*$", re.MULTILINE | re.IGNORECASE)
_PIECE = re.compile(r"(\d*)x|[aif](\d+)(?:\.\d+)?", re.IGNORECASE)
_FIELDS = ("control", "excess neutrons", "n", "z", "a", "symbol", "origin", "mass excess", "uncertainty", "binding")


def places(layout: str) -> tuple[slice, ...]:
    """Return where the fields of a Fortran format stand in a line; blanks (`1x`) are no fields.

    Example:
        >>> places("a1,i3,1x,f5.2")
        (slice(0, 1, None), slice(1, 4, None), slice(5, 10, None))
    """
    found, at = [], 0
    for piece in layout.split(","):
        match = _PIECE.fullmatch(piece.strip())
        if match is None:
            raise DataError(f"The format '{layout}' has the piece '{piece}'; pieces are ax, ix, fx.y and x: mend it.")
        width = int(match[2]) if match[2] else int(match[1] or 1)
        if match[2]:
            found.append(slice(at, at + width))
        at += width
    return tuple(found)


def _read(text: str, source: str) -> Rows:
    where = _layout(text)
    rows = [(number, _fields(line, where)) for number, line in enumerate(text.splitlines(), start=1)]
    first = next((i for i, (_, fields) in enumerate(rows) if _nucleus(fields)), None)
    if first is None:
        raise DataError(f"'{source}' has no line of a mass table (N, Z and A in their places); give another file.")
    body = [(number, fields) for number, fields in rows[first:] if any(fields.values())]
    for number, fields in body:
        if _nucleus(fields) is None:
            raise DataError(
                f"Line {number} of '{source}' is no line of a mass table: N '{fields['n']}', Z '{fields['z']}', A "
                f"'{fields['a']}'; the file is cut short or damaged, fetch it again."
            )
    counts = np.array([_nucleus(fields) for _, fields in body], np.int64)
    columns = {
        name: np.array([_value(fields[name], number, name, source) for number, fields in body])
        for name in ("mass excess", "uncertainty", "binding")
    }
    return Rows(
        source=source,
        lines=[number for number, _ in body],
        names=[fields["a"] + fields["symbol"] for _, fields in body],
        z=counts[:, 0],
        n=counts[:, 1],
        kind="mass excess",
        energy=columns["mass excess"],
        uncertainty=columns["uncertainty"],
        measured=np.array(["#" not in fields["mass excess"] for _, fields in body]),
        per_nucleon=columns["binding"],
    )


def _layout(text: str) -> tuple[slice, ...]:
    stated = _STATED.search(text[:10_000])
    return places(stated[1] if stated else LAYOUT_2020)


def _fields(line: str, where: tuple[slice, ...]) -> dict[str, str]:
    return {name: line[place].strip() for name, place in zip(_FIELDS, where, strict=False)}


def _nucleus(fields: dict[str, str]) -> tuple[int, int] | None:
    """Z and N where a line is one of the table's: whole numbers that sum to A."""
    try:
        z, n, a = (int(fields[name]) for name in ("z", "n", "a"))
    except ValueError:
        return None
    return (z, n) if z + n == a else None


def _value(cell: str, line: int, name: str, source: str) -> float:
    if cell == "*":
        return np.nan
    try:
        return float(cell.replace("#", "."))
    except ValueError as error:
        raise DataError(
            f"Line {line} of '{source}' has '{cell}' for the {name}; give a number (keV), '#' for its point where "
            "it is extrapolated, or '*'."
        ) from error


def _claims(text: str) -> float:
    """A stated layout, or a line in the layout of 2020."""
    if _STATED.search(text[:10_000]):
        return 1.0
    where = places(LAYOUT_2020)
    return float(any(_nucleus(_fields(line, where)) for line in text.splitlines()[:60]))


def _cite(text: str) -> str:
    if places(LAYOUT_2020) == _layout(text):
        return AME2020
    return "the atomic mass evaluation that the file's header names"


FIXED_WIDTH = Format("amdc", _claims, _read, _cite)
"""Fixed-width mass files."""
