"""LEACE's rank: how many dimensions of a layer are linearly tied to some labels (arXiv 2306.03819).

LEACE erases the range of the cross-covariance of whitened features with the labels; its singular values are canonical
correlations. Any finite sample has as many above 0 as there are labels, so those count that exceed shuffled labels'.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import unit_matrix

__all__ = ["LeaceRank", "leace_rank", "whitening"]


@dataclass(frozen=True, eq=False)
class LeaceRank:
    """How many dimensions of a layer LEACE would have to erase.

    Args:
        rank: correlations above what shuffled labels reach (95 % of the time).
        correlations: between whitened features and whitened labels, falling, [min(d, labels)]; the number of those
            above 0 is the rank that LEACE erases, noise included.
        chance: the 95 % quantile of the largest one over shuffles.
    """

    rank: int
    correlations: np.ndarray
    chance: float


def leace_rank(features: Any, labels: Any, *, rng: np.random.Generator, draws: int = 100) -> LeaceRank:
    """Return the canonical correlations of features and labels, and how many exceed chance.

    One binary label has rank 1 at most; kinds of toxicity, one column each, may need more.

    Args:
        features: [items, d].
        labels: [items] or [items, kinds], 0 or 1 (or any number).
        rng: of the shuffles.
        draws: shuffles of the items' labels.

    Raises:
        MeasureError: missing values, another number of items, or constant labels.
    """
    x, z = unit_matrix(features, "Features"), unit_matrix(labels, "Labels")
    if len(x) != len(z) or (z == z[0]).all():
        raise MeasureError(
            f"LEACE's rank of {len(x)} items with labels {list(z.shape)}; give a row of labels for each, not all equal."
        )
    parts = []
    for part in (x, z):
        basis, scale = whitening(part)
        parts.append((part - part.mean(0)) @ (basis * scale) / np.sqrt(len(part)))
    white, target = parts

    def correlations(order: np.ndarray) -> np.ndarray:
        return np.linalg.svd(white.T @ target[order], compute_uv=False)

    found = correlations(np.arange(len(x)))
    chance = float(np.quantile([correlations(rng.permutation(len(x)))[0] for _ in range(draws)], 0.95))
    return LeaceRank(int((found > chance).sum()), found, chance)


def whitening(x: np.ndarray, shrinkage: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Return axes of the total covariance, [d, r], and the inverse standard deviations along them, [r].

    Args:
        x: [items, d].
        shrinkage: share of each variance that is replaced by their mean.
    """
    _, s, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = s > 1e-9 * s[0]
    variance = s[kept] ** 2 / len(x)
    return axes[kept].T, 1 / np.sqrt((1 - shrinkage) * variance + shrinkage * variance.mean())
