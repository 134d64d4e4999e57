"""A sketch of every neuron's AUROC in bounded memory, with certified bounds; exact values where it leaves a doubt.

Values are counted by class in K bins, edges taken from the first few hundred items. Pairs in different bins are
decided, pairs in one bin are not, so

    AUROC in [won, won + same],   won = share of pairs with the positive in a higher bin, same = share in one bin

whatever the values inside. A value that fills whole quantiles (the zero of a ReLU) gets a bin of its own: its pairs are
ties, known exactly. Counts add over shards. A sketch saves memory (2 KiB a neuron at K = 256), not time; where all
values fit on disk, `screening` is faster and exact.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import unit_matrix
from microtome.measures.placements import areas, layout

__all__ = ["AurocSketch", "Bounds", "Certified", "certify"]

Batch = tuple[Any, Any]


class Bounds(NamedTuple):
    """Certified bounds of the AUROC of every unit, each [units]."""

    low: np.ndarray
    high: np.ndarray

    @property
    def strength(self) -> "Bounds":
        """Bounds of |AUROC - 1/2|."""
        low = np.maximum(0, np.maximum(self.low - 0.5, 0.5 - self.high))
        return Bounds(low, np.maximum(self.high - 0.5, 0.5 - self.low))


class AurocSketch:
    """Counts by bin and class, as a `Measure`. Make the first with `AurocSketch.calibrated`, its shards with `empty`.

    Args:
        edges: ascending edges of the bins, [units, bins - 1]; a value on an edge is above it.
    """

    def __init__(self, edges: np.ndarray):
        self.edges = edges
        self.counts = np.zeros((len(edges), 2, edges.shape[1] + 1), np.uint32)

    @classmethod
    def calibrated(cls, sample: Any, *, bins: int = 256) -> "AurocSketch":
        """Return an empty sketch with edges at quantiles of a sample.

        Args:
            sample: some of the activations, [items, units]; any sample gives true bounds, a typical one tight bounds.
            bins: how many; more are tighter.

        Raises:
            MeasureError: missing values, or fewer than two bins.
        """
        if bins < 2:
            raise MeasureError(f"A sketch of {bins} bins bounds nothing; give at least 2.")
        sample = unit_matrix(sample, "Calibration sample")
        edges = np.quantile(sample, np.arange(1, bins) / bins, axis=0, method="lower").T
        again = np.zeros(edges.shape, bool)
        again[:, 1:] = edges[:, 1:] == edges[:, :-1]
        return cls(np.sort(np.where(again, np.nextafter(edges, np.inf), edges), 1))

    def empty(self) -> "AurocSketch":
        """Return a sketch with these bins that has seen nothing, for another shard."""
        return AurocSketch(self.edges)

    def update(self, activations: Any, *, labels: Any) -> None:
        """Count activations [items, units] with their labels [items].

        Raises:
            MeasureError: missing values, or another number of labels or units.
        """
        scores = unit_matrix(activations, "Activations")
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        if scores.shape != (len(labels), len(self.edges)) or not np.isin(labels, (0, 1)).all():
            raise MeasureError(
                f"A sketch of {len(self.edges)} units got activations {scores.shape} with {len(labels)} labels; give "
                f"[items, {len(self.edges)}] and a 0 or 1 for each item."
            )
        bins = self.counts.shape[2]
        offset = bins * labels.astype(np.int64)
        for unit, values in enumerate(np.ascontiguousarray(scores.T)):
            keys = self.edges[unit].searchsorted(values, "right") + offset
            self.counts[unit] += np.bincount(keys, minlength=2 * bins).reshape(2, bins).astype(np.uint32)

    def merge(self, other: "AurocSketch") -> "AurocSketch":
        """Return the sketch of both shards together.

        Raises:
            MeasureError: shards with other bins.
        """
        if not np.array_equal(self.edges, other.edges):
            raise MeasureError(
                f"Sketches of {self.edges.shape} and {other.edges.shape} edges have other bins; calibrate once and "
                "make each shard's sketch with empty()."
            )
        joined = self.empty()
        joined.counts = self.counts + other.counts
        return joined

    def finish(self) -> Bounds:
        """Return bounds that hold the exact AUROC of every unit.

        Raises:
            MeasureError: a class without items.
        """
        n = self.counts[:1].sum((0, 2))
        if not n.all():
            raise MeasureError(f"A sketch saw {n[1]} items of class 1 and {n[0]} of class 0; it needs items of both.")
        zeros, ones = self.counts[:, 0].astype(np.float64), self.counts[:, 1].astype(np.float64)
        pairs, same = float(n[0]) * float(n[1]), zeros * ones
        tied = np.zeros(same.shape, bool)
        tied[:, 1:-1] = self.edges[:, 1:] == np.nextafter(self.edges[:, :-1], np.inf)
        won = ((zeros.cumsum(1) - zeros) * ones).sum(1) + (same * tied).sum(1) / 2
        return Bounds(won / pairs, (won + (same * ~tied).sum(1)) / pairs)


class Certified(NamedTuple):
    """Bounds of all units, and the exact values of those that the question needed, each [units].

    Attributes:
        bounds: of the AUROC; both are the exact value where it was computed.
        exact: which units have their exact value.
    """

    bounds: Bounds
    exact: np.ndarray


def certify(
    stream: Callable[[], Iterable[Batch]],
    *,
    threshold: float | None = None,
    top: int | None = None,
    bins: int = 256,
    calibrate: int = 512,
) -> Certified:
    """Return which units pass a threshold, or are the strongest, from two passes over data that are not stored.

    The first pass sketches; the second keeps the values only of units whose bounds straddle the threshold, or that may
    be among the `top` by |AUROC - 1/2|. With neither asked for there is no second pass.

    Args:
        stream: called once a pass; gives the same batches (activations [items, units], labels [items]) each time.
        threshold: every unit's AUROC is to be known to lie above, or not above, this.
        top: the strongest so many units are to be known exactly.
        bins: of the sketch.
        calibrate: items from the beginning to take the edges from.

    Raises:
        MeasureError: an empty stream, missing values, or a single class.
    """
    bounds = _sketched(stream, bins, calibrate).finish()
    low, high = bounds
    open_ = np.zeros(len(low), bool)
    if threshold is not None:
        open_ |= (low <= threshold) & (threshold < high)
    if top is not None:
        least, most = bounds.strength
        open_ |= most >= np.sort(least)[-min(top, len(least))]
    if open_.any():
        kept = [(_columns(x, open_), np.asarray(y)) for x, y in stream()]
        scores, labels = (np.concatenate(part) for part in zip(*kept, strict=True))
        low[open_] = high[open_] = areas(scores.T, layout(labels))
    return Certified(bounds, open_)


def _sketched(stream: Callable[[], Iterable[Batch]], bins: int, calibrate: int) -> AurocSketch:
    """Hold the first batches until there are enough to calibrate on, then count them and all others."""
    held: list[Batch] = []
    sketch = None
    for batch in stream():
        if sketch is None:
            held.append(batch)
            if sum(len(y) for _, y in held) < calibrate:
                continue
        sketch, held = _count(sketch, held or [batch], bins), []
    if sketch is None and not held:
        raise MeasureError("The stream gave no batch; give activations with their labels.")
    return _count(sketch, held, bins)


def _count(sketch: AurocSketch | None, batches: list[Batch], bins: int) -> AurocSketch:
    if sketch is None:
        sample = np.concatenate([unit_matrix(x, "Activations") for x, _ in batches])
        sketch = AurocSketch.calibrated(sample, bins=bins)
    for x, y in batches:
        sketch.update(x, labels=y)
    return sketch


def _columns(activations: Any, chosen: np.ndarray) -> np.ndarray:
    """Return some units' values in the type they came in (bfloat16, which numpy lacks, in float32)."""
    if hasattr(activations, "detach"):
        activations = activations.detach().cpu()
        activations = (activations.float() if str(activations.dtype) == "torch.bfloat16" else activations).numpy()
    return np.asarray(activations)[:, chosen]
