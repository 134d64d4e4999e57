"""How alike a layer represents the same sentences in two languages - and how alike it represents any two sentences.

Hidden states are anisotropic: a direction that all of them share makes every cosine near 1, whatever the text. So:

    raw         cosine of the two languages' mean states (as in arXiv 2408.06273, section 6.2): near 1 for any text
    raw_other   the same over different sentences of the two (one half of them against the other)
    centred     cosine of means after taking off the mean over all languages
    parallel    mean centred cosine of translations            other       of sentences that are no translations
    cka         linear centred kernel alignment, |X'Y|^2 / (|X'X| |Y'Y|)            (Kornblith et al. 2019)
    cka_other   the same with sentences paired wrongly: it is far from 0 where there are few sentences for many units
    retrieval   share of sentences whose nearest neighbour in the other language is their translation, both ways

Translations that are no more alike than other sentences are not represented alike, however high the raw cosine.
Intervals resample sentences, the same for all languages. Cosines of means and CKA are not means over sentences: noise
pushes the former down in a resample, repeated sentences the latter up. So their draws are moved to the whole's value.
With weights w and kernels K = XX', M = YY' the alignment is

    |X'Y|^2 = sum_ij w_i w_j K_ij M_ij - 2 sum_i w_i (Kw)_i (Mw)_i + (w'Kw)(w'Mw)

so that all resamples cost three products of matrices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, percentile_interval

__all__ = ["MEASURES", "Alike", "alike", "alike_pairs", "cka", "retrieval"]

MEASURES = ("raw", "raw_other", "centred", "parallel", "other", "cka", "cka_other", "retrieval")


@dataclass(frozen=True)
class Alike:
    """How alike two languages are at a layer, each number with its interval over sentences.

    Attributes:
        raw: cosine of means.
        raw_other: cosine of means of different sentences.
        centred: cosine of means without what all languages share.
        parallel: mean centred cosine of translations.
        other: mean centred cosine of other sentences, the null of `parallel`.
        cka: linear CKA.
        cka_other: of sentences paired wrongly, its null.
        retrieval: share of translations found, both ways.
    """

    raw: Interval
    raw_other: Interval
    centred: Interval
    parallel: Interval
    other: Interval
    cka: Interval
    cka_other: Interval
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
    counts = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), draws)])
    (_, found), *_ = alike_pairs([x, y], counts, centre=c, rng=rng)
    return Alike(**{k: percentile_interval(float(v[0]), v[1:], n, level=level) for k, v in found.items()})


def alike_pairs(
    states: Sequence[Any], counts: np.ndarray, *, rng: np.random.Generator, centre: Any = None
) -> Iterator[tuple[tuple[int, int], dict[str, np.ndarray]]]:
    """Yield every two languages' numbers with every measure under every resample of the sentences.

    Args:
        states: of the same sentences in each language, each [sentences, d].
        counts: how often each sentence is in each resample, [draws, sentences]; in the first, the whole, once each.
        rng: of which other sentence stands beside each.
        centre: mean state, [d]; None: over these languages and sentences.

    Yields:
        numbers of the languages, and measure (one of `MEASURES`) -> values, [draws].

    Raises:
        MeasureError: shapes that do not fit, missing values, or fewer than three sentences.
    """
    held = [numbers(x, "States", ndim=2) for x in states]
    n = counts.shape[1]
    if len({x.shape for x in held}) != 1 or len(held[0]) != n or n < 3:
        raise MeasureError(
            f"States of {n} sentences (3 or more) in each language were asked for, found "
            f"{[list(x.shape) for x in held][:4]}; give one row for each sentence in all."
        )
    c = np.mean([x.mean(0) for x in held], axis=0) if centre is None else numbers(centre, "Centre", ndim=1)
    order = rng.permutation(n)
    away = np.empty(n, np.int64)
    away[order] = np.roll(order, 1)  # one cycle through all: nobody stays, and it is a permutation
    half = np.isin(np.arange(n), order[: n // 2])
    sides = [_Side(x, c, counts, away, half) for x in held]
    for a, b in combinations(range(len(sides)), 2):
        yield (a, b), _pair(sides[a], sides[b], counts / n, away)


class _Side:
    """One language's share of what every pair needs."""

    def __init__(self, x: np.ndarray, centre: np.ndarray, counts: np.ndarray, away: np.ndarray, half: np.ndarray):
        self.x = x - centre
        size = np.linalg.norm(self.x, axis=1, keepdims=True)
        self.unit = np.divide(self.x, size, out=np.zeros_like(self.x), where=size > 0)
        self.means = _means(counts, x)
        self.centred = _means(counts, self.x)
        self.halves = [_means(counts * part, x) for part in (half, ~half)]
        weights = counts / counts.sum(1, keepdims=True)
        own = x - x.mean(0)
        kernel = own @ own.T
        self.kernel = _Kernel(kernel, weights)
        self.wrongly = _Kernel(kernel[np.ix_(away, away)], weights)


class _Kernel:
    """A kernel under every resample."""

    def __init__(self, k: np.ndarray, w: np.ndarray):
        self.k, self.w, self.kw = k, w, w @ k
        self.wkw = (self.kw * w).sum(1)
        self.own = self.with_(self)

    def with_(self, other: "_Kernel") -> np.ndarray:
        """Return the alignment |X'Y|^2 of two, [draws]."""
        both = ((self.w @ (self.k * other.k)) * self.w).sum(1)
        return both - 2 * (self.w * self.kw * other.kw).sum(1) + self.wkw * other.wkw

    def cka(self, other: "_Kernel") -> np.ndarray:
        """Return linear CKA, [draws]; 0 where one does not vary."""
        size = np.sqrt(np.maximum(self.own, 0) * np.maximum(other.own, 0))
        return np.divide(self.with_(other), size, out=np.zeros_like(size), where=size > 1e-300)


def _pair(a: _Side, b: _Side, weights: np.ndarray, away: np.ndarray) -> dict[str, np.ndarray]:
    cross = a.unit @ b.unit.T
    own = np.arange(len(cross))
    hits = np.mean([cross.argmax(1) == own, cross.argmax(0) == own], axis=0)
    crossed = [_cosines(a.halves[i], b.halves[1 - i]) for i in (0, 1)]
    return {
        "raw": _about_first(_cosines(a.means, b.means)),
        "raw_other": _about_first((crossed[0] + crossed[1]) / 2),
        "centred": _about_first(_cosines(a.centred, b.centred)),
        "parallel": weights @ cross[own, own],
        "other": weights @ cross[own, away],
        "cka": _about_first(a.kernel.cka(b.kernel)),
        "cka_other": _about_first(a.kernel.cka(b.wrongly)),
        "retrieval": weights @ hits,
    }


def _about_first(values: np.ndarray) -> np.ndarray:
    """Return the values with the resamples moved so that their mean is the first, within -1 and 1."""
    if len(values) < 2:
        return values
    return np.r_[values[:1], np.clip(values[1:] - values[1:].mean() + values[0], -1, 1)]


def _means(counts: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the mean state of every resample; 0 where it holds no sentence."""
    return (counts @ x) / np.maximum(counts.sum(1, keepdims=True), 1)


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
    w = np.full((1, len(x)), 1 / len(x))
    kernels = [_Kernel(z @ z.T, w) for z in (x - x.mean(0), y - y.mean(0))]
    return float(kernels[0].cka(kernels[1])[0])


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
