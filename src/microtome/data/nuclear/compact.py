"""The compact table: few columns, named with their units, and the citation in the file.

    # citation: who to cite
    z,n,binding_kev,uncertainty_kev,measured,radius_fm,radius_uncertainty_fm
    26,30,492259.953,0.268,1,3.7377,0.0016

`z`, `n` and one energy are needed: `binding_kev` (the total), `binding_per_nucleon_kev` or `mass_excess_kev`. The rest
may be left out: `uncertainty_kev` (of that energy), `measured` (1, or 0 for extrapolated; 1 if absent), `radius_fm`,
`radius_uncertainty_fm`, `half_life_s`, `spin_parity`. Any other column is an error, so a mistyped one is not ignored.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from microtome.core.errors import DataError, did_you_mean
from microtome.core.files import write_atomic
from microtome.data.nuclear.rows import ENERGIES, Format, Rows
from microtome.data.nuclear.sheets import Sheet, header_of, read_sheet
from microtome.data.nuclear.spins import parse_spin_parity
from microtome.data.nuclear.table import Column, NuclearTable

__all__ = ["COLUMNS", "COMPACT", "write_compact"]

_ENERGY = dict(zip(("mass_excess_kev", "binding_kev", "binding_per_nucleon_kev"), ENERGIES, strict=True))
_OPTIONAL = ("uncertainty_kev", "measured", "radius_fm", "radius_uncertainty_fm", "half_life_s", "spin_parity")

COLUMNS = ("z", "n", *_ENERGY, *_OPTIONAL)
"""Every column the format knows."""


def write_compact(table: NuclearTable, path: Path | str) -> None:
    """Write a table's binding energies, and radii where it has them, as a compact file.

    Args:
        table: the nuclei.
        path: of the file, replaced in one step.

    Example:
        write_compact(read_table("mass_1.mas20"), "masses.csv")
    """
    text = io.StringIO(newline="")
    text.write(f"# citation: {table.provenance.citation}\n# source: {table.provenance.source}\n")
    writer = csv.writer(text, lineterminator="\n")
    radius = table.observed.get("radius")
    writer.writerow([*("z", "n", "binding_kev", *_OPTIONAL[:2]), *(_OPTIONAL[2:4] if radius else ())])
    for row in range(len(table)):
        extra = (radius.values[row], radius.uncertainty[row]) if radius else ()
        energy = (table.binding[row] * 1e3, table.uncertainty[row] * 1e3)
        numbers = [_written(energy[0]), _written(energy[1]), int(table.measured[row]), *map(_written, extra)]
        writer.writerow([table.z[row], table.n[row], *numbers])
    write_atomic(Path(path), text.getvalue().encode())


def _written(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}" if abs(value) < 1 else f"{value:.7f}"


def _read(text: str, source: str) -> Rows:
    sheet = read_sheet(text, source)
    unknown = [name for name in sheet.columns if name not in COLUMNS]
    if unknown:
        raise DataError(
            f"'{source}' has the column '{unknown[0]}', which a compact table does not; its columns are "
            f"{', '.join(COLUMNS)}.{did_you_mean(unknown[0], COLUMNS)}"
        )
    energies = [name for name in _ENERGY if name in sheet.columns]
    if len(energies) != 1:
        raise DataError(
            f"'{source}' has {' and '.join(energies) or 'no energy'}; a compact table has exactly one of "
            f"{', '.join(_ENERGY)}."
        )
    return Rows(
        source=source,
        lines=sheet.lines,
        names=[""] * len(sheet.cells),
        z=sheet.z,
        n=sheet.n,
        kind=_ENERGY[energies[0]],
        energy=sheet.numbers(energies[0], "keV"),
        uncertainty=_or_missing(sheet, "uncertainty_kev", "keV"),
        measured=_measured(sheet),
        observed=_observed(sheet),
    )


def _or_missing(sheet: Sheet, column: str, unit: str) -> np.ndarray:
    return sheet.numbers(column, unit) if column in sheet.columns else np.full(len(sheet.cells), np.nan)


def _measured(sheet: Sheet) -> Bool[np.ndarray, "row"]:
    marks = sheet.texts("measured") if "measured" in sheet.columns else ["1"] * len(sheet.cells)
    for row, mark in enumerate(marks):
        if mark not in ("0", "1"):
            raise DataError(f"{sheet.where(row)} has '{mark[:40]}' for measured; give 1, or 0 for extrapolated.")
    return np.array([mark == "1" for mark in marks], bool)


def _observed(sheet: Sheet) -> dict[str, Column]:
    absent, found = tuple("" for _ in sheet.cells), {}
    if "radius_fm" in sheet.columns:
        values = sheet.numbers("radius_fm", "fm")
        found["radius"] = _column(values, _or_missing(sheet, "radius_uncertainty_fm", "fm"), lambda _: "no radius")
    if "half_life_s" in sheet.columns:
        seconds = sheet.numbers("half_life_s", "s")
        values = np.log10(np.where(seconds > 0, seconds, np.nan))
        found["half_life"] = _column(values, np.full(len(absent), np.nan), lambda _: "no half-life in seconds")
    if "spin_parity" in sheet.columns:
        states = [parse_spin_parity(text) for text in sheet.texts("spin_parity")]
        for name in ("spin", "parity"):
            stated = (getattr(state, name) for state in states)
            values = np.array([np.nan if v is None else v for v in stated], np.float64)
            found[name] = _column(values, np.full(len(absent), np.nan), lambda row: states[row].reason)
    return found


def _column(values: np.ndarray, uncertainty: np.ndarray, absent: Callable[[int], str]) -> Column:
    return Column(values, uncertainty, tuple(absent(i) if np.isnan(v) else "" for i, v in enumerate(values)))


def _claims(text: str) -> float:
    header = header_of(text)
    return sum(name in COLUMNS for name in header) / len(header) if {"z", "n"} & set(header) else 0.0


def _cite(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("#"))
    named = [line.partition(":")[2].strip() for line in lines if line.lstrip("# ").casefold().startswith("citation:")]
    return named[0] if named else "none stated in the file"


COMPACT = Format("compact", _claims, _read, _cite)
"""This project's own schema."""
