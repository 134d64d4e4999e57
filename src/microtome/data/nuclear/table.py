"""A table of nuclei: total binding energies in MeV with uncertainty, whether measured, and where every number is from.

Everything else about masses is a function of the binding energies (`energies`); what is not - radius, half-life, spin -
lies beside them as `Column`s. A missing number is NaN with its reason. Cutting a table keeps count of what was dropped
and why, so that a report can say what the numbers in it stand for.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Float, Int

from microtome.core.errors import DataError
from microtome.data.nuclear.constants import label

__all__ = ["Column", "NuclearTable", "Provenance"]


@dataclass(frozen=True, eq=False)
class Column:
    """One number per nucleus.

    Attributes:
        values: NaN where missing.
        uncertainty: one standard deviation in the same unit, NaN where not stated.
        reasons: why a value is missing, empty where it is there.
    """

    values: Float[np.ndarray, "nucleus"]
    uncertainty: Float[np.ndarray, "nucleus"]
    reasons: tuple[str, ...]

    def take(self, rows: Int[np.ndarray, "row"]) -> "Column":
        """Return some rows, in the order given."""
        return Column(self.values[rows], self.uncertainty[rows], tuple(self.reasons[i] for i in rows))


@dataclass(frozen=True)
class Provenance:
    """Where a table comes from and what was left out of it.

    Attributes:
        source: path, address, or what made it.
        format: of the file.
        sha256: of the file's bytes; empty where there was none.
        citation: what to cite when the numbers are used.
        rows: in the file.
        dropped: reason -> rows left out.
        notes: what a reader should know, one line each: duplicates, for instance.
    """

    source: str
    format: str
    sha256: str
    citation: str
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NuclearTable:
    """Nuclei with their binding energies, each nucleus once.

    Attributes:
        z: protons.
        n: neutrons.
        binding: total binding energy in MeV.
        uncertainty: its standard deviation in MeV, NaN where not stated.
        measured: False where the mass is extrapolated from neighbours.
        provenance: source, digest, citation, what was dropped.
        observed: other quantities by name: radius, half_life, stability, spin, parity, abundance, isospin.

    Raises:
        DataError: no nuclei, a nucleus twice, or a binding energy that is not finite.
    """

    z: Int[np.ndarray, "nucleus"]
    n: Int[np.ndarray, "nucleus"]
    binding: Float[np.ndarray, "nucleus"]
    uncertainty: Float[np.ndarray, "nucleus"]
    measured: Bool[np.ndarray, "nucleus"]
    provenance: Provenance
    observed: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self):
        source = self.provenance.source
        if not len(self.z):
            counts = "; ".join(f"{n} {reason}" for reason, n in self.provenance.dropped.items() if n)
            raise DataError(
                f"No nucleus of '{source}' is left of {self.provenance.rows} rows ({counts or 'none to begin with'}); "
                "relax the cuts or give another table."
            )
        if not np.isfinite(self.binding).all():
            i = int(np.argmin(np.isfinite(self.binding)))
            raise DataError(f"{self.label(i)} of '{source}' has no finite binding energy; leave the row out.")
        keys, counts = np.unique(np.stack([self.z, self.n]), axis=1, return_counts=True)
        if (counts > 1).any():
            z, n = keys[:, np.argmax(counts)].tolist()
            raise DataError(f"{label(z, n)} stands {counts.max()} times in '{source}'; keep one row a nucleus.")

    def __len__(self) -> int:
        return len(self.z)

    @property
    def a(self) -> Int[np.ndarray, "nucleus"]:
        """Nucleons."""
        return self.z + self.n

    def label(self, row: SupportsIndex) -> str:
        """Return a row's name, `208Pb`."""
        return label(int(self.z[row]), int(self.n[row]))

    @functools.cached_property
    def _grid(self) -> Int[np.ndarray, "protons neutrons"]:
        grid = np.full((self.z.max() + 1, self.n.max() + 1), -1)
        grid[self.z, self.n] = np.arange(len(self))
        return grid

    def rows_of(self, z: Int[np.ndarray, "asked"], n: Int[np.ndarray, "asked"]) -> Int[np.ndarray, "asked"]:
        """Return the rows of nuclei, -1 for those that are not in the table."""
        z, n = np.asarray(z), np.asarray(n)
        there = (z >= 0) & (n >= 0) & (z < self._grid.shape[0]) & (n < self._grid.shape[1])
        return np.where(there, self._grid[np.where(there, z, 0), np.where(there, n, 0)], -1)

    def take(self, rows: Iterable[int] | np.ndarray) -> "NuclearTable":
        """Return some rows, by number or as a mask, in the order given; nothing is noted as dropped."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return replace(
            self,
            z=self.z[rows],
            n=self.n[rows],
            binding=self.binding[rows],
            uncertainty=self.uncertainty[rows],
            measured=self.measured[rows],
            observed={name: column.take(rows) for name, column in self.observed.items()},
        )

    def cut(
        self, *, measured: bool = True, min_z: int = 8, min_n: int = 8, max_uncertainty: float | None = None
    ) -> "NuclearTable":
        """Return the nuclei that a mass model is usually judged on.

        Args:
            measured: leave out extrapolated masses.
            min_z: fewest protons.
            min_n: fewest neutrons.
            max_uncertainty: largest uncertainty of the total binding energy in MeV; rows that state none go too.

        Raises:
            DataError: nothing is left; the message counts what went and why.

        Example:
            heavy = table.cut(min_z=21, min_n=21)
        """
        cuts = {"extrapolated": ~self.measured & measured, f"Z < {min_z} or N < {min_n}": self._light(min_z, min_n)}
        if max_uncertainty is not None:
            cuts[f"uncertainty above {max_uncertainty:g} MeV"] = ~(self.uncertainty <= max_uncertainty)
        keep, dropped = np.ones(len(self), bool), dict(self.provenance.dropped)
        for reason, out in cuts.items():
            if (keep & out).any():
                dropped[reason] = dropped.get(reason, 0) + int((keep & out).sum())
            keep &= ~out
        return replace(self, provenance=replace(self.provenance, dropped=dropped)).take(keep)

    def _light(self, min_z: int, min_n: int) -> Bool[np.ndarray, "nucleus"]:
        return (self.z < min_z) | (self.n < min_n)
