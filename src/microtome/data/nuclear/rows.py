"""Rows of any file to a table: one row a nucleus, one unit, or one line that says what is wrong.

Three mistakes are common and silent, so they are looked for: a binding energy per nucleon where the total is meant (or
the other way round), MeV where keV is meant, and a nucleus that stands twice. Nuclei of eight or more nucleons have
2.5 to 9 MeV of binding a nucleon, so the median tells the first two apart. Of a nucleus twice the first row is kept and
a note names both: the widely copied AME2020 sheet has one, `237AC` with the Z and N of radium-212.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Float, Int

from microtome.core.errors import DataError
from microtome.data.nuclear.constants import HYDROGEN_EXCESS, NEUTRON_EXCESS, label
from microtome.data.nuclear.table import Column, NuclearTable, Provenance

__all__ = ["ENERGIES", "Format", "Rows", "table_of"]

ENERGIES = ("mass excess", "total binding energy", "binding energy per nucleon")
"""What the energy of a row may be, in keV."""

_KEV = 1e-3
_TYPICAL = (2500.0, 9000.0)
_POSSIBLE = (500.0, 9500.0)
_AGREE = 2.0


@dataclass(frozen=True, eq=False)
class Rows:
    """What a reader found in a file.

    Attributes:
        source: how messages name the file.
        lines: where each row stands, from 1.
        names: what the file calls each nucleus, empty where it does not.
        z: protons.
        n: neutrons.
        kind: which of `ENERGIES` the energies are.
        energy: keV, NaN where missing.
        uncertainty: of the energy, keV.
        measured: False for extrapolated rows.
        per_nucleon: binding energy per nucleon in keV as the file states it besides the mass excess, to check against.
        observed: other quantities.
    """

    source: str
    lines: list[int]
    names: list[str]
    z: Int[np.ndarray, "row"]
    n: Int[np.ndarray, "row"]
    kind: str
    energy: Float[np.ndarray, "row"]
    uncertainty: Float[np.ndarray, "row"]
    measured: Bool[np.ndarray, "row"]
    per_nucleon: Float[np.ndarray, "row"] | None = None
    observed: Mapping[str, Column] = field(default_factory=dict)

    @property
    def a(self) -> Int[np.ndarray, "row"]:
        """Nucleons."""
        return self.z + self.n

    def where(self, row: SupportsIndex) -> str:
        """Return how a message names a row."""
        return f"Line {self.lines[row]} ({label(int(self.z[row]), int(self.n[row]))}) of '{self.source}'"


@dataclass(frozen=True)
class Format:
    """A kind of file: one more is one more module with a `FORMAT`, named in `files`.

    Attributes:
        name: as the caller may ask for it.
        claims: text -> how much it looks like this format, 0 to 1.
        read: (text, how messages name the file) -> what is in it.
        cite: text -> what to cite.
    """

    name: str
    claims: Callable[[str], float]
    read: Callable[[str, str], Rows]
    cite: Callable[[str], str]


def table_of(rows: Rows, format: str, sha256: str, citation: str, *, source: str = "") -> NuclearTable:
    """Return every nucleus that has an energy, uncut.

    Args:
        rows: what was read.
        format: name of the file's format.
        sha256: of its bytes.
        citation: what to cite.
        source: where the file came from, if not where it lies.

    Raises:
        DataError: no row with an energy, energies in another unit than the column says, or a row whose mass excess and
            binding energy contradict each other.
    """
    first, notes = _first_of_each(rows)
    has_energy = np.isfinite(rows.energy)
    keep = np.flatnonzero(first & has_energy)
    dropped = {"duplicate": int((~first).sum()), "without a binding energy": int((first & ~has_energy).sum())}
    _check_units(rows, keep)
    scale = rows.a if rows.kind == "binding energy per nucleon" else np.ones(len(rows.z))
    provenance = Provenance(
        source or rows.source, format, sha256, citation, len(rows.z), {k: v for k, v in dropped.items() if v}, notes
    )
    return NuclearTable(
        rows.z[keep],
        rows.n[keep],
        _binding(rows)[keep] * _KEV,
        (rows.uncertainty * scale)[keep] * _KEV,
        rows.measured[keep],
        provenance,
        {name: column.take(keep) for name, column in rows.observed.items()},
    )


def _binding(rows: Rows) -> Float[np.ndarray, "row"]:
    """Total binding energy in keV."""
    if rows.kind == "mass excess":
        return (rows.z * HYDROGEN_EXCESS + rows.n * NEUTRON_EXCESS) / _KEV - rows.energy
    return rows.energy * (rows.a if rows.kind == "binding energy per nucleon" else 1)


def _first_of_each(rows: Rows) -> tuple[Bool[np.ndarray, "row"], tuple[str, ...]]:
    seen: dict[tuple[int, int], int] = {}
    first, notes = np.ones(len(rows.z), bool), []
    for row, key in enumerate(zip(rows.z.tolist(), rows.n.tolist(), strict=True)):
        earlier = seen.setdefault(key, row)
        if earlier != row:
            first[row] = False
            called = [f"line {rows.lines[r]}" + f" as '{rows.names[r]}'" * bool(rows.names[r]) for r in (earlier, row)]
            notes.append(f"Z = {key[0]}, N = {key[1]} stands twice ({', '.join(called)}); the first is kept.")
    return first, tuple(notes)


def _check_units(rows: Rows, keep: Int[np.ndarray, "kept"]) -> None:
    keep = keep[rows.a[keep] >= 8]
    if not len(keep):
        return
    if rows.kind == "mass excess":
        _check_mass_excess(rows, keep)
        if rows.per_nucleon is not None:
            keep = keep[np.isfinite(rows.per_nucleon[keep])]
            _check_scale(rows, keep, rows.per_nucleon, "binding energy per nucleon")
            _check_agreement(rows, keep)
    else:
        _check_scale(rows, keep, rows.energy, rows.kind)
    _check_possible(rows, keep)


def _check_mass_excess(rows: Rows, keep: Int[np.ndarray, "kept"]) -> None:
    typical = float(np.median(np.abs(rows.energy[keep])))
    if typical < 300 and len(keep) > 3:
        raise DataError(
            f"The mass excesses of '{rows.source}' are read as keV, found a median size of {typical:.3g}, which "
            "is what they are in MeV; convert the column to keV."
        )


_READINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "binding energy per nucleon in keV": lambda x, a: x,
    "total binding energy in keV": lambda x, a: x / a,
    "binding energy per nucleon in MeV": lambda x, a: x / _KEV,
    "total binding energy in MeV": lambda x, a: x / _KEV / a,
}


def _check_scale(rows: Rows, keep: Int[np.ndarray, "kept"], energy: Float[np.ndarray, "row"], kind: str) -> None:
    """Refuse a column whose median is a binding energy only when read in another unit."""
    if not len(keep):
        return
    medians = {name: float(np.median(read(energy[keep], rows.a[keep]))) for name, read in _READINGS.items()}
    fits = [name for name, median in medians.items() if _TYPICAL[0] < median < _TYPICAL[1]]
    meant = f"{kind} in keV"
    if meant not in fits:
        looks = f"which looks like the {fits[0]}" if fits else "which no nucleus has, in keV or MeV"
        raise DataError(
            f"The energies of '{rows.source}' are read as the {meant}, found a median of "
            f"{np.median(energy[keep]):.4g}, {looks}; name the column for what it is, or convert it."
        )


def _check_agreement(rows: Rows, keep: Int[np.ndarray, "kept"]) -> None:
    stated, computed = rows.per_nucleon[keep], _binding(rows)[keep] / rows.a[keep]
    worst = int(np.argmax(np.abs(stated - computed)))
    if abs(stated[worst] - computed[worst]) > _AGREE:
        raise DataError(
            f"{rows.where(keep[worst])} has {stated[worst]:.1f} keV per nucleon as its binding energy, but its mass "
            f"excess says {computed[worst]:.1f}; mend whichever is wrong, or Z and N."
        )


def _check_possible(rows: Rows, keep: Int[np.ndarray, "kept"]) -> None:
    per_nucleon = _binding(rows)[keep] / rows.a[keep]
    odd = np.flatnonzero((per_nucleon < _POSSIBLE[0]) | (per_nucleon > _POSSIBLE[1]))
    if len(odd):
        raise DataError(
            f"{rows.where(keep[odd[0]])} has a {rows.kind} of {rows.energy[keep[odd[0]]]:.6g} keV, that is "
            f"{per_nucleon[odd[0]]:.4g} keV of binding per nucleon where nuclei have 500 to 9500; mend the row or its "
            "unit."
        )
