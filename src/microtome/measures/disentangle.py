"""Cause, Isolate and Disentangle: does an interchange change one attribute's answers and leave the others'?

For a target attribute A, over interchanges that take A's features from the source (arXiv 2402.17700, section 3):

    Cause(A)        mean over A's templates of the share of pairs answered as the source would be
    Isolate(A)      mean over the other attributes of the mean over their templates of the share answered as before
    Disentangle(A)  (Cause + Isolate) / 2; swapping nothing scores (0, 1), swapping all of an ideal world (1, 0),
                    so 0.5 is where the scale begins, and `chance_corrected` is 2 D - 1
    Interchange(A)  MIB's interchange intervention accuracy (arXiv 2504.13151): one accuracy over all queries of A and
                    half as many of each other attribute, answered as the causal model says

The type's scores are means over target attributes. Intervals resample entities and templates together (the pigeonhole
bootstrap; templates within their attribute), since pairs of one entity or one wording stand or fall together.
Probabilities of the wanted answer may stand in place of hits (the scores are then soft), and so may the difference of
two methods' hits: the scores are linear in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights

__all__ = ["Disentangled", "Trials", "chance_corrected"]

_SCORES = ("cause", "isolate", "disentangle", "interchange")

_CHUNK = 256  # draws at a time


@dataclass(frozen=True)
class Disentangled:
    """The scores of one target attribute, or their means over all (target None).

    Attributes:
        target: the attribute whose features were swapped.
        cause: share of its own queries answered as the source would be.
        isolate: share of the other attributes' queries answered as before.
        disentangle: their mean.
        interchange: MIB's interchange intervention accuracy.
        by_attribute: share answered as wanted of the queries of each attribute; empty for the means.
    """

    target: str | None
    cause: Interval
    isolate: Interval
    disentangle: Interval
    interchange: Interval
    by_attribute: dict[str, Interval]


def chance_corrected(disentangle: float) -> float:
    """Return a Disentangle score on a scale where swapping nothing, or everything, is 0 and perfection 1."""
    return 2 * disentangle - 1


class Trials:
    """Pairs with what they ask for, and resamples of them: whatever is answered to them is scored on the same draws.

    Args:
        asked: the attribute each pair asks for.
        templates: the base template of each pair.
        entities: the base entity of each pair.
        rng: of the resamples.
        draws: resamples of entities and templates.
        level: of the intervals.

    Raises:
        MeasureError: shapes do not fit, only one attribute is asked for, or too few pairs to resample.
    """

    def __init__(
        self,
        asked: Sequence[str],
        *,
        templates: Sequence[str],
        entities: Sequence[str],
        rng: np.random.Generator,
        draws: int = 1000,
        level: float = 0.95,
    ):
        names = list(dict.fromkeys(asked))
        if len(names) < 2:
            raise MeasureError(
                f"Pairs that ask for another attribute were asked for, found pairs that ask for {', '.join(names)}; "
                "isolation needs the target's own queries and another attribute's."
            )
        self.order = np.argsort([names.index(a) for a in asked], kind="stable")
        asked, templates, entities = ([x[i] for i in self.order] for x in (asked, templates, entities))
        self.design, self.level, self.entities = _Design(names, asked, templates), level, len(set(entities))
        parts = self.design.parts
        self.weights = bootstrap_weights(
            [entities, templates], len(asked), draws=draws, rng=rng, parts=parts, strata=[None, asked]
        )
        bare = [names[a] for a, part in enumerate(parts) if (self.weights[:, part].sum(1) == 0).any()]
        if bare:
            raise MeasureError(
                f"Resamples that each hold pairs asking for every attribute were asked for, found too few for "
                f"{', '.join(bare)}; draw more pairs of more entities."
            )

    def scores(self, right: object, targets: Sequence[str]) -> list[Disentangled]:
        """Return the scores of every target attribute, and last their means.

        Args:
            right: whether each pair was answered as wanted (or how probably) with each target's features swapped,
                [targets, pairs]: as the source where the pair asks for the target, as before elsewhere.
            targets: the attribute of each row.

        Raises:
            MeasureError: the shape does not fit, a value is missing, or no pair asks for a target.
        """
        right = numbers(right, "Answers after an interchange", ndim=2)
        if right.shape != (len(targets), len(self.order)):
            raise MeasureError(
                f"Answers [targets, pairs] of shape {[len(targets), len(self.order)]} were asked for, found "
                f"{list(right.shape)}; give one row for each target and one column for each pair."
            )
        missing = [t for t in targets if t not in self.design.names]
        if missing:
            raise MeasureError(
                f"Pairs that ask for {', '.join(missing)} were asked for, found pairs that ask for "
                f"{', '.join(self.design.names)}; isolation needs the target's own queries and another attribute's."
            )
        tables = [self.design.shares(row, self.weights) for row in right[:, self.order]]
        rows = [_Scores(self.design, t, *table) for t, table in zip(targets, tables, strict=True)]
        means = {name: self._interval(np.mean([getattr(r, name) for r in rows], 0)) for name in _SCORES}
        return [*(self._told(row) for row in rows), Disentangled(None, **means, by_attribute={})]

    def _told(self, row: "_Scores") -> Disentangled:
        by_attribute = {a: self._interval(row.shares[:, i]) for i, a in enumerate(self.design.names)}
        scores = {name: self._interval(getattr(row, name)) for name in _SCORES}
        return Disentangled(row.target, **scores, by_attribute=by_attribute)

    def _interval(self, drawn: np.ndarray) -> Interval:
        """Return the data's score with the interval of its resamples, [1 + draws]."""
        return percentile_interval(drawn[0], drawn[1:], self.entities, level=self.level)


