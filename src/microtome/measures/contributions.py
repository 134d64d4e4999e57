"""What the components of a penultimate layer contribute to a prediction, and which known terms they resemble.

A linear readout w of features H with principal components v_k splits its prediction exactly into

    prediction = constant + sum_k contribution_k,        contribution_k = scale (H - mean) v_k (v_k w)

(arXiv 2405.17425 and sNuCLR's notebook; section 6.7 of our specification). Contributions are ranked by mean size, not
by the variance of the feature: a large component that the readout ignores contributes nothing.

Terms of a formula are collinear (volume and surface of a nucleus: 0.99), so one cosine matrix says little. Beside the
plain cosines of centred contribution and term (Pearson's r) stand: those with each term's part that the terms before it
do not span (Gram-Schmidt, in the order given); partial correlations given all other terms; and a one-to-one matching
that gives no component to two terms (Hungarian method on |cosine|). Two nulls, each matched anew and compared with the
rank of its pairs: items shuffled, which asks if there is anything at all; and the contributions' span turned at random,
which asks whether the principal axes are better than any other axes of the same span. Smooth terms pass the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.principal import principal

__all__ = ["Contributions", "Match", "TermMatch", "match_terms", "penultimate_contributions"]


@dataclass(frozen=True, eq=False)
class Contributions:
    """A prediction taken apart along the principal components of the features it is read from.

    Args:
        values: contributions by falling mean size, [items, k].
        component: which principal component each is, from 0, [k].
        explained: share of the features' variance of each, [k].
        constant: what no component contributes: readout of the mean, bias and offset.
    """

    values: np.ndarray
    component: np.ndarray
    explained: np.ndarray
    constant: float

    @property
    def size(self) -> np.ndarray:
        """Mean absolute contribution of each, [k]."""
        return np.abs(self.values).mean(0)

    @property
    def prediction(self) -> np.ndarray:
        """What they add up to, [items]."""
        return self.constant + self.values.sum(1)

    def first(self, k: int) -> np.ndarray:
        """Return the prediction from the k largest contributions alone, [items]."""
        return self.constant + self.values[:, :k].sum(1)


def penultimate_contributions(
    features: Any, weight: Any, *, bias: float = 0.0, scale: float = 1.0, offset: float = 0.0
) -> Contributions:
    """Return the contributions of the features' principal components to scale (features @ weight + bias) + offset.

    Args:
        features: what the readout reads, [items, d].
        weight: one output's weights, [d].
        bias: the readout's.
        scale: physical units for one unit of output (the spread a target was divided by).
        offset: physical value of output 0 (the mean a target was shifted by).

    Raises:
        MeasureError: shapes that do not fit, missing values, or features that do not vary.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> bool(np.allclose(penultimate_contributions(x, np.ones(4), bias=2).prediction, x.sum(1) + 2))
        True
    """
    x = numbers(features, "Features", ndim=2)
    w = numbers(weight, "Readout weight", ndim=1, length=x.shape[1])
    axes = principal(x)
    values = scale * axes.scores(x) * (axes.components @ w)
    rank = np.abs(values).mean(0).argsort(kind="stable")[::-1]
    return Contributions(values[:, rank], rank, axes.explained[rank], float(scale * (axes.mean @ w + bias) + offset))


@dataclass(frozen=True)
class Match:
    """A term and the contribution that a one-to-one matching gives it.

    Args:
        term: name of the term.
        contribution: place of the contribution, from 0.
        cosine: with its interval over resampled items.
        orthogonal: cosine with the part of the term that the terms before it do not span.
        partial: correlation given all the other terms.
        p_shuffled: chance that shuffled items reach a pair of this rank.
        p_turned: chance that a random turn of the contributions' span reaches a pair of this rank.
    """

    term: str
    contribution: int
    cosine: Interval
    orthogonal: float
    partial: float
    p_shuffled: float
    p_turned: float


@dataclass(frozen=True, eq=False)
class TermMatch:
    """How contributions and terms resemble each other.

    Args:
        terms: their names.
        cosine: [contributions, terms].
        orthogonal: with each term's part that those before it do not span, [contributions, terms].
        partial: given all other terms, [contributions, terms].
        remaining: share of each term's variance that the terms before it do not span, [terms]; its orthogonal cosines
            are 0 where nothing remains.
        explained: R2 of each term from all contributions, [terms].
        matches: the one-to-one matching, by falling |cosine|.
    """

    terms: tuple[str, ...]
    cosine: np.ndarray
    orthogonal: np.ndarray
    partial: np.ndarray
    remaining: np.ndarray
    explained: np.ndarray
    matches: tuple[Match, ...]


def match_terms(
    contributions: Any,
    terms: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    draws: int = 199,
    level: float = 0.95,
) -> TermMatch:
    """Return which contribution resembles which term, beyond what collinear terms and any axes would.

    Args:
        contributions: [items, k], such as the first 30 of `Contributions.values`.
        terms: name -> [items]; the order is that of Gram-Schmidt, so put what is known first.
        rng: of shuffles, turns and resamples.
        draws: of each.
        level: of the intervals.

    Raises:
        MeasureError: shapes that do not fit, missing values, no term, or a contribution or term that does not vary.
    """
    a = numbers(contributions, "Contributions", ndim=2)
    if not terms:
        raise MeasureError("A match with 0 terms was asked for; give at least one.")
    t = np.stack([numbers(v, f"Term '{name}'", ndim=1, length=len(a)) for name, v in terms.items()], 1)
    names = tuple(terms)
    a, t = _unit(a, [f"contribution {k}" for k in range(a.shape[1])]), _unit(t, [f"term '{name}'" for name in names])
    cosine = a.T @ t
    orthogonal, remaining = _gram_schmidt(t)
    partial = _partial(a, t)
    pairs = _matched(cosine)
    sizes = np.abs(cosine)[pairs]
    span = np.linalg.svd(a, full_matrices=False)
    span = span[0][:, span[1] > 1e-9 * span[1][0]]
    nulls = _shuffled(a, t, draws, rng), _turned(span.T @ t, len(sizes), draws, rng)
    p = [(1 + (null >= sizes - 1e-12).sum(0)) / (1 + draws) for null in nulls]
    intervals = _intervals(a[:, pairs[0]], t[:, pairs[1]], draws, rng, level)
    matches = tuple(
        Match(
            term=names[j],
            contribution=int(k),
            cosine=intervals[i],
            orthogonal=float(a[:, k] @ orthogonal[:, j]),
            partial=float(partial[k, j]),
            p_shuffled=float(p[0][i]),
            p_turned=float(p[1][i]),
        )
        for i, (k, j) in enumerate(zip(*pairs, strict=True))
    )
    explained = np.square(span.T @ t).sum(0)
    return TermMatch(names, cosine, a.T @ orthogonal, partial, remaining, explained, matches)


def _unit(x: np.ndarray, what: list[str]) -> np.ndarray:
    """Return centred columns of length 1."""
    centred = x - x.mean(0)
    size = np.linalg.norm(centred, axis=0)
    if (still := np.flatnonzero(size <= 1e-12 * np.abs(x).max(0) * np.sqrt(len(x)))).size:
        raise MeasureError(f"A match was asked for, {what[still[0]]} does not vary; leave it out.")
    return centred / size


def _gram_schmidt(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit columns without what earlier ones span (0 where nothing is left), and the share that was left."""
    free, left = np.zeros_like(t), np.zeros(t.shape[1])
    for j, column in enumerate(t.T):
        for _ in range(2):
            column = column - free[:, :j] @ (free[:, :j].T @ column)
        left[j] = column @ column
        if left[j] > 1e-12:
            free[:, j] = column / np.sqrt(left[j])
    return free, left


