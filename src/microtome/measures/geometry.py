"""The shape of an ordered embedding: rows that stand for numbers, days or nuclei, looked at in their principal axes.

    explained      share of variance of each component       null: what the components before it left, without direction
    Spearman       of each component with the order          null: order shuffled
    neighbours     distance of neighbours / of any two rows  null: order shuffled
    parity         |mean of (-1)^n (x_n - (x_{n-1} + x_{n+1}) / 2)| / std(x)           null: noise redrawn
    kinks          change of slope at marked places (magic numbers)                    null: as many other places

from arXiv 2405.17425 and its authors' notebooks (specification of section 6.1). The parity term of a smooth curve with
white noise e is a sum of 2 (-1)^n e_n, not of independent second differences: shuffling those would be wrong by 4 / 1.5
in variance. Its null therefore redraws e, from the second differences over sqrt(1.5), and takes the statistic again.

Give only the rows that were trained: rows never seen are the random vectors they began as. Intervals resample circular
blocks of neighbouring rows (Politis & Romano 1992), as neighbours are not independent, with the axes held fixed;
Spearman's is Bonett & Wright's (2000), which takes items as independent: resampling ties them and biases it. The axes
of any smooth random path look ordered too; that a shuffle is beaten says "ordered", never why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.intervals import Interval, percentile_interval, two_sided
from microtome.measures.principal import Principal, block_rows, in_order, principal

__all__ = ["AgainstNull", "Geometry", "Kinks", "kinks", "order_geometry"]


@dataclass(frozen=True)
class AgainstNull:
    """A number with its interval and its null.

    Args:
        value: estimate and interval.
        null: the null's 95 % quantile (5 % for the neighbour ratio, where small is ordered).
        p: chance under the null of a value as extreme.
    """

    value: Interval
    null: float
    p: float


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the principal axes say about an order.

    Args:
        order: sorted, [items].
        principal: the axes, each pointing along the order.
        scores: of the sorted rows, [items, components].
        explained: share of variance, for each component.
        spearman: rank correlation with the order, for each component.
        parity: even-odd amplitude in standard deviations, for each component; empty where no three whole numbers
            follow each other.
        neighbours: distance of neighbours over that of any two rows; 1 without order.
    """

    order: np.ndarray
    principal: Principal
    scores: np.ndarray
    explained: tuple[AgainstNull, ...]
    spearman: tuple[AgainstNull, ...]
    parity: tuple[AgainstNull, ...]
    neighbours: AgainstNull


def order_geometry(
    embedding: Any,
    order: Any,
    *,
    rng: np.random.Generator,
    components: int = 5,
    cyclic: bool = False,
    draws: int = 999,
    spectra: int = 99,
    level: float = 0.95,
) -> Geometry:
    """Return the geometry of an ordered embedding, each number with its interval and its null.

    Args:
        embedding: [items, d], trained rows only; memory grows with items squared, so thousands at most.
        order: the number each row stands for, [items], all different.
        rng: of shuffles and resamples.
        components: how many to look at (fewer where the matrix has fewer).
        cyclic: the last item is a neighbour of the first (days, months).
        draws: shuffles, and resamples.
        spectra: Gaussian matrices that the shares of variance are compared with.
        level: of the intervals.

    Raises:
        MeasureError: shapes that do not fit, missing values, rows that do not vary, or fewer than four items.

    Example:
        >>> t = np.arange(40.0)
        >>> found = order_geometry(np.stack([t, np.cos(t)], 1), t, rng=np.random.default_rng(0))
        >>> round(found.spearman[0].value.estimate, 2)
        1.0
    """
    x, n = in_order(embedding, order)
    axes = principal(x, along=n)
    every, blocks = axes.scores(x), block_rows(len(n), draws, rng)
    scores = every[:, :components]
    return Geometry(
        order=n,
        principal=axes,
        scores=scores,
        explained=_explained(every, axes.explained, scores.shape[1], x.shape[1], blocks, spectra, rng, level),
        spearman=_spearman(scores, n, draws, rng, level),
        parity=_parity(scores, n, draws, rng, level),
        neighbours=_neighbours(every, cyclic, blocks, draws, rng, level),
    )


@dataclass(frozen=True, eq=False)
class Kinks:
    """Changes of slope at marked places.

    Args:
        places: those that have enough rows on both sides, [places].
        size: length of the change of slope there, [places].
        rank: share of the other places with a smaller one, [places].
        mean: mean size at the marked places over that at the others.
        p: chance that as many other places, drawn at random, reach the mean.
    """

    places: np.ndarray
    size: np.ndarray
    rank: np.ndarray
    mean: float
    p: float


def kinks(
    scores: Any, order: Any, places: Sequence[float], *, rng: np.random.Generator, span: int = 4, draws: int = 999
) -> Kinks:
    """Return how sharply an ordered curve bends at some places (magic numbers), against places drawn at random.

    Slopes are those of lines fitted to `span` + 1 rows on either side, the place itself on both, of the curve smoothed
    by (1, 2, 1) / 4, which removes even-odd staggering exactly.

    Args:
        scores: the curve, [items, k] (scores of a few components).
        order: whole numbers, [items].
        places: where kinks are expected.
        rng: of the places drawn.
        span: rows on each side.
        draws: sets of places drawn.

    Raises:
        MeasureError: shapes that do not fit, or no marked place with enough consecutive rows around it.
    """
    x, n = in_order(scores, order, least=2 * span + 4)
    smooth = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
    run = np.arange(span + 1) - span / 2
    slopes = np.lib.stride_tricks.sliding_window_view(smooth, span + 1, axis=0) @ (run / (run @ run))
    size = np.linalg.norm(slopes[span:] - slopes[:-span], axis=-1)
    whole = (n[2 * span + 2 :] - n[: -2 * span - 2]) == 2 * span + 2
    at, size = n[span + 1 : -span - 1][whole], size[whole]
    marked = np.isin(at, np.asarray(places, float))
    if not marked.any() or marked.sum() > len(at) // 2:
        raise MeasureError(
            f"Kinks at {[f'{p:g}' for p in places]} among {len(at)} places with {span + 1} consecutive rows on both "
            "sides: none or most of them are marked; give places within the order, or a smaller span."
        )
    other, count = size[~marked], int(marked.sum())
    drawn = rng.random((draws, len(other))).argpartition(count - 1, axis=1)[:, :count]
    reached = (other[drawn].mean(1) >= size[marked].mean() * (1 - 1e-12)).sum()
    rank = (other[None] < size[marked][:, None]).mean(1)
    ratio = size[marked].mean() / max(other.mean(), 1e-300)
    return Kinks(at[marked], size[marked], rank, float(ratio), float((1 + reached) / (1 + draws)))


