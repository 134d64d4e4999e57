"""Fourier planes of a cyclic embedding: which frequencies of Z_p a table of embeddings turns with.

A network that adds modulo p embeds n as cos and sin of 2 pi k n / p for a few k, one plane for each, and its principal
components mix those planes (arXiv 2405.17425, section on modular addition; arXiv 2301.05217). So look at the planes:

    F_k = 1/p sum_n E_n exp(-2 pi i k n / p)        power_k = |F_k|^2 + |F_-k|^2, and shares of their sum

Null: rows shuffled, the largest share over all frequencies (Westfall & Young 1993), so that p holds for all at once.
The shares of one table sum to 1: where a few frequencies take nearly all, the others seem weaker than they are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.multiplicity import family_wise
from microtome.measures.principal import in_order, principal

__all__ = ["FourierPlanes", "fourier_planes"]

CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class FourierPlanes:
    """The frequencies 1 .. p // 2 of a cyclic embedding.

    Args:
        share: of the variance along each frequency's plane, [frequencies].
        roundness: shortest over longest axis of the ellipse drawn there, [frequencies]: 1 a circle, 0 a line.
        p: chance that shuffled rows reach this share at any frequency, [frequencies].
        found: frequencies whose p is at most alpha, strongest first.
        chance: the 95 % quantile of the largest share of shuffled rows.
        centred: the rows without their mean, [p, d].
    """

    share: np.ndarray
    roundness: np.ndarray
    p: np.ndarray
    found: tuple[int, ...]
    chance: float
    centred: np.ndarray

    def plane(self, frequency: int) -> np.ndarray:
        """Return the rows' coordinates on the orthonormal plane of a frequency, [p, 2].

        Raises:
            MeasureError: no such frequency.
        """
        if not 1 <= frequency <= len(self.share):
            raise MeasureError(f"Frequency {frequency} of {len(self.share)} was asked for; they begin at 1.")
        axes = np.linalg.svd(_waves(self.centred, frequency), full_matrices=False)[2]
        return self.centred @ axes.T


def fourier_planes(
    embedding: Any, order: Any = None, *, rng: np.random.Generator, alpha: float = 0.05, draws: int = 999
) -> FourierPlanes:
    """Return how much of a cyclic embedding turns with each frequency.

    Args:
        embedding: a row for every element of Z_p, [p, d].
        order: which element each row stands for, 0 .. p - 1 (or any p whole numbers that follow each other). None: in
            order.
        rng: of the shuffles.
        alpha: level of the frequencies called found.
        draws: number of shuffles.

    Raises:
        MeasureError: missing values, rows that do not vary, fewer than four, or elements left out.

    Example:
        >>> turn = 2 * np.pi * 3 * np.arange(17) / 17
        >>> fourier_planes(np.stack([np.cos(turn), np.sin(turn)], 1), rng=np.random.default_rng(0)).found
        (3,)
    """
    rows = len(embedding)
    x, n = in_order(embedding, np.arange(rows) if order is None else order)
    if (np.diff(n) != 1).any():
        raise MeasureError(
            f"Fourier planes of {len(n)} rows from {n[0]:g} to {n[-1]:g}: elements are missing between them; give a "
            "row for each element of the cycle."
        )
    axes = principal(x)
    scores = axes.scores(x)
    share = _shares(scores[None])[0]
    step = max(1, CHUNK // scores.size)
    maxima = np.concatenate(
        [
            _shares(np.stack([rng.permutation(scores) for _ in range(min(step, draws - start))])).max(1)
            for start in range(0, draws, step)
        ]
    )
    p = family_wise(share, maxima)
    ranked = share.argsort()[::-1]
    return FourierPlanes(
        share=share,
        roundness=np.array([_roundness(_waves(x - axes.mean, k + 1)) for k in range(len(share))]),
        p=p,
        found=tuple(int(k) + 1 for k in ranked if p[k] <= alpha),
        chance=float(np.quantile(maxima, 0.95)),
        centred=x - axes.mean,
    )


def _shares(tables: np.ndarray) -> np.ndarray:
    """Return the share of variance at each frequency from 1 up, [tables, p, d] -> [tables, p // 2]."""
    p = tables.shape[1]
    power = np.square(np.abs(np.fft.rfft(tables, axis=1)[:, 1:])).sum(-1)
    power[:, : (p - 1) // 2] *= 2
    return power / power.sum(1, keepdims=True)


def _waves(centred: np.ndarray, frequency: int) -> np.ndarray:
    """Return the embedding's cos and sin parts at a frequency, [2, d]."""
    turn = 2 * np.pi * frequency * np.arange(len(centred)) / len(centred)
    return 2 / len(centred) * np.stack([np.cos(turn), np.sin(turn)]) @ centred


def _roundness(waves: np.ndarray) -> float:
    size = np.linalg.svd(waves, compute_uv=False)
    return float(size[1] / size[0]) if len(size) > 1 and size[0] > 0 else 0.0
