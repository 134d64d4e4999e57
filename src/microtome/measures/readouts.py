"""Readouts: what can be read of two classes from a layer by supervised means, and from much simpler things, held out.

Everything is fitted on one half of the items and scored on the other, the same halves for all, so that rows compare:

    probe      logistic regression on standardised features, its strength chosen by cross-validation inside the half
    mass mean  along the difference of the class means
    leace      by what LEACE erases (arXiv 2306.03819): the means' difference through the inverse total covariance
    neuron     the best single feature of the fitting half, in its direction there
    words      logistic regression on words (or characters) of the texts: no model at all
    length     the length of the texts

A layer that reads no better than `words` or `length` shows knowledge of texts, not expertise. `lengths=` takes
what is linear in length and its logarithm out of the features, by a fit on the same half.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers, two_classes, unit_matrix
from microtome.measures.expertise import auroc, delong
from microtome.measures.intervals import Interval
from microtome.measures.leace_rank import whitening

__all__ = ["READOUTS", "Halves", "halves", "length_readout", "readouts", "words_readout"]


class Halves(NamedTuple):
    """Items to fit on and items to score, each an array of indices."""

    fit: np.ndarray
    score: np.ndarray


def halves(labels: Any, *, seed: int, groups: Any = None) -> Halves:
    """Return random halves with equal shares of the classes.

    Args:
        labels: 0 or 1 per item.
        seed: of the draw.
        groups: a label per item whose items must stay together (texts of one thread); shares are then only close.

    Raises:
        MeasureError: a class with fewer than six items (or, with groups, missing from a half).
    """
    positive = two_classes(labels, len(np.asarray(labels)))
    names = np.arange(len(positive)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    share = np.bincount(names, positive) / np.bincount(names)
    order = np.lexsort((np.random.default_rng(seed).random(len(share)), share))
    first = np.isin(names, order[::2])
    found = Halves(np.flatnonzero(first), np.flatnonzero(~first))
    for half in found:
        if min(positive[half].sum(), (~positive[half]).sum()) < 3:
            raise MeasureError(
                f"Halves of {len(positive)} items, {int(positive.sum())} of class 1: one has "
                f"{int(positive[half].sum())} of class 1 of {len(half)}; give at least three of each class a half."
            )
    return found


def readouts(
    features: Any, labels: Any, split: Halves, *, lengths: Any = None, names: Sequence[str] | None = None
) -> dict[str, Interval]:
    """Return the held-out AUROC of readouts of a layer, with DeLong intervals.

    Args:
        features: [items, d].
        labels: 0 or 1 per item.
        split: from `halves`.
        lengths: of the texts; what is linear in them or their logarithm is taken out of the features first.
        names: which of `READOUTS`; None: all.

    Raises:
        MeasureError: missing values, shapes that do not fit, or an unknown name.
    """
    x = unit_matrix(features, "Features")
    positive = two_classes(labels, len(x))
    unknown = [n for n in names or () if n not in READOUTS]
    if unknown:
        raise MeasureError(f"No readout '{unknown[0]}'; choose from {', '.join(READOUTS)}.")
    if lengths is not None:
        x = _without_length(x, numbers(lengths, "Lengths", ndim=1, length=len(x)), split)
    fit, score = x[split.fit], x[split.score]
    return {n: _scored(READOUTS[n](fit, positive[split.fit], score), positive, split) for n in names or READOUTS}


def length_readout(lengths: Any, labels: Any, split: Halves) -> Interval:
    """Return the held-out AUROC of length alone, in its direction on the fitting half.

    Args:
        lengths: of the texts.
        labels: 0 or 1 per item.
        split: from `halves`.

    Raises:
        MeasureError: missing values or another number of labels.
    """
    x = numbers(lengths, "Lengths", ndim=1)[:, None]
    positive = two_classes(labels, len(x))
    return _scored(_neuron(x[split.fit], positive[split.fit], x[split.score]), positive, split)


def words_readout(texts: Sequence[str], labels: Any, split: Halves, *, characters: bool = False) -> Interval:
    """Return the held-out AUROC of a bag of words, by logistic regression on TF-IDF.

    Args:
        texts: one per item.
        labels: 0 or 1 per item.
        split: from `halves`.
        characters: count one to three characters instead of words, for languages without spaces.

    Raises:
        MeasureError: another number of labels, or texts without a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    positive = two_classes(labels, len(texts))
    kind = {"analyzer": "char", "ngram_range": (1, 3)} if characters else {"token_pattern": r"(?u)\b\w+\b"}
    if not any(any(c.isalnum() for c in texts[i]) for i in split.fit):
        raise MeasureError(f"A bag of words of {len(split.fit)} texts found no word; give texts.")
    counter = TfidfVectorizer(sublinear_tf=True, **kind)
    fit = counter.fit_transform([texts[i] for i in split.fit])
    model = _logistic().fit(fit, positive[split.fit])
    return _scored(model.decision_function(counter.transform([texts[i] for i in split.score])), positive, split)


def _scored(scores: np.ndarray, positive: np.ndarray, split: Halves) -> Interval:
    found = delong(scores, positive[split.score])
    return Interval(float(found.area[0]), float(found.low[0]), float(found.high[0]), len(split.score))


def _logistic():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    grid = {"C": [0.001, 0.01, 0.1, 1.0, 10.0]}
    model = LogisticRegression(max_iter=2000, tol=1e-3)
    return GridSearchCV(model, grid, scoring="roc_auc", cv=StratifiedKFold(3, shuffle=True, random_state=0))


def _probe(fit: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    mean, spread = fit.mean(0), fit.std(0)
    spread = np.where(spread > 1e-9 * np.abs(fit).max(0), spread, np.inf)
    return _logistic().fit((fit - mean) / spread, positive).decision_function((score - mean) / spread)


def _mass_mean(fit: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    return score @ (fit[positive].mean(0) - fit[~positive].mean(0))


def _leace(fit: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    basis, scale = whitening(fit)
    gap = fit[positive].mean(0) - fit[~positive].mean(0)
    return score @ (basis @ ((basis.T @ gap) * scale**2))


def _neuron(fit: np.ndarray, positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    area = auroc(fit, positive)
    best = int(np.abs(area - 0.5).argmax())
    return score[:, best] * (1 if area[best] >= 0.5 else -1)


READOUTS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "probe": _probe, "mass mean": _mass_mean, "leace": _leace, "neuron": _neuron,
}  # fmt: skip


def _without_length(x: np.ndarray, lengths: np.ndarray, split: Halves) -> np.ndarray:
    design = np.stack([np.ones(len(x)), lengths, np.log1p(np.maximum(lengths, 0))], 1)
    return x - design @ np.linalg.lstsq(design[split.fit], x[split.fit], rcond=None)[0]
