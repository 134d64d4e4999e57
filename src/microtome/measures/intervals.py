"""Intervals: an estimate with its bounds and its n, so that no number travels alone.

Wilson's score interval for a proportion (Wilson 1927; better than Wald's near 0 and 1), percentile intervals from
draws, and normalised recovery, the ratio whose small denominators must be counted rather than hidden.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers

__all__ = ["Interval", "Recovery", "percentile_interval", "recovery", "two_sided", "wilson"]


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval.

    Args:
        estimate: the number.
        low: lower bound.
        high: upper bound.
        n: what was counted (items, or clusters where resampling was clustered).
        level: confidence level.
    """

    estimate: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def two_sided(level: float) -> float:
    """Return the normal quantile z of a two-sided interval.

    Raises:
        MeasureError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise MeasureError(f"Level {level} is not a confidence level; give a number between 0 and 1, such as 0.95.")
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(successes: float, n: int, *, level: float = 0.95) -> Interval:
    """Return a proportion with Wilson's score interval.

    Args:
        successes: how many of the n succeeded (shared credit for ties may make it fractional).
        n: number of independent trials.
        level: confidence level.

    Raises:
        MeasureError: n is not positive or the successes are not between 0 and n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise MeasureError(f"A proportion of {successes} in {n} is undefined; give 0 <= successes <= n and n >= 1.")
    z, p = two_sided(level), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(p, low, high, n, level)


def percentile_interval(estimate: float, draws: np.ndarray, n: int, *, level: float = 0.95) -> Interval:
    """Return an estimate with the percentile interval of its bootstrap draws (Efron 1979; linear interpolation).

    Args:
        estimate: the statistic on the data themselves.
        draws: the statistic on each resample.
        n: number of clusters that were resampled.
        level: confidence level.

    Raises:
        MeasureError: a draw is NaN or the level is not between 0 and 1.
    """
    two_sided(level)
    low, high = np.quantile(numbers(draws, "Bootstrap draws", ndim=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), n, level)


@dataclass(frozen=True, eq=False)
class Recovery:
    """Normalised recovery (m - m_corrupt) / (m_clean - m_corrupt), aggregated in both usual ways.

    Args:
        ratio_of_means: mean numerator over mean denominator, all items, [...].
        mean_of_ratios: mean of the items' own ratios where the denominator is large enough, [...].
        ratios: those items' ratios, [..., kept].
        kept: indices of those items.
        small: how many items were left out of the mean of ratios because their denominator was small.
    """

    ratio_of_means: np.ndarray
    mean_of_ratios: np.ndarray
    ratios: np.ndarray
    kept: np.ndarray
    small: int


def recovery(values: Any, corrupt: Any, clean: Any, *, guard: float = 1e-3) -> Recovery:
    """Return how much of the clean metric each patch brings back: 0 at the corrupt run, 1 at the clean one.

    Args:
        values: the metric under each patch, [..., items].
        corrupt: the metric of the corrupt run, [items].
        clean: the metric of the clean run, [items].
        guard: an item whose |clean - corrupt| is not above this share of the largest one has no ratio of its own.

    Raises:
        MeasureError: shapes that do not fit, missing values, or clean and corrupt runs equal on (the mean of) items.
    """
    clean = numbers(clean, "Clean metric", ndim=1)
    corrupt = numbers(corrupt, "Corrupt metric", ndim=1, length=len(clean))
    values = numbers(values, "Patched metric")
    if values.ndim == 0 or values.shape[-1] != len(clean):
        raise MeasureError(
            f"Patched metric has shape {list(values.shape)}; its last axis must hold {len(clean)} items."
        )
    gap = clean - corrupt
    keep = np.abs(gap) > guard * np.abs(gap).max()
    if not keep.any() or abs(gap.mean()) <= guard * np.abs(gap).max():
        raise MeasureError(
            f"Recovery over {len(gap)} items: clean and corrupt metrics differ by {gap.mean():.3g} on average, too "
            "little to divide by; choose counterfactuals that change the answer."
        )
    ratios = (values - corrupt)[..., keep] / gap[keep]
    together = (values - corrupt).mean(-1) / gap.mean()
    return Recovery(together, ratios.mean(-1), ratios, np.flatnonzero(keep), int((~keep).sum()))
