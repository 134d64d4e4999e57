"""Faithfulness: how much of a behaviour a circuit carries by itself, as it grows.

    f(k) = (m(C_k) - m(empty)) / (m(full) - m(empty))      C_k: the top share k of components, all others ablated
    CPR  = area under f(k)            higher is better: how fast the behaviour comes back (may exceed 1)
    CMD  = area under |1 - f(k)|      lower is better: how close the circuit stays to the whole model

areas by the trapezoid rule over k on MIB's grid, from the smallest k measured to 1, not extended to 0 (MIB: Mueller
et al. 2025, arXiv 2504.13151, as computed in its public code). Completeness and minimality follow IOI (Wang et al.
2022, arXiv 2211.00593, section 4). With a known truth, `against_truth` ranks the scores against it (MIB's own
comparison counts objects absent from the hypothesis as found; this one does not).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.measures.arrays import numbers
from microtome.measures.expertise import auroc, average_precision
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights, cluster_count, weighted_means

__all__ = [
    "MIB_GRID",
    "Areas",
    "Completeness",
    "Curve",
    "Recovered",
    "against_truth",
    "areas",
    "completeness",
    "faithfulness_curve",
    "minimality",
]

MIB_GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Areas(NamedTuple):
    """CPR and CMD; arrays where the faithfulness had leading axes."""

    cpr: np.ndarray
    cmd: np.ndarray


def areas(faithfulness: Any, fractions: Sequence[float] = MIB_GRID) -> Areas:
    """Return CPR and CMD of faithfulness values.

    Args:
        faithfulness: f at each fraction, [..., k].
        fractions: ascending shares of the components in (0, 1], the last one 1.

    Raises:
        MeasureError: fractions that do not rise to 1, another number of values, or missing values.
    """
    x = numbers(fractions, "Fractions", ndim=1)
    if len(x) < 2 or (np.diff(x) <= 0).any() or x[0] < 0 or x[-1] != 1:
        raise MeasureError(f"Fractions {x.tolist()[:12]} must rise from 0 or more to exactly 1, at least two of them.")
    f = numbers(faithfulness, "Faithfulness")
    if f.shape[-1:] != x.shape:
        raise MeasureError(f"Faithfulness has shape {f.shape} for {len(x)} fractions; give one value per fraction.")
    return Areas(_trapezoid(f, x), _trapezoid(np.abs(1 - f), x))


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness along a growing circuit.

    Args:
        fractions: shares of the components, [k].
        faithfulness: f with its interval at each of them.
        cpr: area under f.
        cmd: area under |1 - f|.
    """

    fractions: tuple[float, ...]
    faithfulness: tuple[Interval, ...]
    cpr: Interval
    cmd: Interval


def faithfulness_curve(
    circuit: Any,
    empty: Any,
    full: Any,
    *,
    rng: np.random.Generator,
    fractions: Sequence[float] = MIB_GRID,
    clusters: Sequence[Any] = (),
    draws: int = 2000,
    level: float = 0.95,
    guard: float = 1e-6,
) -> Curve:
    """Return f, CPR and CMD from per-item metrics, each a ratio of means over items, with bootstrap intervals.

    Args:
        circuit: metric with only the circuit intact, [k, items].
        empty: metric with everything ablated, [items].
        full: metric of the whole model, [items].
        rng: random generator.
        fractions: the k shares.
        clusters: clusterings of the items; () resamples items.
        draws: bootstrap resamples.
        level: confidence level.
        guard: the mean of full - empty must exceed this share of its own mean magnitude.

    Raises:
        MeasureError: shapes that do not fit, missing values, or full and empty model not apart in one direction - also
            in a resample, where the interval would be meaningless.
    """
    full = numbers(full, "Full metric", ndim=1)
    empty = numbers(empty, "Empty metric", ndim=1, length=len(full))
    circuit = numbers(circuit, "Circuit metric", ndim=2)
    if circuit.shape != (len(fractions), len(full)):
        raise MeasureError(
            f"Circuit metric has shape {circuit.shape}; {len(fractions)} fractions and {len(full)} items need "
            f"({len(fractions)}, {len(full)})."
        )
    columns = np.vstack([circuit - empty, full - empty]).T
    floor = guard * np.abs(columns[:, -1]).mean()
    f = _ratio(columns.mean(0)[None], floor)[0]
    weights = bootstrap_weights(clusters, len(full), draws=draws, rng=rng)
    drawn = _ratio(weighted_means(weights, columns), floor)
    n = cluster_count(clusters, len(full))
    points = tuple(percentile_interval(a, d, n, level=level) for a, d in zip(f, drawn.T, strict=True))
    both = zip(areas(f, fractions), areas(drawn, fractions), strict=True)
    ends = [percentile_interval(a, d, n, level=level) for a, d in both]
    return Curve(tuple(float(x) for x in fractions), points, *ends)


