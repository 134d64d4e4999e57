"""What is wrong with a table, found and counted: nothing here changes it.

Kinds of defect, and what the cleaned view does about each:

    empty value         an entity lacks a value: the entity is dropped
    variant value       a value that another one stands for (case, spaces, plural, encoding): merged
    twin entity         a name that differs from an earlier one in case only: the later is dropped
    typo                a misspelt word in a template: mended
    repeated template   a text that stands earlier, once typos are mended: dropped
    no values           templates for an attribute that no entity has a value of: dropped
    no templates        an attribute that nothing asks for: kept, never scored
    lost prompt         a Wikipedia prompt bound to an entity that is not in the table: dropped
    exemplar            a template that names entities of the table among its examples: kept; an instance leaves out
                        the template for exactly those entities, since the answer could be copied
    imbalance           an attribute where one value covers more than half of the entities: kept; see `balance`

Exemplars are found as whole words, case counting, which is a lower bound.
"""

import re
from collections import Counter
from dataclasses import dataclass

from microtome.data.ravel.repairs import mend_text, same_values
from microtome.data.ravel.tables import SLOT, EntityTable

__all__ = ["Balance", "Defect", "DefectReport", "balance", "exemplars", "find_defects"]

_MAJORITY = 0.5


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong.

    Attributes:
        kind: as listed above.
        where: the entity, attribute or text concerned.
        found: what is there.
    """

    kind: str
    where: str
    found: str


@dataclass(frozen=True)
class Balance:
    """How an attribute's values are spread: the trivial baselines of every score.

    Attributes:
        attribute: its name.
        distinct: different values.
        majority: the most frequent one.
        share: of the entities that have it: the accuracy of always answering it.
        collision: probability that two entities drawn with replacement agree.
    """

    attribute: str
    distinct: int
    majority: str
    share: float
    collision: float


@dataclass(frozen=True)
class DefectReport:
    """Everything found in one table."""

    entity_type: str
    defects: tuple[Defect, ...]
    balance: tuple[Balance, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of defects by kind."""
        return dict(Counter(d.kind for d in self.defects))

    def of(self, kind: str) -> tuple[Defect, ...]:
        """Return the defects of one kind."""
        return tuple(d for d in self.defects if d.kind == kind)


def find_defects(table: EntityTable) -> DefectReport:
    """Return what is wrong with a table, with the spread of its values."""
    found = [*_values(table), *_entities(table), *_templates(table), *_prompts(table), *_exemplars(table)]
    spread = balance(table)
    found += [
        Defect("imbalance", b.attribute, f"'{b.majority}' for {b.share:.1%} of entities")
        for b in spread
        if b.share > _MAJORITY
    ]
    return DefectReport(table.entity_type, tuple(found), spread)


def balance(table: EntityTable) -> tuple[Balance, ...]:
    """Return how the values of every attribute are spread, an empty value counting as one of its own."""
    return tuple(_balance(attribute, table.column(attribute)) for attribute in table.attributes)


def exemplars(text: str, names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a template mentions, as whole words, beside the place for its entity."""
    rest = text.replace(SLOT, "\0")
    named = (n for n in names if n in rest)
    return tuple(n for n in named if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", rest))


def _balance(attribute: str, column: tuple[str, ...]) -> Balance:
    counts = Counter(column)
    majority, n = counts.most_common(1)[0]
    collision = sum((c / len(column)) ** 2 for c in counts.values())
    return Balance(attribute, len(counts), majority, n / len(column), collision)


def _values(table: EntityTable) -> list[Defect]:
    found = []
    for attribute in table.attributes:
        empty = [e.name for e in table.entities if not e.values[attribute].strip()]
        found += [Defect("empty value", name, attribute) for name in empty]
        stand, counts = same_values(table, attribute), Counter(table.column(attribute))
        found += [
            Defect("variant value", attribute, f"'{value}' ({counts[value]} entities) for '{by}'")
            for value, by in stand.items()
        ]
    return found


def _entities(table: EntityTable) -> list[Defect]:
    first: dict[str, str] = {}
    found = []
    for entity in table.entities:
        earlier = first.setdefault(entity.name.casefold(), entity.name)
        if earlier != entity.name:
            found.append(Defect("twin entity", entity.name, f"'{earlier}' stands earlier"))
    return found


def _templates(table: EntityTable) -> list[Defect]:
    seen: dict[str, str] = {}
    found = []
    for template in table.templates:
        mended = mend_text(template.text)
        if mended != template.text:
            found.append(Defect("typo", template.text, f"should be {mended!r}"))
        if mended in seen:
            found.append(Defect("repeated template", template.text, f"first in {seen[mended]}"))
        seen.setdefault(mended, f"{template.attribute}, {template.split}")
    asked = Counter(t.attribute for t in table.templates)
    found += [Defect("no values", a, f"{n} templates") for a, n in asked.items() if a not in table.attributes]
    found += [Defect("no templates", a, "nothing asks for it") for a in table.attributes if a not in asked]
    return found


def _prompts(table: EntityTable) -> list[Defect]:
    lost = [w for w in table.wikipedia if w.entity is not None and w.entity not in table.entity]
    return [Defect("lost prompt", w.text, f"bound to '{w.entity}'") for w in lost]


def _exemplars(table: EntityTable) -> list[Defect]:
    names = tuple(table.entity)
    named = ((t.text, exemplars(t.text, names)) for t in table.templates)
    return [Defect("exemplar", text, ", ".join(found)) for text, found in named if found]