def _partial(a: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the correlation of each contribution with each term given the other terms, [k, terms]."""
    found = np.zeros((a.shape[1], t.shape[1]))
    for j in range(t.shape[1]):
        others, size, _ = np.linalg.svd(np.delete(t, j, 1), full_matrices=False)
        others = others[:, size > 1e-9]
        own, rest = (x - others @ (others.T @ x) for x in (t[:, j], a))
        scale = np.linalg.norm(own) * np.linalg.norm(rest, axis=0)
        found[:, j] = np.divide(own @ rest, scale, out=np.zeros(a.shape[1]), where=scale > 1e-9)
    return found


def _matched(cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the best one-to-one matching, by falling size."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.abs(cosine), maximize=True)
    rank = np.abs(cosine[rows, columns]).argsort(kind="stable")[::-1]
    return rows[rank], columns[rank]


def _sizes(cosine: np.ndarray) -> np.ndarray:
    return np.abs(cosine)[_matched(cosine)]


def _shuffled(a: np.ndarray, t: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the matched sizes after the items of all terms are shuffled together, [draws, pairs]."""
    return np.stack([_sizes(a.T @ rng.permutation(t)) for _ in range(draws)])


def _turned(inside: np.ndarray, pairs: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the matched sizes of terms [axes, terms] in a span whose axes are turned at random, [draws, pairs]."""
    turns = np.linalg.qr(rng.standard_normal((draws, len(inside), len(inside))))[0]
    found = np.stack([_sizes(turn.T @ inside) for turn in turns])
    return np.pad(found, ((0, 0), (0, pairs - found.shape[1])))


def _intervals(a: np.ndarray, t: np.ndarray, draws: int, rng: np.random.Generator, level: float) -> list[Interval]:
    """Return matched cosines with intervals over resampled items."""
    n = len(a)
    weights = rng.multinomial(n, np.full(n, 1 / n), draws) / n
    means = [weights @ x for x in (a, t, a * t, a * a, t * t)]
    spread = (means[3] - means[0] ** 2) * (means[4] - means[1] ** 2)
    drawn = (means[2] - means[0] * means[1]) / np.sqrt(np.maximum(spread, 1e-300))
    return [percentile_interval(x @ y, d, n, level=level) for x, y, d in zip(a.T, t.T, drawn.T, strict=True)]
