"""Placements: where each item of one class falls among the other, and all that a ranking says, from one sort.

    area        pairs won / pairs, over all pairs of a positive and a negative; a tie is half won (Mann-Whitney)
    stratified  the same over pairs within a stratum only: strata weigh n1_b n0_b, items of one-class strata drop out
    error       DeLong's (1988), from the variance of the placements; strata add in quadrature
    null error  of the area when labels are exchangeable within strata, corrected for ties (van Elteren's test)
    precision   average precision: precision at each distinct score, weighted by the recall it adds; over all items

Units are rows, [units, items], read in chunks (memory maps stay on disk). Each row is turned into ordered codes with
its stratum above them, both classes are sorted, and the positives are searched for among the negatives: counts are
whole numbers, so areas are exact. Errors need no second sort.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, two_classes
from microtome.measures.codes import ordered_codes

__all__ = ["Layout", "Placed", "areas", "layout", "placed", "precisions"]

T = TypeVar("T")

READ = 1 << 24  # values read at a time
CHUNK = 1 << 19  # values sorted at a time: what fits a cache


class Placed(NamedTuple):
    """What placements say of every unit, each [units].

    Attributes:
        area: AUROC, within strata where there are some.
        error: DeLong's standard error of it; 0 under perfect separation.
        null_error: standard error of the area if labels were exchangeable; 0 for a constant unit.
    """

    area: np.ndarray
    error: np.ndarray
    null_error: np.ndarray


class _Class(NamedTuple):
    """The items of one class, stratum by stratum, and the count in each stratum."""

    items: np.ndarray
    stratum: np.ndarray
    counts: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum(self.counts) - self.counts


class Layout(NamedTuple):
    """Who is compared with whom; made once for all units by `layout`.

    Attributes:
        ones: items of class 1.
        zeros: items of class 0.
        share: share of all pairs of a positive and a negative that are within a stratum.
    """

    ones: _Class
    zeros: _Class
    share: float

    @property
    def pairs(self) -> np.ndarray:
        """Pairs within each stratum."""
        return self.ones.counts * self.zeros.counts


def layout(labels: Any, *, strata: Any = None, items: Any = None) -> Layout:
    """Return the pairs to compare.

    Args:
        labels: 0 or 1 per item.
        strata: a label per item; only items of one stratum are compared. None: all are.
        items: indices of the items to use; None: all.

    Raises:
        MeasureError: a single class, labels that do not fit, or no stratum with both classes.
    """
    labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    codes = group_codes(strata, len(labels), "Strata")
    items = np.arange(len(labels)) if items is None else np.asarray(items)
    positive, codes = two_classes(labels[items], len(items)), codes[items]
    both = np.intersect1d(codes[positive], codes[~positive])
    if not len(both):
        raise MeasureError(
            f"None of the {len(np.unique(codes))} strata holds both classes, so nothing can be compared within one; "
            "give coarser strata."
        )
    kept = np.isin(codes, both)
    codes = np.searchsorted(both, codes)
    ones, zeros = (_class(items[kept & side], codes[kept & side], len(both)) for side in (positive, ~positive))
    pairs = (ones.counts * zeros.counts).sum()
    return Layout(ones, zeros, float(pairs / (positive.sum() * (~positive).sum())))


def _class(items: np.ndarray, codes: np.ndarray, strata: int) -> _Class:
    order = codes.argsort(kind="stable")
    return _Class(items[order], codes[order], np.bincount(codes, minlength=strata))


def areas(rows: Any, design: Layout) -> np.ndarray:
    """Return the area of every unit, [units]: the cheap part of `placed`.

    Args:
        rows: [units, items], array, memory map or tensor.
        design: from `layout`.

    Raises:
        MeasureError: missing values or another shape.
    """
    return np.concatenate(_each(rows, design, lambda ones, zeros: _area(*_search(ones, zeros), design)))


def placed(rows: Any, design: Layout) -> Placed:
    """Return the area of every unit with its errors.

    Args:
        rows: [units, items], array, memory map or tensor.
        design: from `layout`.

    Raises:
        MeasureError: missing values or another shape.
    """
    if len(design.ones.items) < 2 or len(design.zeros.items) < 2:
        raise MeasureError(
            f"Classes of {len(design.ones.items)} and {len(design.zeros.items)} items have no variance; give at least "
            "two of each."
        )

    def place(ones: np.ndarray, zeros: np.ndarray) -> Placed:
        left, right = _search(ones, zeros)
        null = _null_error(right - left, _runs(ones)[1], _runs(zeros)[1], design)
        return Placed(_area(left, right, design), _error(left, right, design), null)

    return Placed(*(np.concatenate(part) for part in zip(*_each(rows, design, place), strict=True)))


def precisions(rows: Any, design: Layout) -> np.ndarray:
    """Return the average precision of every unit, [units]; a constant unit has the share of positives.

    Args:
        rows: [units, items], array, memory map or tensor; high means positive.
        design: from `layout`, without strata.

    Raises:
        MeasureError: missing values, another shape, or strata.
    """
    if len(design.pairs) > 1:
        raise MeasureError(f"Average precision within {len(design.pairs)} strata is not defined; lay out without them.")
    n1, n0 = len(design.ones.items), len(design.zeros.items)

    def precision(ones: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        own = n1 - _runs(ones)[0]
        return (own / (own + n0 - _search(ones, zeros)[0])).mean(1)

    return np.concatenate(_each(rows, design, precision))


def _each(rows: Any, design: Layout, compute: Callable[[np.ndarray, np.ndarray], T]) -> list[T]:
    """Return what is computed from the sorted keys of positives and negatives, [units, n1] and [units, n0], by chunks.

    What is read at a time is sorted in pieces, as many at once as there are threads (sorting frees the interpreter).
    """
    shape = tuple(getattr(rows, "shape", np.shape(rows)))
    needed = 1 + max(design.ones.items.max(), design.zeros.items.max())
    if len(shape) != 2 or not shape[0] or shape[1] < needed:
        raise MeasureError(f"Activations have shape {list(shape)}; give [units, items] with {needed} items.")
    read, step = max(1, READ // shape[1]), max(1, CHUNK // shape[1])
    found = []
    with ThreadPoolExecutor(_threads()) as pool:
        for i in range(0, shape[0], read):
            block = rows[i : i + read]

            def piece(j: int, i: int = i, block: Any = block) -> T:
                part = block[j : j + step]
                codes = ordered_codes(part, f"Activations of units {i + j}-{i + j + len(part) - 1}")
                keys = _keys(codes, len(design.pairs))
                return compute(_sorted(keys, design.ones), _sorted(keys, design.zeros))

            found += pool.map(piece, range(0, len(block), step))
    return found


def _threads() -> int:
    """Return how many threads may sort: as many as OpenMP is told to take, else one a processor."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else there