class _Design:
    """Which pairs belong to which template and attribute; pairs are sorted by attribute."""

    def __init__(self, names: Sequence[str], asked: Sequence[str], templates: Sequence[str]):
        self.names = list(names)
        attribute = np.array([self.names.index(a) for a in asked])
        self.template = group_codes([f"{a}\n{t}" for a, t in zip(asked, templates, strict=True)], len(asked))
        count = int(self.template.max()) + 1
        self.of_template = np.eye(count)[self.template]
        self.attribute_of = np.zeros(count, dtype=int)
        self.attribute_of[self.template] = attribute
        ends = np.cumsum(np.bincount(attribute, minlength=len(names)))
        self.parts = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def shares(self, right: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share answered as wanted by attribute, [1 + draws, attributes]: mean over templates, and pooled.

        The first row is the data as they are.
        """
        of_template, pooled = [], []
        for w in self._chunks(weights):
            hits, counts = w @ (self.of_template * right[:, None]), w @ self.of_template
            with np.errstate(invalid="ignore"):
                of_template.append(self._over_templates(hits / counts))
            by = [self.attribute_of == a for a in range(len(self.names))]
            pooled.append(np.stack([hits[:, m].sum(1) / counts[:, m].sum(1) for m in by], 1))
        return np.concatenate(of_template), np.concatenate(pooled)

    def _over_templates(self, shares: np.ndarray) -> np.ndarray:
        """Mean over the templates of each attribute that a resample holds."""
        held = ~np.isnan(shares)
        own = np.eye(len(self.names))[self.attribute_of]
        return (np.where(held, shares, 0.0) @ own) / (held @ own)

    @staticmethod
    def _chunks(weights: np.ndarray) -> Iterator[np.ndarray]:
        yield np.ones((1, weights.shape[1]))
        for first in range(0, len(weights), _CHUNK):
            yield weights[first : first + _CHUNK]


class _Scores:
    """The scores of one target, each [1 + draws], the data first."""

    def __init__(self, design: _Design, target: str, shares: np.ndarray, pooled: np.ndarray):
        own = design.names.index(target)
        others = [a for a in range(len(design.names)) if a != own]
        self.target, self.shares = target, shares
        self.cause, self.isolate = shares[:, own], shares[:, others].mean(1)
        self.disentangle = (self.cause + self.isolate) / 2
        self.interchange = (pooled[:, own] + 0.5 * pooled[:, others].sum(1)) / (1 + 0.5 * len(others))
