"""Tables that a formula fills in, so that everything runs with no file at all, and controls against real ones.

`theory_table` generates its list of nuclei: those within a few protons of the valley of stability,
Z0(A) = A / (1.98 + 0.0155 A^(2/3)), which is about where nuclei have been measured. `twin` takes a real table's nuclei
and replaces what was measured by what a formula says: a model trained on it can only have learnt the formula (the
theory control of arXiv 2405.17425). Both are exact and the same on every machine; uncertainties are 0.
"""

from dataclasses import replace

import numpy as np

from microtome.data.nuclear.formulas import BW2, Formula
from microtome.data.nuclear.table import NuclearTable, Provenance

__all__ = ["theory_table", "twin"]


def theory_table(
    formula: Formula = BW2, *, max_z: int = 110, max_n: int = 170, min_z: int = 8, min_n: int = 8, width: float = 5.0
) -> NuclearTable:
    """Return the built-in table: a formula's binding energies along the valley of stability.

    Args:
        formula: by default the one with shell terms.
        max_z: most protons.
        max_n: most neutrons.
        min_z: fewest protons.
        min_n: fewest neutrons.
        width: how many protons from the valley at most.

    Raises:
        DataError: no nuclei within the bounds.

    Example:
        >>> len(theory_table())
        2546
    """
    grid = np.meshgrid(np.arange(min_z, max_z + 1), np.arange(min_n, max_n + 1), indexing="ij")
    z, n = (axis.ravel() for axis in grid)
    a = z + n
    near = np.abs(z - a / (1.98 + 0.0155 * a ** (2 / 3))) <= width
    return _filled(z[near], n[near], formula, f"built in, {formula.terms.name}", rows=len(z), left=int((~near).sum()))


def twin(table: NuclearTable, formula: Formula = BW2) -> NuclearTable:
    """Return a table with the same nuclei, its binding energies a formula's; other quantities are left out.

    Args:
        table: which nuclei.
        formula: what they bind with; fit one to the table for its closest twin.

    Example:
        control = twin(table, fit_mass_formula(table).formula)
    """
    source = f"{formula.terms.name} twin of {table.provenance.source}"
    made = _filled(table.z, table.n, formula, source, rows=len(table), left=0)
    return replace(made, measured=table.measured)


def _filled(z: np.ndarray, n: np.ndarray, formula: Formula, source: str, *, rows: int, left: int) -> NuclearTable:
    numbers = ", ".join(f"{name} {c:g}" for name, c in zip(formula.terms.names, formula.coefficients, strict=True))
    provenance = Provenance(
        source=source,
        format="theory",
        sha256="",
        citation=f"No data: the mass formula {formula.terms.name} in MeV ({numbers})",
        rows=rows,
        dropped={"far from the valley of stability": left} if left else {},
    )
    return NuclearTable(z, n, formula.binding(z, n), np.zeros(len(z)), np.ones(len(z), bool), provenance)
