"""Multiplicity: p-values of many units, corrected for there being many.

    Benjamini-Hochberg   expected share of false ones among those flagged (independent or positively dependent tests)
    Bonferroni           chance of any false one; no assumption
    family-wise maxima   the same from the permutation null of the largest statistic: exact under any dependence
                         (Westfall & Young 1993, single step)

Each returns adjusted p-values: a unit is flagged where its own is <= alpha. `expected_maximum` says how far the best of
many null units strays, in standard errors.
"""

from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers

__all__ = ["benjamini_hochberg", "bonferroni", "expected_maximum", "family_wise"]


def benjamini_hochberg(p: Any) -> np.ndarray:
    """Return Benjamini-Hochberg adjusted p-values over all entries, in the shape given.

    Args:
        p: p-values of any shape.

    Raises:
        MeasureError: a p-value is missing or outside [0, 1].

    Source: Benjamini & Hochberg 1995, by `scipy.stats.false_discovery_control`.
    """
    from scipy.stats import false_discovery_control

    p = _probabilities(p)
    return false_discovery_control(p.ravel(), method="bh").reshape(p.shape)


def bonferroni(p: Any) -> np.ndarray:
    """Return p-values multiplied by their number, at most 1.

    Args:
        p: p-values of any shape.

    Raises:
        MeasureError: a p-value is missing or outside [0, 1].
    """
    p = _probabilities(p)
    return np.minimum(1.0, p * p.size)


def expected_maximum(m: int, *, sides: int = 2) -> float:
    """Return the mean of the largest of m independent standard normal values (sides=2: of their sizes).

    Args:
        m: how many.
        sides: 2 for |z|, 1 for z.

    Raises:
        MeasureError: none, or sides other than 1 and 2.
    """
    from scipy.integrate import trapezoid
    from scipy.special import ndtr

    if m < 1 or sides not in (1, 2):
        raise MeasureError(f"The largest of {m} values on {sides} sides is undefined; give m >= 1 and 1 or 2 sides.")
    z = np.linspace(0, 9, 18_001)
    upper = 1 - (1 - sides * ndtr(-z)) ** m  # chance that the largest exceeds z; its integral is the mean above 0
    lower = ndtr(-z) ** m if sides == 1 else np.zeros_like(z)
    return float(trapezoid(upper - lower, z))


def family_wise(statistic: Any, maxima: Any) -> np.ndarray:
    """Return the chance that the largest |statistic| of a null draw reaches each unit's.

    Args:
        statistic: one comparable statistic per unit, [units].
        maxima: the largest |statistic| over the same units in each permutation, [draws].

    Raises:
        MeasureError: no draws, or missing values.
    """
    statistic = np.abs(numbers(statistic, "Statistics", ndim=1))
    maxima = np.sort(numbers(maxima, "Null maxima", ndim=1))
    reached = len(maxima) - np.searchsorted(maxima, statistic - 1e-10 * np.maximum(1, statistic), side="left")
    return (1 + reached) / (1 + len(maxima))


def _probabilities(p: Any) -> np.ndarray:
    array = numbers(p, "P-values")
    if array.min() < 0 or array.max() > 1:
        raise MeasureError(f"P-values run from {array.min():.3g} to {array.max():.3g}; they must lie in [0, 1].")
    return array
