"""Resampling: permutation tests, clustered bootstrap, and the p-value of a set against random twins.

    p = (1 + #{null >= observed}) / (1 + draws)        never 0, exact for any number of draws (Phipson & Smyth 2010)

Permutation tests assume exchangeability under the null and no more: signs of paired differences (flipped by whole
cluster), or labels within groups (skeletons), so that a difference between groups can never pass for one between
classes. The bootstrap resamples whole clusters; with several clusterings at once (items and skeletons) the weights
multiply (the pigeonhole bootstrap: Owen 2007), which errs on the wide side. All statistics are weighted means or
functions of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers, two_classes, unit_matrix
from microtome.measures.intervals import Interval, percentile_interval

__all__ = ["Permutation", "bootstrap_mean", "bootstrap_weights", "matched_random_p", "permute_within", "sign_flip"]

CHUNK = 256
TIE = 1e-10


@dataclass(frozen=True, eq=False)
class Permutation:
    """A permutation test of every unit.

    Args:
        statistic: observed statistic, [units].
        p: p-value of each unit alone, [units].
        maxima: largest |statistic| over units in each draw, [draws] (for `family_wise`); empty for an exact test.
        draws: how many rearrangements were compared.
        exact: whether those were all there are.
    """

    statistic: np.ndarray
    p: np.ndarray
    maxima: np.ndarray
    draws: int
    exact: bool = False


def sign_flip(differences: Any, *, rng: np.random.Generator, clusters: Any = None, draws: int = 10_000) -> Permutation:
    """Test whether paired differences are symmetric around 0, by flipping signs.

    Args:
        differences: [items] or [items, units].
        rng: random generator.
        clusters: label per item; a cluster's signs flip together. None: each item is its own.
        draws: random flips; when all 2^clusters are no more than that, all are taken and the test is exact.

    Returns:
        The mean difference and its two-sided p.

    Raises:
        MeasureError: missing values, or a single cluster.
    """
    x = unit_matrix(differences, "Paired differences")
    codes = group_codes(np.arange(len(x)) if clusters is None else clusters, len(x), "Clusters")
    n = codes.max() + 1
    if n < 2:
        raise MeasureError(f"Sign flips of {len(x)} differences in 1 cluster cannot test anything; give more clusters.")
    sums = np.stack([np.bincount(codes, column, n) for column in x.T], 1) / len(x)
    observed = sums.sum(0)
    exact = n < 63 and 2**n <= draws

    def null(start, stop):
        if exact:
            return (1.0 - 2.0 * (np.arange(start, stop)[:, None] >> np.arange(n) & 1)) @ sums
        return rng.choice([-1.0, 1.0], (stop - start, n)) @ sums

    return _compare(observed, null, 2**n if exact else draws, exact, np.abs(sums).sum(0))


def permute_within(
    values: Any, labels: Any, *, rng: np.random.Generator, groups: Any = None, draws: int = 10_000
) -> Permutation:
    """Test whether labels matter to the values, by shuffling labels within groups.

    Args:
        values: [items] or [items, units].
        labels: 0 or 1 per item.
        rng: random generator.
        groups: label per item (skeleton); labels move only within a group. None: anywhere.
        draws: number of shuffles.

    Returns:
        The statistic - sum over items of (label - its group's mean label) * value, over its own standard deviation
        under shuffling, so a z-score comparable between units - and its two-sided p. A unit that is constant within
        every mixed group has statistic 0 and p 1.

    Raises:
        MeasureError: missing values, a single class, or no group that holds both classes.
    """
    x = unit_matrix(values, "Values")
    positive, codes = two_classes(labels, len(x)), group_codes(groups, len(x))
    sizes = np.bincount(codes)
    share = np.bincount(codes, positive) / sizes
    if not ((share > 0) & (share < 1)).any():
        raise MeasureError(
            f"None of the {len(sizes)} groups holds both classes, so labels and groups cannot be told apart; give "
            "groups that cross the classes."
        )
    z = _standardised(x, codes, sizes, share)
    centre = share[codes]
    base = np.lexsort((np.arange(len(x)), codes))
    labels_by_group = positive[base].astype(np.float64)

    def null(start, stop):
        keys = codes[base] + rng.random((stop - start, len(x)))
        shuffled = np.empty((stop - start, len(x)))
        shuffled[:, base] = labels_by_group[keys.argsort(1)]
        return (shuffled - centre) @ z

    return _compare((positive - centre) @ z, null, draws, False, np.abs(z).sum(0))


def matched_random_p(observed: float, null: Any) -> float:
    """Return the one-sided p-value of a set's score against those of its random twins, (1 + #{null >= obs}) / (1 + n).

    Args:
        observed: score of the set.
        null: scores of matched random sets, [draws].

    Raises:
        MeasureError: no twin, or a missing value.
    """
    null = numbers(null, "Scores of random sets", ndim=1)
    observed = float(numbers(observed, "Observed score", ndim=0))
    return float((1 + (null >= observed - TIE * max(1.0, abs(observed))).sum()) / (1 + len(null)))


def bootstrap_weights(
    clusters: Sequence[Any],
    n: int,
    *,
    draws: int,
    rng: np.random.Generator,
    parts: Sequence[slice] = (slice(None),),
    strata: Sequence[Any] = (),
) -> np.ndarray:
    """Return how often each item occurs in each clustered resample, [draws, items].

    With several clusterings a resample can come out empty, or empty of a part; it is drawn again (up to 20 times).

    Args:
        clusters: one or more clusterings, each a label per item; empty: every item is its own cluster.
        n: number of items.
        draws: number of resamples.
        rng: random generator.
        parts: ranges of items of which every resample must hold some (the items of each task).
        strata: for each clustering None or a label per item: its clusters are then drawn within each stratum, as many
            as there are (the wordings of each attribute). Empty: none is stratified.

    Raises:
        MeasureError: a clustering with a single cluster, or labels that do not fit.
    """
    coded = [group_codes(labels, n, "Clusters") for labels in list(clusters) or [np.arange(n)]]
    if any(codes.max() == 0 for codes in coded):
        raise MeasureError(f"A bootstrap of {n} items in 1 cluster has no spread; give at least two clusters.")
    within = [group_codes(labels, n, "Strata") for labels in (strata or [None] * len(coded))]
    coded = list(zip(coded, within, strict=True))
    weights = _drawn(coded, n, draws, rng)
    for _ in range(20):
        empty = np.any([weights[:, part].sum(1) == 0 for part in parts], 0)
        if not empty.any():
            break
        weights[empty] = _drawn(coded, n, int(empty.sum()), rng)
    return weights


def _drawn(coded: Sequence[tuple[np.ndarray, np.ndarray]], n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of the items, [draws, items]: the product over clusterings of how often their cluster was drawn."""
    weights = np.ones((draws, n))
    for codes, strata in coded:
        for stratum in range(int(strata.max()) + 1):
            inside = strata == stratum
            own, place = np.unique(codes[inside], return_inverse=True)
            weights[:, inside] *= rng.multinomial(len(own), np.full(len(own), 1 / len(own)), draws)[:, place]
    return weights


def cluster_count(clusters: Sequence[Any], n: int) -> int:
    """Return the smallest number of clusters among the clusterings: the n an interval may claim."""
    return min((int(group_codes(c, n, "Clusters").max()) + 1 for c in clusters), default=n)


def bootstrap_mean(
    values: Any,
    *,
    rng: np.random.Generator,
    clusters: Sequence[Any] = (),
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean with a clustered percentile bootstrap interval.

    Args:
        values: [items].
        rng: random generator.
        clusters: clusterings of the items (for example item ids and skeletons); () resamples items.
        draws: number of resamples.
        level: confidence level.

    Raises:
        MeasureError: missing values, or a single cluster.
    """
    x = numbers(values, "Values", ndim=1)
    weights = bootstrap_weights(clusters, len(x), draws=draws, rng=rng)
    return percentile_interval(x.mean(), weighted_means(weights, x), cluster_count(clusters, len(x)), level=level)


def weighted_means(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the mean of x [items] or [items, m] in every resample, [draws] or [draws, m].

    Raises:
        MeasureError: a resample holds none of these items.
    """
    totals = weights.sum(1)
    if not totals.all():
        raise MeasureError(
            f"{int((totals == 0).sum())} of {len(weights)} resamples hold none of the {len(x)} items; give more "
            "clusters, or clusters that hold items of every task."
        )
    return (weights @ x) / (totals if x.ndim == 1 else totals[:, None])


def _compare(
    observed: np.ndarray, null: Callable[[int, int], np.ndarray], draws: int, exact: bool, scale: np.ndarray
) -> Permutation:
    """Count |null| >= |observed| (equal up to rounding counts) in chunks of draws, and keep the maxima."""
    count, maxima = np.zeros(len(observed)), []
    edge = np.abs(observed) - TIE * scale
    for start in range(0, draws, CHUNK):
        found = np.abs(null(start, min(start + CHUNK, draws)))
        count += (found >= edge).sum(0)
        maxima.append(found.max(1))
    p = count / draws if exact else (1 + count) / (1 + draws)
    return Permutation(observed, p, np.concatenate(maxima), draws, exact)


def _standardised(x: np.ndarray, codes: np.ndarray, sizes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Centre values within groups and divide by the statistic's permutation standard deviation (Strasser-Weber)."""
    means = np.stack([np.bincount(codes, column) for column in x.T], 1) / sizes[:, None]
    centred = x - means[codes]
    factor = share * (1 - share) * sizes / np.maximum(sizes - 1, 1)
    deviation = np.sqrt((factor[codes, None] * centred**2).sum(0))
    alive = deviation > 1e-9 * np.abs(x).max(0) * np.sqrt(len(x))
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=alive)
