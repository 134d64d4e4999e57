"""Which attribute tells another: H(b|a)/H(b), and from it which isolation tests a table allows.

0 means that a determines b (a time zone its country), 1 that a says nothing about b. Where a determines b, changing a
and keeping b describes no entity that exists: a featurizer that moves both follows the world, and an isolation score
of b under a asks it to break a law. No two entities then agree in a and differ in b (`held` is 0).

The plug-in entropy is too low where a has many values: an a that names each entity determines everything, by chance
too. So beside each ratio stands its null, the mean over shuffles of b, and a pair whose null is as low is
`unresolved`. Natural logarithms; the unit cancels. Collision is the probability that two entities drawn with
replacement agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.ravel.tables import EntityTable

__all__ = ["DETERMINED", "Entailed", "EntailmentTable", "entailment"]

DETERMINED = 0.1
"""At or below this ratio, a determines b."""


@dataclass(frozen=True)
class Entailed:
    """What attribute a tells of attribute b.

    Attributes:
        a: the attribute that would be swapped.
        b: the attribute that should stay.
        ratio: H(b|a)/H(b); None where b has one value.
        null: the same with b shuffled; None where b has one value.
        held: share of pairs of entities that agree in a and differ in b.
        differ: share of pairs that differ in both: what an isolation test is drawn from.
        verdict: `free`, `determined`, `unresolved` (a has too many values to tell) or `constant` (b has one value).
    """

    a: str
    b: str
    ratio: float | None
    null: float | None
    held: float
    differ: float
    verdict: str

    @property
    def possible(self) -> bool:
        """Whether an isolation test of b under a can be drawn and does not contradict the table."""
        return self.verdict == "free" and self.differ > 0


@dataclass(frozen=True)
class EntailmentTable:
    """Every ordered pair of attributes, and each attribute's collision probability."""

    pairs: tuple[Entailed, ...]
    collision: dict[str, float]

    def __iter__(self) -> Iterator[Entailed]:
        return iter(self.pairs)

    def of(self, a: str, b: str) -> Entailed:
        """Return what a tells of b.

        Raises:
            DataError: no such pair.
        """
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
        raise DataError(f"No pair of attributes '{a}', '{b}'; use two different ones of {', '.join(self.collision)}.")


def entailment(table: EntityTable, *, shuffles: int = 5, seed: int = 0) -> EntailmentTable:
    """Return what every attribute tells of every other.

    Args:
        table: whose entities count alike, whatever their split.
        shuffles: of b, behind each null; at least 1.
        seed: of the shuffles.

    Example:
        entailment(table).of("Timezone", "Country").ratio
    """
    codes = {a: np.unique(np.array(table.column(a)), return_inverse=True)[1] for a in table.attributes}
    collision = {a: float(((np.bincount(c) / len(c)) ** 2).sum()) for a, c in codes.items()}
    pairs = []
    for a in codes:
        for b in codes:
            if a != b:
                rng = generator(seed, "entailment", a, b)
                pairs.append(_entailed(a, b, codes[a], codes[b], shuffles, rng))
    return EntailmentTable(tuple(pairs), collision)


def _entailed(a: str, b: str, x: np.ndarray, y: np.ndarray, shuffles: int, rng: np.random.Generator) -> Entailed:
    same_a, same_b, same = _agreeing(x), _agreeing(y), _agreeing(_joint(x, y))
    held, differ = same_a - same, 1 - same_a - same_b + same
    whole = _entropy(y)
    if whole == 0:
        return Entailed(a, b, None, None, held, differ, "constant")
    ratio = _conditional(x, y) / whole
    null = float(np.mean([_conditional(x, rng.permutation(y)) for _ in range(max(1, shuffles))])) / whole
    verdict = "unresolved" if null <= DETERMINED else "determined" if ratio <= DETERMINED else "free"
    return Entailed(a, b, ratio, null, held, differ, verdict)


def _joint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.unique(x.astype(np.int64) * (int(y.max()) + 1) + y, return_inverse=True)[1]


def _entropy(x: np.ndarray) -> float:
    counts = np.bincount(x)
    p = counts[counts > 0] / len(x)
    return max(0.0, float(-(p * np.log(p)).sum()))


def _conditional(x: np.ndarray, y: np.ndarray) -> float:
    return max(0.0, _entropy(_joint(x, y)) - _entropy(x))


def _agreeing(x: np.ndarray) -> float:
    """Return the share of unordered pairs of different entities that agree."""
    counts, n = np.bincount(x), len(x)
    return float((counts * (counts - 1)).sum()) / (n * (n - 1)) if n > 1 else 0.0
