"""The scorer that selects is not the scorer that evaluates; and how far the two agree.

A scorer is told apart by its family (how it works) and its origin (what it was made from). Choosing directions by a
scorer and then reporting the cut by the same one measures how well that scorer was fooled; LinEAS (2025) shows how
strong such supervision is. One of the two must differ. Agreement beyond chance is Cohen's kappa (1960)

    kappa = (p_o - p_e) / (1 - p_e)

with the large-sample standard error of Fleiss, Cohen & Everitt (1969); texts are taken as independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, two_sided

__all__ = ["Agreement", "Scorer", "agreement", "require_separate"]


@runtime_checkable
class Scorer(Protocol):
    """What scores texts.

    Attributes:
        family: how it works, e.g. `lexicon`.
        origin: what it was made from: a digest of words or rows, or the name of a checkpoint.
    """

    family: str
    origin: str

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return how toxic each text is, from 0 to 1, [texts]."""
        ...


@dataclass(frozen=True)
class Agreement:
    """How far two scorers agree on which texts are toxic.

    Attributes:
        kappa: Cohen's kappa with its interval; None where both give all texts one and the same label.
        observed: share of texts on which they agree.
        expected: share expected of independent scorers with these rates.
        rates: share that each calls toxic.
        n: texts.
    """

    kappa: Interval | None
    observed: float
    expected: float
    rates: tuple[float, float]
    n: int


def require_separate(selector: Scorer, evaluator: Scorer) -> None:
    """Refuse a scorer that would evaluate its own selection.

    Args:
        selector: what directions, neurons or tokens are chosen by.
        evaluator: what the outcome is measured by.

    Raises:
        MeasureError: both are of one family and one origin.
    """
    if (selector.family, selector.origin) == (evaluator.family, evaluator.origin):
        raise MeasureError(
            f"The {selector.family} scorer of origin '{selector.origin}' would select and evaluate; give an evaluator "
            "of another family, or fitted on other data."
        )


def agreement(first: Any, second: Any, *, threshold: float = 0.5, level: float = 0.95) -> Agreement:
    """Return the agreement of two scorers on the same texts.

    Args:
        first: scores of one, [texts].
        second: scores of the other, [texts].
        threshold: least score that counts as toxic.
        level: confidence level.

    Raises:
        MeasureError: missing values or other lengths.

    Example:
        require_separate(ngram, lexicon)
        agreement(ngram.scores(texts), lexicon.scores(texts)).kappa
    """
    a = numbers(first, "Scores of the first scorer", ndim=1) >= threshold
    b = numbers(second, "Scores of the second scorer", ndim=1, length=len(a)) >= threshold
    n = len(a)
    p = np.array([[np.mean(~a & ~b), np.mean(~a & b)], [np.mean(a & ~b), np.mean(a & b)]])
    rows, columns = p.sum(1), p.sum(0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if (a == a[0]).all() and (b == a[0]).all():
        return Agreement(None, observed, expected, (float(a.mean()), float(b.mean())), n)
    kappa = (observed - expected) / (1 - expected)
    # Fleiss, Cohen & Everitt (1969), eq. 13.
    inner = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    outer = (1 - kappa) ** 2 * sum(p[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = (inner + outer - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    half = two_sided(level) * max(variance, 0.0) ** 0.5
    bounds = Interval(float(kappa), float(max(-1.0, kappa - half)), float(min(1.0, kappa + half)), n, level)
    return Agreement(bounds, observed, expected, (float(a.mean()), float(b.mean())), n)
