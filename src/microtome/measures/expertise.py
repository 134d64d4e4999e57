"""Expertise of units: how well each unit's value tells two classes of items apart, exactly and with its uncertainty.

    AUROC = P(x1 > x0) + P(x1 = x0) / 2       over all pairs of a positive x1 and a negative x0 (Mann-Whitney)

for [items, units] matrices of any width, by sorting (`placements`, which takes [units, items] on disk as well; whole
models are screened by `screening`). Standard errors, intervals and the paired test are DeLong's (DeLong, DeLong &
Clarke-Pearson 1988; by mid-ranks: Sun & Xu 2014). Where DeLong's variance is 0 (perfect separation) the interval is
Newcombe's score-type one (2006, method 5), which stays honest there. Items are taken as independent; for clustered
items bootstrap (`resampling`). Average precision steps at distinct scores, as in sklearn.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import two_classes, unit_matrix
from microtome.measures.intervals import two_sided
from microtome.measures.placements import areas, layout, placed, precisions

__all__ = [
    "Auroc",
    "Expertise",
    "PairedTest",
    "area_bounds",
    "auroc",
    "average_precision",
    "cohens_d",
    "delong",
    "delong_test",
    "mid_ranks",
]

CHUNK = 1 << 22


def mid_ranks(rows: np.ndarray) -> np.ndarray:
    """Return ranks 1 .. n along the last axis of [units, items]; tied values share the mean of their ranks."""
    start, end, order = _tie_groups(rows)
    ranks = np.empty_like(rows, dtype=np.float64)
    np.put_along_axis(ranks, order, (start + end) / 2 + 1, 1)
    return ranks


def auroc(scores: Any, labels: Any) -> np.ndarray:
    """Return the exact area under the ROC curve of every unit, ties counted half.

    Args:
        scores: [items, units] (or [items]).
        labels: 0 or 1 per item.

    Returns:
        One area per unit, [units]; 0.5 for a unit that is constant.

    Raises:
        MeasureError: missing values, a single class, or labels of another length.
    """
    scores = unit_matrix(scores, "Scores")
    positive = two_classes(labels, len(scores))
    design = layout(positive)
    return np.concatenate([areas(rows, design) for rows in _chunks(scores)])


def average_precision(scores: Any, labels: Any) -> np.ndarray:
    """Return the average precision of every unit: precision at each distinct score, weighted by the recall it adds.

    Args:
        scores: [items, units] (or [items]); high means positive.
        labels: 0 or 1 per item.

    Returns:
        [units]; a constant unit has the share of positives.

    Raises:
        MeasureError: missing values, a single class, or labels of another length.
    """
    scores = unit_matrix(scores, "Scores")
    positive = two_classes(labels, len(scores))
    design = layout(positive)
    return np.concatenate([precisions(rows, design) for rows in _chunks(scores)])


class Auroc(NamedTuple):
    """Areas with DeLong standard errors and confidence bounds, each [units]."""

    area: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray


def delong(scores: Any, labels: Any, *, level: float = 0.95) -> Auroc:
    """Return every unit's AUROC with its DeLong standard error and interval.

    Args:
        scores: [items, units] (or [items]).
        labels: 0 or 1 per item; at least two items of each class.
        level: confidence level.

    Returns:
        Areas, standard errors (ddof 1) and bounds within [0, 1]. Where the error is 0 the bounds are Newcombe's.

    Raises:
        MeasureError: missing values, or fewer than two items of a class.
    """
    scores = unit_matrix(scores, "Scores")
    positive = _pairs_of_both(labels, len(scores))
    design = layout(positive)
    parts = [placed(rows, design)[:2] for rows in _chunks(scores)]
    area, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Auroc(area, error, *area_bounds(area, error, int(positive.sum()), int((~positive).sum()), level=level))


def area_bounds(
    area: np.ndarray, error: np.ndarray, n1: int, n0: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence bounds of areas within [0, 1]: normal ones, and Newcombe's where the error is 0.

    Args:
        area: [units].
        error: DeLong's, [units].
        n1: items of class 1.
        n0: items of class 0.
        level: confidence level.
    """
    z = two_sided(level)
    low, high = np.clip(area - z * error, 0, 1), np.clip(area + z * error, 0, 1)
    flat = error <= 1e-12
    if flat.any():
        low[flat], high[flat] = _newcombe(area[flat], n1, n0, z)
    return low, high


class PairedTest(NamedTuple):
    """Difference of two areas on the same items, its standard error, z and two-sided p, each [units]."""

    difference: np.ndarray
    error: np.ndarray
    z: np.ndarray
    p: np.ndarray


def delong_test(first: Any, second: Any, labels: Any) -> PairedTest:
    """Return DeLong's paired test of two scores per unit on the same items.

    Args:
        first: [items, units].
        second: the same shape.
        labels: 0 or 1 per item; at least two of each class.

    Returns:
        AUROC(first) - AUROC(second) with a two-sided normal p; without variance p is 1 for equal areas, else 0.

    Raises:
        MeasureError: shapes that differ, missing values, or fewer than two items of a class.
    """
    from scipy.special import ndtr

    first, second = unit_matrix(first, "First scores"), unit_matrix(second, "Second scores")
    if first.shape != second.shape:
        raise MeasureError(f"Paired test of scores {first.shape} and {second.shape}; give both on the same items.")
    positive = _pairs_of_both(labels, len(first))
    parts = []
    for a, b in zip(_chunks(first), _chunks(second), strict=True):
        ones, zeros = (x - y for x, y in zip(_placements(a, positive), _placements(b, positive), strict=True))
        parts.append(_area_and_error(ones, zeros))
    gap, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    gap, error = np.where(np.abs(gap) < 1e-12, 0.0, gap), np.where(error < 1e-12, 0.0, error)
    z = np.divide(gap, error, out=_signed_infinity(gap), where=error > 0)
    return PairedTest(gap, error, z, 2 * ndtr(-np.abs(z)))


