"""Selectivity: which units respond to the task - and not to its wording, its length, or the kind of answer.

For every unit at once, between items of two tasks (label 1 and 0) over shared skeletons:

    AUROC with DeLong interval; Cohen's d; paired difference by item (d_z = mean / sd of the differences, ddof 1)
    permutation of the labels within skeletons -> p, Benjamini-Hochberg q over units, family-wise p from the maxima
    partial eta^2 of task beside skeleton, length and answer type (`variance`)

A unit is task-selective only if q <= alpha *and* task survives the decomposition (its BH-adjusted F test <= alpha).
Two more gates stand outside one sample: `replication` on held-out items, and `beyond_null`, the effect against those
of an untrained model or of shuffled labels. Selectivity is correlation: only an ablation shows that a unit matters.
Spec B3.

With `draws` shuffles no p is below 1 / (1 + draws), so among very many units a lone one can pass by `family_wise`
only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers, two_classes, unit_matrix
from microtome.measures.expertise import Auroc, cohens_d, delong
from microtome.measures.intervals import Interval, wilson
from microtome.measures.multiplicity import benjamini_hochberg, family_wise
from microtome.measures.resampling import permute_within
from microtome.measures.variance import Decomposition, variance_decomposition

__all__ = [
    "BeyondNull",
    "Paired",
    "Replication",
    "Selectivity",
    "beyond_null",
    "paired_difference",
    "replication",
    "selectivity",
]


@dataclass(frozen=True, eq=False)
class Paired:
    """Differences between the two tasks within the same item.

    Args:
        difference: mean of (label 1 - label 0) over items, [units].
        d_z: that mean over the standard deviation of the differences (ddof 1), [units].
        pairs: items seen under both labels.
        dropped: items seen under one only, left out.
    """

    difference: np.ndarray
    d_z: np.ndarray
    pairs: int
    dropped: int


@dataclass(frozen=True, eq=False)
class Selectivity:
    """Task selectivity of every unit; arrays are [units].

    Args:
        auroc: area with DeLong standard error and bounds.
        d: Cohen's d.
        z: the permutation statistic, standardised within skeletons.
        p: its permutation p.
        q: Benjamini-Hochberg adjusted p.
        family: family-wise adjusted p from the permutation maxima.
        variance: decomposition by factor; "task" is the one asked about.
        selective: q and the adjusted p of task both at most alpha.
        paired: differences by item, where items were named.
        alpha: the level used.
        items: number of items.
    """

    auroc: Auroc
    d: np.ndarray
    z: np.ndarray
    p: np.ndarray
    q: np.ndarray
    family: np.ndarray
    variance: Decomposition
    selective: np.ndarray
    paired: Paired | None
    alpha: float
    items: int

    @property
    def share(self) -> Interval:
        """Share of units called selective; its interval takes units as independent."""
        return wilson(int(self.selective.sum()), len(self.selective))


def selectivity(
    values: Any,
    task: Any,
    *,
    rng: np.random.Generator,
    skeletons: Any,
    item: Any = None,
    factors: Mapping[str, Any] = (),
    alpha: float = 0.05,
    draws: int = 2000,
    level: float = 0.95,
) -> Selectivity:
    """Return the task selectivity of every unit.

    Args:
        values: [items, units].
        task: 0 or 1 per item.
        rng: random generator.
        skeletons: skeleton per item; labels are shuffled within them, and they are a factor of the decomposition.
        item: id per item of what both tasks share, for paired differences; None: not paired.
        factors: further factors by name, such as length (float: covariate) and answer type.
        alpha: level for the adjusted p-values.
        draws: permutations.
        level: level of the AUROC intervals.

    Raises:
        MeasureError: missing values, fewer than two items of a class, no skeleton with both tasks, or a factor named
            "task" or "skeleton".
    """
    x = unit_matrix(values, "Values")
    factors = dict(factors)
    if taken := {"task", "skeleton"} & set(factors):
        raise MeasureError(f"Factor '{min(taken)}' is there already; give it another name.")
    area = delong(x, task, level=level)
    test = permute_within(x, task, groups=skeletons, rng=rng, draws=draws)
    positive = two_classes(task, len(x))
    skeleton = group_codes(skeletons, len(x), "Skeletons")
    parts = variance_decomposition(x, {"task": positive, "skeleton": skeleton, **factors})
    q = benjamini_hochberg(test.p)
    return Selectivity(
        auroc=area,
        d=cohens_d(x, positive),
        z=test.statistic,
        p=test.p,
        q=q,
        family=family_wise(test.statistic, test.maxima),
        variance=parts,
        selective=(q <= alpha) & (benjamini_hochberg(parts.p["task"]) <= alpha),
        paired=None if item is None else paired_difference(x, positive, item),
        alpha=alpha,
        items=len(x),
    )


def paired_difference(values: Any, task: Any, item: Any) -> Paired:
    """Return the difference between the tasks within items; several rows of one item and task are averaged first.

    Args:
        values: [rows, units].
        task: 0 or 1 per row.
        item: id per row.

    Returns:
        The paired differences; a unit whose differences do not vary has d_z 0 if they are 0, else +-infinity.

    Raises:
        MeasureError: missing values, or fewer than two items seen under both tasks.
    """
    x = unit_matrix(values, "Values")
    positive, codes = two_classes(task, len(x)), group_codes(item, len(x), "Items")
    n = codes.max() + 1
    counts = np.stack([np.bincount(codes[~positive], minlength=n), np.bincount(codes[positive], minlength=n)])
    both = (counts > 0).all(0)
    if both.sum() < 2:
        raise MeasureError(
            f"{int(both.sum())} of {n} items occur under both tasks; paired differences need two or more."
        )
    means = np.zeros((2, n, x.shape[1]))
    np.add.at(means, (positive.astype(int), codes), x)
    gaps = means[1][both] / counts[1][both, None] - means[0][both] / counts[0][both, None]
    size = np.abs(x).max(0)
    mean = np.where(np.abs(gaps.mean(0)) <= 1e-12 * size, 0.0, gaps.mean(0))
    spread = gaps.std(0, ddof=1)
    endless = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    d_z = np.divide(mean, spread, out=endless, where=spread > 1e-12 * size)
    return Paired(mean, d_z, int(both.sum()), int((~both).sum()))


@dataclass(frozen=True, eq=False)
class Replication:
    """Which of the units called selective hold on held-out items.

    Args:
        flagged: how many were called selective on the discovery items.
        replicated: how many of them are so again, with the same sign, [units] as booleans.
        rate: their share with Wilson's interval; None when none was flagged.
    """

    flagged: int
    replicated: np.ndarray
    rate: Interval | None


def replication(discovery: Selectivity, held_out: Selectivity) -> Replication:
    """Return the held-out replication: same sign, and q <= alpha again, corrected over the flagged units only.

    Args:
        discovery: selectivity on the items units were chosen on.
        held_out: the same units on disjoint items (and unseen skeletons).

    Raises:
        MeasureError: another number of units.
    """
    if len(discovery.z) != len(held_out.z):
        raise MeasureError(f"Replication of {len(discovery.z)} units on {len(held_out.z)}; give the same units.")
    flagged = np.flatnonzero(discovery.selective)
    again = np.zeros(len(discovery.z), bool)
    if not len(flagged):
        return Replication(0, again, None)
    q = benjamini_hochberg(held_out.p[flagged])
    again[flagged] = (q <= discovery.alpha) & (np.sign(held_out.z[flagged]) == np.sign(discovery.z[flagged]))
    return Replication(len(flagged), again, wilson(int(again.sum()), len(flagged)))


@dataclass(frozen=True, eq=False)
class BeyondNull:
    """Effects of units against those of a network that learned nothing.

    Args:
        p: share of null effects at least as large in magnitude, (1 + #) / (1 + n), [units].
        ratio: magnitude over the null's 95th percentile, [units].
        threshold: that percentile.
        share: share of the units above it; 5 % are expected if there is nothing.
    """

    p: np.ndarray
    ratio: np.ndarray
    threshold: float
    share: Interval


def beyond_null(effects: Any, null: Any) -> BeyondNull:
    """Return how far effects (AUROC - 1/2, d, z) stand out from those of an untrained model or shuffled labels.

    Args:
        effects: [units].
        null: the same effect in the null, any number of units or draws.

    Raises:
        MeasureError: missing or infinite values, or a null whose 95th percentile is 0.
    """
    effects = np.abs(numbers(effects, "Effects", ndim=1))
    null = np.sort(np.abs(numbers(null, "Null effects")).ravel())
    threshold = float(np.quantile(null, 0.95))
    if threshold == 0:
        raise MeasureError(f"The 95th percentile of {len(null)} null effects is 0; draw the null from units that vary.")
    p = (1 + len(null) - np.searchsorted(null, effects, side="left")) / (1 + len(null))
    return BeyondNull(p, effects / threshold, threshold, wilson(int((effects > threshold).sum()), len(effects)))
