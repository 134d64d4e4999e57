"""Counts by code: the exact AUROC of streams in half precision, for any number of items.

A half, float16 or bfloat16, has 65,536 codes (`codes`), so counts by code and class are a complete summary of a unit:
what comes from them is exact, they add over shards, and do not grow with the items. They take 512 KiB a unit - made for
the few units that a sketch leaves open, or for more than 262,144 items; below that, keeping the values is smaller.
"""

from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.codes import ordered_codes

__all__ = ["CodeCounts", "Counted", "from_counts"]

CODES = 1 << 16


class Counted(NamedTuple):
    """Area, DeLong's error, null error (see `placements`) and average precision of every unit, each [units]."""

    area: np.ndarray
    error: np.ndarray
    null_error: np.ndarray
    precision: np.ndarray


class CodeCounts:
    """How often every unit took each half-precision value in each class, as a `Measure`: exact, in bounded memory.

    Args:
        units: how many there are.
    """

    def __init__(self, units: int):
        self.counts = np.zeros((units, 2, CODES), np.uint32)
        self.kind = ""

    def update(self, activations: Any, *, labels: Any) -> None:
        """Take in activations [items, units], float16 or bfloat16, and their labels [items].

        Raises:
            MeasureError: another type than before, missing values, or another number of labels or units.
        """
        codes = _half_codes(activations)
        kind = str(activations.dtype).removeprefix("torch.")
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        if codes.shape != (len(labels), len(self.counts)) or not np.isin(labels, (0, 1)).all():
            raise MeasureError(
                f"CodeCounts got activations {codes.shape} with {len(labels)} labels; give [items, "
                f"{len(self.counts)}] and a 0 or 1 for each item."
            )
        self._agree(kind)
        keys = codes.T.astype(np.int64) + CODES // 2 + CODES * labels.astype(np.int64)
        for unit, key in enumerate(keys):
            self.counts[unit] += np.bincount(key, minlength=2 * CODES).reshape(2, CODES).astype(np.uint32)

    def _agree(self, kind: str) -> None:
        if self.kind and kind and kind != self.kind:
            raise MeasureError(f"CodeCounts of {self.kind} met {kind}, whose codes differ; give one type throughout.")
        self.kind = self.kind or kind

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        """Return the counts of both shards together.

        Raises:
            MeasureError: shards of other units or another type.
        """
        if self.counts.shape != other.counts.shape:
            raise MeasureError(
                f"CodeCounts of {len(self.counts)} and {len(other.counts)} units do not merge; count the same units."
            )
        joined = CodeCounts(0)
        joined.counts, joined.kind = self.counts + other.counts, self.kind
        joined._agree(other.kind)
        return joined

    def finish(self) -> Counted:
        """Return areas, errors and average precisions, each [units].

        Raises:
            MeasureError: nothing was taken in, or a class with fewer than two items.
        """
        n0, n1 = self.counts[:1].sum((0, 2)).tolist()
        if min(n0, n1) < 2:
            raise MeasureError(f"CodeCounts saw {n1} items of class 1 and {n0} of 0; give at least two of each.")
        parts = [from_counts(unit[None, 0], unit[None, 1]) for unit in self.counts]
        return Counted(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def from_counts(zeros: np.ndarray, ones: np.ndarray) -> Counted:
    """Return what counts in ordered bins say of every unit, values of one bin taken as tied.

    Args:
        zeros: how many negatives each bin holds, [units, bins].
        ones: how many positives, the same shape.
    """
    zeros, ones = np.asarray(zeros, np.float64), np.asarray(ones, np.float64)
    n0, n1 = zeros.sum(1), ones.sum(1)
    below = (zeros.cumsum(1) - zeros / 2) / n0[:, None]
    above = 1 - (ones.cumsum(1) - ones / 2) / n1[:, None]
    area = (below * ones).sum(1) / n1
    variance = _spread(below, ones) / n1 + _spread(above, zeros) / n0
    n, together = n0 + n1, zeros + ones
    null = n1 * n0 / 12 * (n + 1 - (together**3 - together).sum(1) / (n * (n - 1)))
    reach = [x[:, ::-1].cumsum(1)[:, ::-1] for x in (ones, together)]
    precision = (ones * reach[0] / np.maximum(reach[1], 1)).sum(1) / n1
    return Counted(area, np.sqrt(variance), np.sqrt(np.maximum(null, 0)) / (n1 * n0), precision)


def _spread(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Variance (ddof 1) of values that occur so often."""
    n = counts.sum(1, keepdims=True)
    mean = (values * counts).sum(1, keepdims=True) / n
    return ((values - mean) ** 2 * counts).sum(1) / (n[:, 0] - 1)


def _half_codes(values: Any) -> np.ndarray:
    codes = ordered_codes(values)
    if codes.dtype != np.int16:
        found = getattr(values, "dtype", type(values).__name__)
        raise MeasureError(f"Activations of {found} cannot be counted by code; give float16 or bfloat16.")
    return codes