def _against(value: Interval, null: np.ndarray, *, small: bool = False) -> AgainstNull:
    edge = 1e-12 * max(1.0, abs(value.estimate))
    reached = (null <= value.estimate + edge) if small else (null >= abs(value.estimate) - edge)
    return AgainstNull(
        value, float(np.quantile(null, 0.05 if small else 0.95)), float((1 + reached.sum()) / (1 + len(null)))
    )


def _explained(
    scores: np.ndarray,
    share: np.ndarray,
    k: int,
    width: int,
    blocks: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    level: float,
) -> tuple[AgainstNull, ...]:
    """Test each component against the first of Gaussian rows without direction, as wide as what is left before it."""
    spread = np.stack([scores[rows].var(0) for rows in blocks])
    resampled = spread / spread.sum(1, keepdims=True)
    noise = (rng.standard_normal((len(scores), width)) for _ in range(draws))
    null = np.array([[_first_share(sample[j:, j:]) for j in range(k)] for sample in noise])
    return tuple(
        _against(percentile_interval(share[j], resampled[:, j], len(scores), level=level), share[j:].sum() * null[:, j])
        for j in range(k)
    )


def _first_share(x: np.ndarray) -> float:
    """Return the first component's share of the variance of rows."""
    x = x - x.mean(0)
    values = np.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x)
    return values[-1] / values.sum()


def _spearman(
    scores: np.ndarray, order: np.ndarray, draws: int, rng: np.random.Generator, level: float
) -> tuple[AgainstNull, ...]:
    from scipy.stats import rankdata

    ranks = [(r - r.mean(0)) / r.std(0) for r in (rankdata(scores, axis=0), rankdata(order))]
    values = ranks[1] @ ranks[0] / len(order)
    null = np.abs(rng.permuted(np.tile(ranks[1], (draws, 1)), axis=1) @ ranks[0]) / len(order)
    found = []
    for j, rho in enumerate(values.clip(-1, 1)):
        half = two_sided(level) * np.sqrt((1 + rho**2 / 2) / max(len(order) - 3, 1))
        low, high = np.tanh(np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15)) + np.array([-half, half]))
        interval = Interval(float(rho), float(min(low, rho)), float(max(high, rho)), len(order), level)
        found.append(_against(interval, null[:, j]))
    return tuple(found)


def _parity(
    scores: np.ndarray, order: np.ndarray, draws: int, rng: np.random.Generator, level: float
) -> tuple[AgainstNull, ...]:
    whole = (order == np.round(order)).all()
    middle = 1 + np.flatnonzero((np.diff(order)[1:] == 1) & (np.diff(order)[:-1] == 1)) if whole else np.array([], int)
    if not middle.size:
        return ()
    sign = np.where(order[middle] % 2 == 0, 1.0, -1.0)
    second = scores[middle] - (scores[middle - 1] + scores[middle + 1]) / 2
    weight = np.zeros(len(order))
    for shift, share in ((0, 1.0), (-1, -0.5), (1, -0.5)):
        np.add.at(weight, middle + shift, share * sign / len(middle))
    deviation = np.maximum(scores.std(0), 1e-300)
    noise = second / np.sqrt(1.5)
    null = np.abs([weight @ noise[rng.integers(0, len(noise), len(order))] for _ in range(draws)]) / deviation
    terms = sign[:, None] * second / deviation
    terms *= np.where(terms.mean(0) < 0, -1.0, 1.0)
    resampled = terms[block_rows(len(terms), draws, rng)].mean(1)
    return tuple(
        _against(percentile_interval(mean, resampled[:, j], len(terms), level=level), null[:, j])
        for j, mean in enumerate(terms.mean(0))
    )


def _neighbours(
    scores: np.ndarray, cyclic: bool, blocks: np.ndarray, draws: int, rng: np.random.Generator, level: float
) -> AgainstNull:
    from scipy.spatial.distance import cdist

    n, distance = len(scores), cdist(scores, scores)
    anyone = distance.sum(1) / (n - 1)
    last = n if cyclic else n - 1

    def along(rows: np.ndarray) -> np.ndarray:
        return distance[rows, np.roll(rows, -1, axis=-1)][..., :last].mean(-1)

    own = np.arange(n)
    steps, exists = distance[own, np.roll(own, -1)], own < last
    resampled = (steps * exists)[blocks].sum(1) / np.maximum(exists[blocks].sum(1), 1) / anyone[blocks].mean(1)
    null = along(rng.permuted(np.tile(own, (draws, 1)), axis=1)) / anyone.mean()
    ratio = percentile_interval(along(own) / anyone.mean(), resampled, n, level=level)
    return _against(ratio, null, small=True)
