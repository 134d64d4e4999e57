"""The paper's own criteria: "Disentangling Recall and Reasoning" (arXiv 2510.03366), as in its authors' public code.

Neurons: gate value *before* its nonlinearity at the last prompt token, firing where it is > 0. Two-sided Mann-Whitney
U between the two prompt sets, Bonferroni at 1e-4 over neurons, |d| > 1; specificity = |P(fires | 1) - P(fires | 0)|.
Heads: shape statistics of one attention row (entropy and others), BH at 1e-4 over heads in each, |d| >= 1, heads with
three or more agreeing statistics kept; |d| > 15 is set to 0 as an artefact.

The two sets differ in template, so these are template detectors: they flag about half the neurons of an *untrained*
network. Use them to reproduce published counts and to print that row beside them; `selectivity` is the test that
holds. p-values are the normal approximation with ties and continuity corrected (scipy); a constant unit has p 1,
d 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import two_classes, unit_matrix
from microtome.measures.expertise import cohens_d
from microtome.measures.multiplicity import benjamini_hochberg, bonferroni

__all__ = ["PaperHeads", "PaperNeurons", "mann_whitney", "paper_criteria", "paper_head_criteria"]


def mann_whitney(values: Any, labels: Any) -> np.ndarray:
    """Return the two-sided Mann-Whitney p-value of every unit (normal approximation, ties corrected).

    Args:
        values: [items, units].
        labels: 0 or 1 per item.

    Raises:
        MeasureError: missing values or a single class.
    """
    from scipy.stats import mannwhitneyu

    x = unit_matrix(values, "Values")
    positive = two_classes(labels, len(x))
    p = np.ones(x.shape[1])
    moving = np.flatnonzero(np.ptp(x, axis=0) > 0)
    for part in np.array_split(moving, max(1, moving.size * len(x) // (1 << 22))):
        if part.size:
            p[part] = mannwhitneyu(x[positive][:, part], x[~positive][:, part], axis=0, method="asymptotic").pvalue
    return p


@dataclass(frozen=True, eq=False)
class PaperNeurons:
    """The paper's neuron criteria; arrays are [units].

    Args:
        p: two-sided Mann-Whitney p.
        d: Cohen's d, label 1 minus label 0.
        specificity: |P(fires | 1) - P(fires | 0)|.
        flagged: Bonferroni p <= alpha and |d| > the least.
    """

    p: np.ndarray
    d: np.ndarray
    specificity: np.ndarray
    flagged: np.ndarray


def paper_criteria(gates: Any, labels: Any, *, alpha: float = 1e-4, least_d: float = 1.0) -> PaperNeurons:
    """Return the paper's neuron statistics.

    Args:
        gates: gate values before the nonlinearity, [items, units].
        labels: 1 reasoning, 0 recall (the paper's sign of d).
        alpha: level after Bonferroni over all units given.
        least_d: |d| must exceed this.

    Raises:
        MeasureError: missing values, or fewer than two items of a class.
    """
    x = unit_matrix(gates, "Gate values")
    d = cohens_d(x, labels)
    positive = two_classes(labels, len(x))
    p = mann_whitney(x, positive)
    fires = x > 0
    specificity = np.abs(fires[positive].mean(0) - fires[~positive].mean(0))
    return PaperNeurons(p, d, specificity, (bonferroni(p) <= alpha) & (np.abs(d) > least_d))


@dataclass(frozen=True, eq=False)
class PaperHeads:
    """The paper's head criteria; arrays are [heads].

    Args:
        significant: statistic -> heads that pass it.
        d: statistic -> Cohen's d, those beyond the clip set to 0.
        flagged: heads that pass in enough statistics.
        side: 1 reasoning, -1 recall, 0 as many statistics either way (the paper's "mixed").
    """

    significant: dict[str, np.ndarray]
    d: dict[str, np.ndarray]
    flagged: np.ndarray
    side: np.ndarray


def paper_head_criteria(
    statistics: Mapping[str, Any],
    labels: Any,
    *,
    alpha: float = 1e-4,
    least_d: float = 1.0,
    votes: int = 3,
    clip: float | None = 15.0,
) -> PaperHeads:
    """Return the paper's head statistics.

    Args:
        statistics: name -> [items, heads] (attention entropy, largest weight, ...).
        labels: 1 reasoning, 0 recall.
        alpha: level after Benjamini-Hochberg over heads, in each statistic.
        least_d: least |d|.
        votes: how many statistics a head must pass.
        clip: |d| beyond this is set to 0, as the authors do; None keeps it.

    Raises:
        MeasureError: no statistic, missing values, statistics of different widths, or too few items of a class.
    """
    if not statistics:
        raise MeasureError("Head criteria got no statistic; give at least one, such as attention entropy.")
    d, passed = {}, {}
    for name, values in statistics.items():
        found = cohens_d(values, labels)
        d[name] = found if clip is None else np.where(np.abs(found) > clip, 0.0, found)
        passed[name] = (benjamini_hochberg(mann_whitney(values, labels)) <= alpha) & (np.abs(d[name]) >= least_d)
    if len({len(found) for found in d.values()}) > 1:
        raise MeasureError(f"Head statistics have widths { {k: len(v) for k, v in d.items()} }; give the same heads.")
    counts = sum(held.astype(int) for held in passed.values())
    ballots = sum(np.sign(d[name]) * held for name, held in passed.items())
    return PaperHeads(passed, d, counts >= votes, np.where(counts >= votes, np.sign(ballots), 0).astype(int))