def cohens_d(scores: Any, labels: Any) -> np.ndarray:
    """Return Cohen's d of every unit: mean(1) - mean(0) over the pooled standard deviation (ddof 1).

    Args:
        scores: [items, units] (or [items]).
        labels: 0 or 1 per item; at least two of each class.

    Returns:
        [units]; a unit without spread within the classes has d = 0 if its means are equal, else plus or minus infinity.

    Raises:
        MeasureError: missing values, or fewer than two items of a class.
    """
    scores = unit_matrix(scores, "Scores")
    positive = _pairs_of_both(labels, len(scores))
    ones, zeros = scores[positive], scores[~positive]
    squares = ((ones - ones.mean(0)) ** 2).sum(0) + ((zeros - zeros.mean(0)) ** 2).sum(0)
    spread = np.sqrt(squares / (len(scores) - 2))
    size = np.abs(scores).max(0)
    gap = ones.mean(0) - zeros.mean(0)
    gap = np.where(np.abs(gap) <= 1e-12 * size, 0.0, gap)
    return np.divide(gap, spread, out=_signed_infinity(gap), where=spread > 1e-12 * size)


class Expertise:
    """AUROC and average precision of every unit as a `Measure`: batches in any order and split, exact at the end."""

    def __init__(self):
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, activations: Any, *, labels: Any) -> None:
        """Take in activations [items, units] and their labels [items].

        Raises:
            MeasureError: missing values, or another number of labels or units.
        """
        scores = unit_matrix(activations, "Activations")
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        width = self._parts[0][0].shape[1] if self._parts else scores.shape[1]
        if labels.shape != (len(scores),) or scores.shape[1] != width:
            raise MeasureError(
                f"Expertise got activations {scores.shape} with labels {labels.shape}; give [items, {width}] and "
                "[items]."
            )
        self._parts.append((scores, labels))

    def merge(self, other: "Expertise") -> "Expertise":
        """Return the state of both shards together."""
        joined = Expertise()
        joined._parts = [*self._parts, *other._parts]
        return joined

    def finish(self) -> dict[str, np.ndarray]:
        """Return {"auroc": [units], "average_precision": [units]}.

        Raises:
            MeasureError: nothing was taken in, or a single class.
        """
        if not self._parts:
            raise MeasureError("Expertise has seen no items; update it before finishing.")
        scores, labels = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return {"auroc": auroc(scores, labels), "average_precision": average_precision(scores, labels)}


def _chunks(scores: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the matrix transposed, [units, items], in pieces that bound the memory of a sort."""
    step = max(1, CHUNK // len(scores))
    for i in range(0, scores.shape[1], step):
        yield np.ascontiguousarray(scores[:, i : i + step].T)


def _tie_groups(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, in ascending order of each row, the first and last place of every value's tie group, and the order."""
    order = rows.argsort(1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    new = np.ones(rows.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    start = np.maximum.accumulate(np.where(new, place, 0), 1)
    last = np.ones(rows.shape, bool)
    last[:, :-1] = new[:, 1:]
    end = np.minimum.accumulate(np.where(last, place, rows.shape[1])[:, ::-1], 1)[:, ::-1]
    return start, end, order


def _pairs_of_both(labels: Any, n: int) -> np.ndarray:
    positive = two_classes(labels, n)
    fewest = min(positive.sum(), (~positive).sum())
    if fewest < 2:
        raise MeasureError(f"A class has {fewest} item of {n}; a variance needs at least two of each class.")
    return positive


def _placements(rows: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of negatives below each positive [units, n1], and of positives above each negative [units, n0]."""
    ranks, n1 = mid_ranks(rows), positive.sum()
    ones = (ranks[:, positive] - mid_ranks(rows[:, positive])) / (len(positive) - n1)
    zeros = 1 - (ranks[:, ~positive] - mid_ranks(rows[:, ~positive])) / n1
    return ones, zeros


def _area_and_error(ones: np.ndarray, zeros: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    variance = ones.var(1, ddof=1) / ones.shape[1] + zeros.var(1, ddof=1) / zeros.shape[1]
    return ones.mean(1), np.sqrt(variance)


def _signed_infinity(gap: np.ndarray) -> np.ndarray:
    return np.where(gap == 0, 0.0, np.copysign(np.inf, gap))


def _newcombe(area: np.ndarray, n1: int, n0: int, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds t with |area - t| = z * sqrt(V(t)), V the Hanley-McNeil variance with both sizes averaged (method 5)."""
    extra = (n1 + n0) / 2 - 1

    def inside(t):
        variance = t * (1 - t) * (1 + extra * (1 - t) / (2 - t) + extra * t / (1 + t)) / (n1 * n0)
        return (area - t) ** 2 <= z * z * variance

    bounds = []
    for end in (0.0, 1.0):
        near, far = area.copy(), np.full_like(area, end)
        for _ in range(60):
            middle = (near + far) / 2
            near, far = np.where(inside(middle), middle, near), np.where(inside(middle), far, middle)
        bounds.append(far)
    return bounds[0], bounds[1]