def _keys(codes: np.ndarray, strata: int) -> np.ndarray:
    """Codes in a type with room for a stratum above them; 64-bit ones become dense ranks first."""
    if strata == 1:
        return codes
    if codes.dtype == np.int64:
        codes = np.stack([np.unique(row, return_inverse=True)[1].reshape(-1) for row in codes]).astype(np.int32)
    return codes.astype(np.int32 if codes.dtype == np.int16 and strata < 1 << 15 else np.int64)


def _sorted(keys: np.ndarray, side: _Class) -> np.ndarray:
    own = keys[:, side.items]
    if len(side.counts) > 1:
        own += side.stratum.astype(keys.dtype) << (8 * keys.dtype.itemsize // 2)
    own.sort(1)
    return own


def _search(ones: np.ndarray, zeros: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Negatives below, and not above, each positive."""
    left, right = np.empty(ones.shape, np.int64), np.empty(ones.shape, np.int64)
    for unit, (one, zero) in enumerate(zip(ones, zeros, strict=True)):
        left[unit] = zero.searchsorted(one, "left")
        right[unit] = zero.searchsorted(one, "right")
    return left, right


def _area(left: np.ndarray, right: np.ndarray, design: Layout) -> np.ndarray:
    earlier = int((design.zeros.starts * design.ones.counts).sum())
    return (left.sum(1) + right.sum(1) - 2 * earlier) / (2 * design.pairs.sum())


def _error(left: np.ndarray, right: np.ndarray, design: Layout) -> np.ndarray:
    """DeLong's error by stratum; a stratum with one item of a class has the variance of the null."""
    ones, zeros = design.ones, design.zeros
    n1, n0, units = ones.counts, zeros.counts, len(left)
    below = (left + right) / 2 - zeros.starts[ones.stratum]
    width = len(zeros.items) + 1
    reached = sum(
        np.bincount((x + width * np.arange(units)[:, None]).ravel(), minlength=units * width).reshape(units, width)
        for x in (left, right)
    ).cumsum(1)[:, :-1]
    above = len(ones.items) - reached / 2 - (len(ones.items) - (ones.starts + n1))[zeros.stratum]
    variance = _spread(below / n0[ones.stratum], ones) / n1 + _spread(above / n1[zeros.stratum], zeros) / n0
    alone = np.minimum(n1, n0) < 2
    variance[:, alone] = ((n1 + n0 + 1) / (12 * n1 * n0))[alone]
    return np.sqrt((variance * design.pairs**2).sum(1)) / design.pairs.sum()


def _spread(values: np.ndarray, side: _Class) -> np.ndarray:
    """Variance (ddof 1) of the values in each stratum, [units, strata]."""
    means = np.add.reduceat(values, side.starts, 1) / side.counts
    squares = (values - means[:, side.stratum]) ** 2
    return np.add.reduceat(squares, side.starts, 1) / np.maximum(side.counts - 1, 1)


def _null_error(equal: np.ndarray, own: np.ndarray, other: np.ndarray, design: Layout) -> np.ndarray:
    """By stratum n1 n0 / 12 * (n + 1 - sum(t^3 - t) / (n (n - 1))) pairs squared, t the sizes of the groups of ties.

    With a negatives and b positives in a group, (a + b)^3 is summed as a^2 over its negatives and 3 a^2 + 3 a b + b^2
    over its positives.
    """
    ones, zeros = design.ones, design.zeros
    equal, own, other = equal.astype(np.float64), own.astype(np.float64), other.astype(np.float64)
    cubes = np.add.reduceat(3 * equal * (equal + own) + own**2, ones.starts, 1)
    cubes += np.add.reduceat(other**2, zeros.starts, 1)
    n = ones.counts + zeros.counts
    variance = design.pairs / 12 * (n + 1 - (cubes - n) / (n * (n - 1)))
    return np.sqrt(np.maximum(variance, 0).sum(1)) / design.pairs.sum()


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first place and the length of the run of equal keys that each entry of sorted rows is in."""
    new = np.ones(rows.shape, bool)
    new[:, 1:] = rows[:, 1:] != rows[:, :-1]
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=rows.size)
    first = np.repeat(starts % rows.shape[1], lengths).reshape(rows.shape)
    return first, np.repeat(lengths, lengths).reshape(rows.shape)
