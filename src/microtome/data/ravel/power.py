"""What a set of pairs can tell: how many there are where, what was lost on the way, how narrow an interval can get.

A score over n pairs of m entities has a 95 % interval of half-width between 1.96 sqrt(.25/n), if pairs are independent,
and 1.96 sqrt(.25/m), if pairs of one entity stand or fall together; at an accuracy of one half, the widest. Two methods
whose scores differ by less than that are not told apart. `majority` is the share of pairs whose wanted answer is the
most frequent one: what always saying it would score.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from microtome.data.pairs import Pair, PairSet

__all__ = ["Drawing", "PowerReport", "PowerRow", "power"]


@dataclass(frozen=True)
class Drawing:
    """One template's draw from one pool.

    Attributes:
        attribute: that the template asks.
        pool: of sources.
        asked: entities of the side.
        known: those whose answer to the template is known.
        candidates: pairs of a drawn base and another entity that could be its source.
        coincidences: of these, how many have equal answers.
        bare: drawn bases that no source contrasts with.
    """

    attribute: str
    pool: str
    asked: int
    known: int
    candidates: int
    coincidences: int
    bare: int


@dataclass(frozen=True)
class PowerRow:
    """The pairs of one attribute, kind and pool.

    Attributes:
        attribute: asked by the base.
        kind: `cause`, `isolate` or `control`.
        pool: of sources; `same` for controls.
        pairs: how many.
        entities: different base entities.
        templates: different base templates.
        answers: different wanted answers.
        majority: share of the most frequent wanted answer.
        narrowest: half-width of a 95 % interval if pairs are independent.
        widest: the same if only entities are.
        coincidences: share of candidate pairs with equal answers; None for controls.
        known: share of base prompts that are known; None for controls.
    """

    attribute: str
    kind: str
    pool: str
    pairs: int
    entities: int
    templates: int
    answers: int
    majority: float
    narrowest: float
    widest: float
    coincidences: float | None
    known: float | None


@dataclass(frozen=True)
class PowerReport:
    """A row for every attribute, kind and pool that has pairs, and the draws behind them."""

    rows: tuple[PowerRow, ...]
    drawings: tuple[Drawing, ...]

    @property
    def coincidences(self) -> int:
        """Candidate pairs with equal answers, which were left out."""
        return sum(d.coincidences for d in self.drawings)

    @property
    def bare(self) -> int:
        """Drawn bases, a pool at a time, that no source contrasts with."""
        return sum(d.bare for d in self.drawings)

    @property
    def empty_pools(self) -> tuple[str, ...]:
        """Pools that were asked for and gave nothing, as `attribute/pool`."""
        gave = {(r.attribute, r.pool) for r in self.rows}
        asked = dict.fromkeys((d.attribute, d.pool) for d in self.drawings)
        return tuple("/".join(key) for key in asked if key not in gave)


def power(pairs: PairSet, drawings: Iterable[Drawing]) -> PowerReport:
    """Return what a set of pairs, drawn as told, can tell."""
    drawings = tuple(drawings)
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.groups["cell"], pair.kind, pair.groups["pool"]), []).append(pair)
    rows = (
        _row(key, members, [d for d in drawings if (d.attribute, d.pool) == (key[0], key[2])])
        for key, members in groups.items()
    )
    return PowerReport(tuple(rows), drawings)


def _row(key: tuple[str, str, str], members: list[Pair], drawings: list[Drawing]) -> PowerRow:
    wanted = Counter(p.cf_label if key[1] == "cause" else p.base_label for p in members)
    entities = len({p.groups["entity"] for p in members})
    return PowerRow(
        *key,
        pairs=len(members),
        entities=entities,
        templates=len({p.groups["template"] for p in members}),
        answers=len(wanted),
        majority=wanted.most_common(1)[0][1] / len(members),
        narrowest=_half_width(len(members)),
        widest=_half_width(entities),
        coincidences=_share(sum(d.coincidences for d in drawings), sum(d.candidates for d in drawings)),
        known=_share(sum(d.known for d in drawings), sum(d.asked for d in drawings)),
    )


def _half_width(n: int) -> float:
    return min(1.0, 1.96 * math.sqrt(0.25 / n))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
