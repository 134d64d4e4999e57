"""How alike a layer represents the same sentences in two languages - and how alike it represents any two sentences.

Hidden states are anisotropic: a direction that all of them share makes every cosine near 1, whatever the text. So:

    raw         cosine of the two languages' mean states (as in arXiv 2408.06273, section 6.2): near 1 for any text
    centred     the same after taking off the mean over all languages
    parallel    mean centred cosine of translations            non-parallel   of sentences that are no translations
    CKA         linear centred kernel alignment, |X'Y|^2 / (|X'X| |Y'Y|)            (Kornblith et al. 2019)
    retrieval   share of sentences whose nearest neighbour in the other language is their translation, both ways

Translations that are no more alike than other sentences are not represented alike, however high the raw cosine.
Intervals resample sentences, the same for both languages.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, percentile_interval

__all__ = ["Alike", "alike", "cka", "retrieval"]


@dataclass(frozen=True)
class Alike:
    """How alike two languages are at a layer, each number with its interval over sentences.

    Attributes:
        raw: cosine of means.
        centred: cosine of means without what all languages share.
        parallel: mean centred cosine of translations.
        other: mean centred cosine of other sentences, the null of `parallel`.
        cka: linear CKA.
        retrieval: share of translations found, both ways.
    """

    raw: Interval
    centred: Interval
    parallel: Interval
    other: Interval
    cka: Interval
    retrieval: Interval


def alike(
    first: Any, second: Any, centre: Any, *, rng: np.random.Generator, draws: int = 200, level: float = 0.95
) -> Alike:
    """Return how alike two languages are at one layer.

    Args:
        first: states of sentences in one language, [sentences, d].
        second: of their translations, in order, [sentences, d].
        centre: mean state over all languages and sentences, [d].
        rng: of the resamples, and of which other sentence stands beside each.
        draws: resamples of the sentences.
        level: of the intervals.

    Raises:
        MeasureError: shapes that do not fit, missing values, or fewer than three sentences.
    """
    x, y = numbers(first, "States", ndim=2), numbers(second, "States", ndim=2)
    c = numbers(centre, "Centre", ndim=1)
    if x.shape != y.shape or x.shape[1:] != c.shape or len(x) < 3:
        raise MeasureError(
            f"States of at least 3 sentences and their translations were asked for, found {list(x.shape)}, "
            f"{list(y.shape)} and a centre {list(c.shape)}; give one row for each sentence in both."
        )
    n = len(x)
    away = (np.arange(n) + rng.integers(1, n, n)) % n
    xc, yc = x - c, y - c
    paired, apart = _cosines(xc, yc), _cosines(xc, yc[away])
    found, back = _nearest(xc, yc), _nearest(yc, xc)
    hits = np.mean([found == np.arange(n), back == np.arange(n)], axis=0)
    counts = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), draws)])
    weights = counts / n

    def told(values: np.ndarray) -> Interval:
        return percentile_interval(float(values[0]), values[1:], n, level=level)

    means = weights @ x, weights @ y
    return Alike(
        raw=told(_cosines(*means)),
        centred=told(_cosines(means[0] - c, means[1] - c)),
        parallel=told(weights @ paired),
        other=told(weights @ apart),
        cka=told(np.array([_weighted_cka(x, y, w) for w in counts])),
        retrieval=told(weights @ hits),
    )


def cka(first: Any, second: Any) -> float:
    """Return the linear CKA of two matrices of the same items, [items, d] and [items, e].

    Raises:
        MeasureError: another number of items, missing values, or a matrix whose rows are all the same.
    """
    x, y = numbers(first, "Features", ndim=2), numbers(second, "Features", ndim=2)
    if len(x) != len(y):
        raise MeasureError(f"CKA of {len(x)} and {len(y)} items was asked for; give the same items in both.")
    if np.ptp(x, axis=0).max() == 0 or np.ptp(y, axis=0).max() == 0:
        raise MeasureError(f"CKA of {len(x)} items was asked for, found features that do not vary; give others.")
    return _weighted_cka(x, y, np.ones(len(x)))


def retrieval(first: Any, second: Any) -> float:
    """Return the share of rows whose nearest row in the other matrix, by cosine, is their own, both ways.

    Raises:
        MeasureError: shapes that do not fit, or missing values.
    """
    x, y = numbers(first, "States", ndim=2), numbers(second, "States", ndim=2)
    if x.shape != y.shape:
        raise MeasureError(
            f"Retrieval between {list(x.shape)} and {list(y.shape)} was asked for; give rows that pair up."
        )
    own = np.arange(len(x))
    return float(((_nearest(x, y) == own).mean() + (_nearest(y, x) == own).mean()) / 2)


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.divide((x * y).sum(-1), size, out=np.zeros(x.shape[:-1]), where=size > 0)


def _nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    unit = [z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300) for z in (x, y)]
    return (unit[0] @ unit[1].T).argmax(1)


def _weighted_cka(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> float:
    """Return CKA of items that occur `counts` times."""
    w = counts / counts.sum()
    xw, yw = (np.sqrt(w)[:, None] * (z - w @ z) for z in (x, y))
    cross, own, other = (np.square(a.T @ b).sum() for a, b in ((xw, yw), (xw, xw), (yw, yw)))
    return float(cross / max(np.sqrt(own * other), 1e-300))
