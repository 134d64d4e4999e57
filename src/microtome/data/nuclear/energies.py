"""Separation and decay energies, all differences of two binding energies.

    S_n  = B(Z,N) - B(Z,N-1)          Q_a   = B(Z-2,N-2) - B(Z,N) + B(alpha)
    S_p  = B(Z,N) - B(Z-1,N)          Q_b-  = B(Z+1,N-1) - B(Z,N) + (m_n - m_H)
    S_2n = B(Z,N) - B(Z,N-2)          Q_b-n = B(Z+1,N-2) - B(Z,N) + (m_n - m_H)
    S_2p = B(Z,N) - B(Z-2,N)          Q_ec  = B(Z-1,N+1) - B(Z,N) - (m_n - m_H)

So a table of binding energies holds them all, and numbers of one nucleus can tell those of another (`leakage`).
Uncertainties are added in quadrature, as if the two masses were independent; evaluated masses are correlated, and the
evaluation's own errors of differences are mostly smaller.
"""

from dataclasses import dataclass

import numpy as np

from microtome.core.errors import ConfigError, did_you_mean
from microtome.data.nuclear.constants import ALPHA_BINDING, HYDROGEN_EXCESS, NEUTRON_EXCESS
from microtome.data.nuclear.table import Column, NuclearTable

__all__ = ["DIFFERENCES", "Difference", "derive"]

_BETA = NEUTRON_EXCESS - HYDROGEN_EXCESS


@dataclass(frozen=True)
class Difference:
    """B at one place minus B at another, plus a constant; places are steps (protons, neutrons) from the nucleus.

    Attributes:
        plus: where the first binding energy is.
        minus: where the second is; None for none.
        constant: MeV.
    """

    plus: tuple[int, int]
    minus: tuple[int, int] | None
    constant: float = 0.0


DIFFERENCES = {
    "binding": Difference((0, 0), None),
    "sn": Difference((0, 0), (0, -1)),
    "sp": Difference((0, 0), (-1, 0)),
    "s2n": Difference((0, 0), (0, -2)),
    "s2p": Difference((0, 0), (-2, 0)),
    "qa": Difference((-2, -2), (0, 0), ALPHA_BINDING),
    "qbm": Difference((1, -1), (0, 0), _BETA),
    "qbm_n": Difference((1, -2), (0, 0), _BETA),
    "qec": Difference((-1, 1), (0, 0), -_BETA),
}
"""Energies by name, as the evaluation's tables call them."""


def derive(table: NuclearTable, name: str, *, neighbours: NuclearTable | None = None) -> Column:
    """Return one energy of every nucleus, computed from binding energies alone.

    Args:
        table: the nuclei.
        name: a key of `DIFFERENCES`.
        neighbours: where the other nucleus is looked up; the table itself if None. Give the table before its cuts to
            have the energies at its edge too.

    Returns:
        MeV; NaN where the other nucleus is in neither table, and the reason.

    Raises:
        ConfigError: no such energy.

    Example:
        >>> derive(table, "sn").values
    """
    if name not in DIFFERENCES:
        raise ConfigError(
            f"No energy '{name}'; there are {', '.join(DIFFERENCES)}: use one.{did_you_mean(name, DIFFERENCES)}"
        )
    rule = DIFFERENCES[name]
    values, variance = np.full(len(table), rule.constant), np.zeros(len(table))
    reasons = np.full(len(table), "", object)
    for sign, step in ((1.0, rule.plus), (-1.0, rule.minus)):
        if step is None:
            continue
        source = table if step == (0, 0) or neighbours is None else neighbours
        rows = source.rows_of(table.z + step[0], table.n + step[1])
        values += np.where(rows >= 0, sign * source.binding[rows], np.nan)
        variance += source.uncertainty[rows] ** 2
        reasons[rows < 0] = f"no nucleus at Z{step[0]:+d}, N{step[1]:+d} in the table"
    return Column(values, np.where(np.isnan(values), np.nan, np.sqrt(variance)), tuple(reasons))