class Completeness(NamedTuple):
    """Gaps |F(C minus K) - F(M minus K)| over removed sets K: each, their mean, and the worst."""

    gaps: np.ndarray
    mean: float
    worst: float


def completeness(circuit_without: Any, model_without: Any) -> Completeness:
    """Return how differently circuit and model react when the same parts K of the circuit are removed from both.

    Args:
        circuit_without: metric of the circuit without K, one per K, [sets].
        model_without: metric of the whole model without K, [sets].

    Raises:
        MeasureError: lengths that differ, or missing values.
    """
    a = numbers(circuit_without, "Circuit metric", ndim=1)
    gaps = np.abs(a - numbers(model_without, "Model metric", ndim=1, length=len(a)))
    return Completeness(gaps, float(gaps.mean()), float(gaps.max()))


def minimality(without: Any, without_unit_too: Any) -> np.ndarray:
    """Return each unit's minimality score: the most its removal changes the circuit, over the sets K removed before.

    Args:
        without: metric of the circuit without K, [units, sets].
        without_unit_too: metric of the circuit without K and the unit, [units, sets].

    Returns:
        [units]; a unit near 0 does not belong in the circuit.

    Raises:
        MeasureError: shapes that differ, or missing values.
    """
    a, b = numbers(without, "Circuit metric", ndim=2), numbers(without_unit_too, "Circuit metric", ndim=2)
    if a.shape != b.shape:
        raise MeasureError(f"Minimality got metrics {a.shape} and {b.shape}; give both as [units, sets].")
    return np.abs(a - b).max(1)


class Recovered(NamedTuple):
    """How well scores rank the units known to be in the circuit above all others."""

    auroc: float
    average_precision: float
    units: int
    true: int


def against_truth(scores: Mapping["Site | str", Any], truth: Units) -> Recovered:
    """Return AUROC and average precision of unit scores against the known units.

    Args:
        scores: for each site one score per unit, high meaning in the circuit (take magnitudes first).
        truth: the units that are in it, all at those sites.

    Raises:
        MeasureError: a missing score, a true unit without a score, or no unit on one side.
    """
    values, labels = [], []
    for site, score in scores.items():
        values.append(numbers(score, f"Scores at '{site}'", ndim=1))
        labels.append(np.isin(np.arange(len(values[-1])), truth.at(site)))
    if not values or sum(int(held.sum()) for held in labels) != len(truth):
        found = sum(int(held.sum()) for held in labels)
        raise MeasureError(
            f"Truth holds {len(truth)} units, scores cover {found} of them; score every site of the truth."
        )
    joined, held = np.concatenate(values), np.concatenate(labels)
    return Recovered(
        float(auroc(joined, held)[0]), float(average_precision(joined, held)[0]), len(held), int(held.sum())
    )


def _trapezoid(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return ((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x)).sum(-1)


def _ratio(columns: np.ndarray, floor: float) -> np.ndarray:
    """First columns over the last one, [draws, k]."""
    gap = columns[:, -1:]
    if (np.abs(gap) <= floor).any() or gap.min() < 0 < gap.max():
        raise MeasureError(
            f"Full and empty model differ by {gap.min():.3g} to {gap.max():.3g} on average over {len(gap)} resamples, "
            "so faithfulness is undefined; use items the model gets right and a stronger ablation."
        )
    return columns[:, :-1] / gap
