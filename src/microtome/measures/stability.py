"""Stability: whether the neurons found once are found again - on the other half of the texts, or on another dataset.

    Spearman's correlation of the areas of all neurons, and the Jaccard index of the k strongest by |area - 1/2|

Two nulls. *Identity*: neurons renumbered at random; the overlap of two sets of k among m is then hypergeometric, so its
p is exact. It takes neurons as exchangeable, and they are not: neurons that fire together agree by chance together.
*Labels* (split halves only): classes shuffled within strata and both halves screened again, which keeps all dependence
between neurons; the p of a replication is that of the second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers, two_classes
from microtome.measures.placements import areas, layout
from microtome.measures.resampling import matched_random_p

__all__ = ["Agreement", "SplitHalf", "agreement", "split_half"]


@dataclass(frozen=True)
class Agreement:
    """How well two rankings of the same units agree.

    Args:
        spearman: rank correlation of the areas.
        jaccard: shared share of the k strongest, |A and B| / |A or B|.
        chance: the Jaccard index to expect of two random sets of k.
        p: chance that random sets share as many.
        k: how many strongest were compared.
        units: of how many.
    """

    spearman: float
    jaccard: float
    chance: float
    p: float
    k: int
    units: int


def agreement(first: Any, second: Any, *, k: int) -> Agreement:
    """Return the agreement of two vectors of areas, such as those of two datasets, seeds or ways of pooling.

    Args:
        first: AUROC of every unit, [units].
        second: the same units' elsewhere.
        k: how many of the strongest to compare.

    Raises:
        MeasureError: vectors of other lengths, a constant one, or a k outside 1 .. units - 1.
    """
    from scipy.stats import hypergeom, rankdata

    first = numbers(first, "First areas", ndim=1)
    second = numbers(second, "Second areas", ndim=1, length=len(first))
    m = len(first)
    if not 1 <= k < m:
        raise MeasureError(f"The {k} strongest of {m} units cannot be compared; give a k of 1 to {m - 1}.")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise MeasureError(f"Areas of {m} units are all equal, so they rank nothing; screen other units.")
    strongest = [set(np.argsort(-np.abs(x - 0.5), kind="stable")[:k].tolist()) for x in (first, second)]
    shared = len(strongest[0] & strongest[1])
    null = hypergeom(m, k, k)
    overlaps = np.arange(max(0, 2 * k - m), k + 1)
    chance = float((null.pmf(overlaps) * overlaps / (2 * k - overlaps)).sum())
    spearman = float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
    return Agreement(spearman, shared / (2 * k - shared), chance, float(null.sf(shared - 1)), k, m)


@dataclass(frozen=True, eq=False)
class SplitHalf:
    """Agreement of two random halves of the items.

    Args:
        observed: of the labels as they are.
        null: Spearman and Jaccard with shuffled labels, each split anew, [draws, 2].
        p_spearman: chance of so high a correlation under shuffled labels.
        p_jaccard: chance of so large an overlap.
    """

    observed: Agreement
    null: np.ndarray
    p_spearman: float
    p_jaccard: float


def split_half(
    rows: Any, labels: Any, *, k: int, rng: np.random.Generator, strata: Any = None, draws: int = 19
) -> SplitHalf:
    """Return how well two halves of the items agree on the units, against halves with shuffled labels.

    Args:
        rows: [units, items], array, memory map or tensor.
        labels: 0 or 1 per item; at least four of each.
        k: how many of the strongest to compare.
        rng: of the halves and shuffles.
        strata: as for `layout` (`length_strata` of the lengths); labels are shuffled within them.
        draws: shuffles; the least p is 1 / (draws + 1). Each costs as much as screening all items once.

    Raises:
        MeasureError: a class too small to halve, missing values, or a k that does not fit.
    """
    positive = two_classes(labels, len(np.asarray(labels)))
    codes = group_codes(strata, len(positive), "Strata")
    fewest = min(positive.sum(), (~positive).sum())
    if fewest < 4:
        raise MeasureError(f"A class has {fewest} items of {len(positive)}; halves need at least four of each.")
    observed = _halves(rows, positive, codes, k, rng)
    null = []
    for _ in range(draws):
        found = _halves(rows, _shuffled(positive, codes, rng), codes, k, rng)
        null.append((found.spearman, found.jaccard))
    null = np.array(null).reshape(draws, 2)
    p = [matched_random_p(x, null[:, i]) for i, x in enumerate((observed.spearman, observed.jaccard))]
    return SplitHalf(observed, null, *p)


def _halves(rows: Any, positive: np.ndarray, codes: np.ndarray, k: int, rng: np.random.Generator) -> Agreement:
    """Split the items of each class and stratum at random, as evenly as can be, and compare the halves' areas."""
    order = np.lexsort((rng.random(len(codes)), codes, positive))
    flip = rng.integers(2)
    halves = (np.sort(order[flip::2]), np.sort(order[1 - flip :: 2]))
    return agreement(*(areas(rows, layout(positive, strata=codes, items=half)) for half in halves), k=k)


def _shuffled(positive: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    base, moved = np.lexsort((positive, codes)), np.lexsort((rng.random(len(codes)), codes))
    shuffled = np.empty_like(positive)
    shuffled[moved] = positive[base]
    return shuffled
