"""A smaller table of the same shape: some of its entities and templates, every split with its share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from microtome.core.seeds import generator
from microtome.data.ravel.tables import SPLITS, Entity, EntityTable, Template, WikiPrompt

__all__ = ["subset"]

Item = TypeVar("Item", Entity, Template, WikiPrompt)


def subset(
    table: EntityTable,
    *,
    entities: int | None = None,
    templates: int | None = None,
    wikipedia: int | None = None,
    seed: int = 0,
) -> EntityTable:
    """Return a table with at most so many entities, templates of each attribute, and sentences that ask for nothing.

    Every split keeps its share of the places, and one at least where it has any, so that none is emptied. Sentences
    bound to an entity that is left out go with it.

    Args:
        table: to draw from; where nothing is left out, its own order and content.
        entities: most entities; None for all.
        templates: most templates of each attribute; None for all.
        wikipedia: most sentences; None for all.
        seed: of the draw.
    """
    chosen = _drawn(table.entities, entities, seed, "entities")
    asked: list[Template] = []
    for attribute in dict.fromkeys(t.attribute for t in table.templates):
        own = [t for t in table.templates if t.attribute == attribute]
        asked += _drawn(own, templates, seed, f"templates of {attribute}")
    names = {e.name for e in chosen}
    bound = [w for w in table.wikipedia if w.entity is None or w.entity in names]
    return replace(
        table, entities=tuple(chosen), templates=tuple(asked), wikipedia=tuple(_drawn(bound, wikipedia, seed, "wiki"))
    )


def _drawn(items: Sequence[Item], most: int | None, seed: int, what: str) -> list[Item]:
    """Return some of the items in their order, each split with its share of the places."""
    if most is None or len(items) <= most:
        return list(items)
    kept: set[int] = set()
    for split in SPLITS:
        own = [i for i, item in enumerate(items) if item.split == split]
        places = min(len(own), max(1, round(most * len(own) / len(items))))
        rng = generator(seed, "subset", what, split)
        kept |= set(rng.choice(own, places, replace=False).tolist()) if own else set()
    return [item for i, item in enumerate(items) if i in kept]
