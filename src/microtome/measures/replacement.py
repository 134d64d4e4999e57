"""The replacement test: swap a whole embedding table for a simple description of it and see what the model still can.

    keep k       the first k principal components of the table, the rest at their mean
    without k    all but one component (the one that carries parity, say)
    helix        the mean and a helix through the first few components' scores, fitted to the order
    polynomial   the same with a polynomial
    mean         every row the mean row
    shuffle      the rows in another order, several times

from arXiv 2405.17425 (section 6.3 of our specification). A fit can do no better than the components it is fitted to, so
read `helix on 3` against `keep 3`, not against the model itself. How much of a table's variance a description explains
says little about what it costs: the model may live on what is left. Hence the share recovered is that of the score,

    recovered = (score - score of mean) / (score of the model - score of mean)        1 the model, 0 the mean row

which can lie below 0 (worse than the mean row; shuffled rows are). Rows that were not trained are left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.helix import fit_helix, fit_polynomial
from microtome.measures.principal import Principal, principal

__all__ = ["Replaced", "replacement_ladder", "replacement_test", "without_components"]

Score = Callable[[np.ndarray], float | Mapping[str, float]]


@dataclass(frozen=True)
class Replaced:
    """What a model scores with one replacement.

    Args:
        name: of the replacement.
        metric: which of the numbers that the scoring function returned ("score" where it returned one).
        score: the mean over the tables of that name.
        low: the smallest of them.
        high: the largest of them.
        tables: how many there were (more than one where rows are shuffled).
        recovered: share of the way from the mean row (0) to the model (1).
    """

    name: str
    metric: str
    score: float
    low: float
    high: float
    tables: int
    recovered: float


def without_components(embedding: np.ndarray, axes: Principal, components: slice | list[int]) -> np.ndarray:
    """Return rows with some components at their mean; with none of those, the rows to the bit.

    Args:
        embedding: [items, d].
        axes: its principal axes.
        components: which, from 0.
    """
    removed = axes.components[components]
    return embedding - (embedding - axes.mean) @ removed.T @ removed if len(removed) else embedding.copy()


def replacement_ladder(
    embedding: Any,
    order: Any,
    *,
    rng: np.random.Generator,
    trained: Any = None,
    keep: Sequence[int] = (1, 2, 3, 5, 10, 20),
    without: Sequence[int] = (),
    components: int = 3,
    drifts: Sequence[int] = (1, 3, 5),
    degrees: Sequence[int] = (3, 5),
    growth: bool = True,
    parity: bool = False,
    shuffles: int = 5,
) -> dict[str, np.ndarray]:
    """Return replacements of an embedding table, name -> tables [tables, items, d].

    Args:
        embedding: [items, d].
        order: the number each row stands for, [items], all different.
        rng: of the shuffles.
        trained: which rows training has seen, booleans [items]; the others stay as they are. None: all.
        keep: numbers of components; those beyond the rank are left out, and the full rank is always there.
        without: components to take out alone, from 1; those beyond the rank are left out.
        components: how many components' scores helix and polynomial are fitted to.
        drifts: a helix for each of these degrees of its axis.
        degrees: a polynomial for each of these.
        growth: let the helices' radius change.
        parity: give helices and polynomials an even-odd term.
        shuffles: how many tables of shuffled rows.

    Raises:
        MeasureError: shapes that do not fit, missing values, or too few rows for a fit.
    """
    table = numbers(embedding, "Embedding", ndim=2)
    n = numbers(order, "Order", ndim=1, length=len(table))
    seen = np.ones(len(table), bool) if trained is None else np.asarray(trained)
    if seen.shape != (len(table),) or seen.dtype != bool:
        raise MeasureError(f"Trained rows were given as {seen.dtype} {list(seen.shape)}; give {len(table)} booleans.")
    axes = principal(table[seen], along=n[seen])
    rank, scores = len(axes.components), axes.scores(table[seen])[:, :components]
    sizes = sorted({k for k in keep if 0 < k < rank} | {rank})
    rows = {f"keep {k}": without_components(table[seen], axes, slice(k, None)) for k in sizes}
    rows |= {f"without {k}": without_components(table[seen], axes, [k - 1]) for k in without if 0 < k <= rank}
    shape = f"on {scores.shape[1]}"
    for drift in drifts:
        helix = fit_helix(scores, n[seen], drift=drift, growth=growth, parity=parity)
        rows[f"helix {shape}, drift {drift}"] = axes.restore(helix(n[seen]))
    for degree in degrees:
        curve = fit_polynomial(scores, n[seen], degree=degree, parity=parity)
        rows[f"polynomial {shape}, degree {degree}"] = axes.restore(curve(n[seen]))
    rows["mean"] = np.tile(axes.mean, (int(seen.sum()), 1))
    tables = {name: [found] for name, found in rows.items()}
    if shuffles:
        tables["shuffle"] = [rng.permutation(table[seen]) for _ in range(shuffles)]
    return {name: np.stack([_placed(table, seen, found) for found in each]) for name, each in tables.items()}


def replacement_test(embedding: Any, ladder: Mapping[str, np.ndarray], score: Score) -> list[Replaced]:
    """Return what a model scores with its own table ("model") and with each replacement.

    Args:
        embedding: the model's own table, [items, d].
        ladder: name -> tables [tables, items, d], with "mean" among them (see `replacement_ladder`).
        score: takes a table [items, d] and returns how the model does with it: one number (RMS, accuracy), or several
            by name (train and test, each task).

    Raises:
        MeasureError: no "mean", tables of another shape, a score that is missing or not always of the same metrics, or
            one that the mean row does not change.

    Example:
        >>> table = np.arange(12.0)[:, None] ** np.array([1, 2])
        >>> ladder = replacement_ladder(table, np.arange(12), rng=np.random.default_rng(0), drifts=(), degrees=())
        >>> round(replacement_test(table, ladder, lambda t: abs(t - table).max())[1].recovered, 2)
        0.98
    """
    own = numbers(embedding, "Embedding", ndim=2)
    if "mean" not in ladder:
        raise MeasureError(
            f"A replacement 'mean' was asked for, found {', '.join(ladder)}; add the table of mean rows."
        )
    if wrong := [name for name, tables in ladder.items() if np.ndim(tables) != 3 or tables.shape[1:] != own.shape]:
        raise MeasureError(
            f"Replacement '{wrong[0]}' has shape {list(np.shape(ladder[wrong[0]]))}; give [tables, items, d] with the "
            f"embedding's {list(own.shape)}."
        )
    base = _scored(score, own, "model", None)
    found = {"model": [base]}
    found |= {name: [_scored(score, table, name, base) for table in tables] for name, tables in ladder.items()}
    rows = []
    for metric in base:
        gap = base[metric] - found["mean"][0][metric]
        if gap == 0:
            raise MeasureError(
                f"Metric '{metric}' is {base[metric]:g} with the model's own table and with the mean row alike; does "
                "the scoring function put the table it is given into the model?"
            )
        for name, scores in found.items():
            values = np.array([s[metric] for s in scores])
            low, mean, high = (float(f(values)) for f in (np.min, np.mean, np.max))
            rows.append(Replaced(name, metric, mean, low, high, len(values), 1 + (mean - base[metric]) / gap))
    return rows


def _placed(table: np.ndarray, seen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    placed = table.copy()
    placed[seen] = rows
    return placed


def _scored(score: Score, table: np.ndarray, name: str, base: dict[str, float] | None) -> dict[str, float]:
    found = score(table.copy())
    found = dict(found) if isinstance(found, Mapping) else {"score": found}
    if base is not None and found.keys() != base.keys():
        raise MeasureError(
            f"The score of '{name}' has metrics {sorted(found)}, the model's {sorted(base)}; return both."
        )
    return {metric: float(numbers(value, f"Score '{metric}' of '{name}'", ndim=0)) for metric, value in found.items()}
