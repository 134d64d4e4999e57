"""Principal axes of an ordered table of embeddings, in numpy and float64: what geometry, helix and replacement share.

All axes of a few hundred rows, by one singular value decomposition, each with a sign that the caller can fix. (For
axes of a stream of activations, see `microtome.features.pca`.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers

__all__ = ["Principal", "block_rows", "in_order", "principal"]


@dataclass(frozen=True, eq=False)
class Principal:
    """Principal axes of the rows of a matrix.

    Args:
        mean: [d].
        components: orthonormal rows by falling variance, [k, d].
        variance: along each, [k] (n in the denominator).
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Share of the variance along each component, [k]."""
        return self.variance / self.variance.sum()

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the coordinates of rows [..., d], [..., k]."""
        return (x - self.mean) @ self.components.T

    def restore(self, scores: np.ndarray) -> np.ndarray:
        """Return the rows that the first coordinates [..., j <= k] stand for, [..., d]; the others are taken as 0."""
        return self.mean + scores @ self.components[: scores.shape[-1]]


def principal(embedding: Any, *, along: Any = None) -> Principal:
    """Return all principal axes of an embedding's rows.

    Args:
        embedding: [items, d], trained rows only.
        along: a number for each row, [items]; every axis points to where it rises. None: an axis's largest entry is
            positive.

    Raises:
        MeasureError: missing values, fewer than two rows, or rows that are all the same.
    """
    x = numbers(embedding, "Embedding", ndim=2)
    if len(x) < 2 or np.ptp(x, axis=0).max() == 0:
        raise MeasureError(f"Principal axes of {len(x)} rows that do not vary are undefined; give rows that differ.")
    mean = x.mean(0)
    left, s, axes = np.linalg.svd(x - mean, full_matrices=False)
    alive = s > max(x.shape) * np.finfo(float).eps * s[0]
    left, s, axes = left[:, alive], s[alive], axes[alive]
    towards = axes[np.arange(len(axes)), np.abs(axes).argmax(1)]
    if along is not None:
        along = numbers(along, "Order", ndim=1, length=len(x))
        towards = (along - along.mean()) @ left
    return Principal(mean, np.where(towards < 0, -1.0, 1.0)[:, None] * axes, s**2 / len(x))


def in_order(values: Any, order: Any, *, least: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return values [items, k] and their order [items], sorted by it.

    Raises:
        MeasureError: shapes that do not fit, missing values, a number that occurs twice, or fewer than `least` items.
    """
    x = numbers(values, "Embedding", ndim=2)
    n = numbers(order, "Order", ndim=1, length=len(x))
    if len(n) < least:
        raise MeasureError(f"An ordered embedding of {len(n)} items was given; at least {least} are needed.")
    place = n.argsort(kind="stable")
    x, n = x[place], n[place]
    if (twice := np.flatnonzero(np.diff(n) == 0)).size:
        raise MeasureError(f"Order {n[twice[0]]:g} stands for more than one of {len(n)} rows; give each its own.")
    return x, n


def block_rows(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of each resample in circular blocks of neighbours, [draws, n] (Politis & Romano 1992)."""
    length = int(np.ceil(n ** (1 / 3)))
    starts = rng.integers(0, n, (draws, -(-n // length)))
    return ((starts[..., None] + np.arange(length)) % n).reshape(draws, -1)[:, :n]
