"""Screening: what every neuron of a model, read alone, says about two classes of texts - and what chance would say.

One row per neuron over all texts ([units, items], pooled over tokens; `engine.pooled` writes it). The answer is two-
sided: an AUROC of 0.2 tells as much as one of 0.8. Where lengths are given, texts are compared within strata of length
and the unadjusted numbers stand beside, since both differ only by that. Beside the areas: DeLong's errors and bounds,
p from the null error corrected for ties (van Elteren; for one stratum the normal Mann-Whitney test), Benjamini-
Hochberg q over all neurons, average precision, and the largest |area - 1/2| that this many independent null neurons
would show. Neurons of one model are dependent: the true null maximum is lower, `stability` asks what replicates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.measures.expertise import area_bounds
from microtome.measures.multiplicity import benjamini_hochberg, expected_maximum
from microtome.measures.placements import Layout, layout, placed, precisions
from microtome.measures.strata import crossed, length_strata

__all__ = ["Ranking", "Screen", "screen"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Areas of all neurons with their uncertainty, each [units].

    Args:
        area: AUROC.
        error: DeLong's standard error.
        low: lower confidence bound.
        high: upper confidence bound.
        p: two-sided, of area = 1/2.
        q: Benjamini-Hochberg over all units.
        null_maximum: largest |area - 1/2| to expect of this many independent null units.
        share: share of the pairs of a positive and a negative that were compared.
    """

    area: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    q: np.ndarray
    null_maximum: float
    share: float

    @property
    def strength(self) -> np.ndarray:
        """|area - 1/2|: how much a unit tells, whatever the direction."""
        return np.abs(self.area - 0.5)

    @property
    def direction(self) -> np.ndarray:
        """1 where positives are higher, -1 where they are lower, 0 for neither."""
        return np.sign(self.area - 0.5).astype(int)

    def top(self, k: int) -> np.ndarray:
        """Return the k units of most strength, strongest first, ties in order of number."""
        return np.argsort(-self.strength, kind="stable")[:k]


@dataclass(frozen=True, eq=False)
class Screen:
    """A screened set of units.

    Args:
        ranking: within strata of length where lengths (or strata) were given, else the unadjusted one.
        unadjusted: over all pairs.
        precision: average precision over all items, high meaning class 1, [units].
        positives: items of class 1.
        negatives: items of class 0.
        strata: strata with both classes.
    """

    ranking: Ranking
    unadjusted: Ranking
    precision: np.ndarray
    positives: int
    negatives: int
    strata: int


def screen(rows: Any, labels: Any, *, lengths: Any = None, strata: Any = None, level: float = 0.95) -> Screen:
    """Return what every neuron says about the labels.

    Args:
        rows: [units, items], array, memory map or tensor, any float type.
        labels: 0 or 1 per item, at least two of each.
        lengths: tokens of each item; comparisons are then within strata of them.
        strata: further labels within which to compare, one per item.
        level: of the bounds.

    Raises:
        MeasureError: missing values, a class too small, no stratum with both classes, or shapes that do not fit.

    Example:
        >>> found = screen(store.rows(site), labels, lengths=store.lengths)
        >>> found.ranking.top(10), found.ranking.q.min(), found.ranking.null_maximum
    """
    plain = layout(labels)
    n1, n0 = len(plain.ones.items), len(plain.zeros.items)
    unadjusted = _ranking(rows, plain, level)
    groups = crossed(n1 + n0, None if lengths is None else length_strata(lengths), strata)
    design = plain if groups is None else layout(labels, strata=groups)
    ranking = unadjusted if groups is None else _ranking(rows, design, level)
    return Screen(ranking, unadjusted, precisions(rows, plain), n1, n0, len(design.pairs))


def _ranking(rows: Any, design: Layout, level: float) -> Ranking:
    from scipy.special import ndtr

    area, error, null = placed(rows, design)
    bounds = area_bounds(area, error, len(design.ones.items), len(design.zeros.items), level=level)
    z = np.divide(area - 0.5, null, out=np.zeros_like(area), where=null > 0)
    p = 2 * ndtr(-np.abs(z))
    largest = expected_maximum(len(area)) * float(np.median(null))
    return Ranking(area, error, *bounds, p, benjamini_hochberg(p), largest, design.share)
