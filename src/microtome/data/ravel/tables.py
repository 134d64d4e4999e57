"""Entity tables: entities with the values of their attributes, and templates that ask for one of them.

The format is RAVEL's (arXiv 2402.17700): an entity type holds entities, each with one value per attribute and a split;
templates, each with exactly one `%s` where the entity goes, the attribute it asks for and a split; and sentences that
name an entity and ask for nothing (`WikiPrompt`), some bound to the one entity they were written about. A table may
have templates for an attribute that no entity has a value of (RAVEL's occupations: Gender Bias): it is kept and
reported by `defects`, since nothing can be scored on it. Empty values are kept here too; views decide about them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from microtome.core.errors import DataError, did_you_mean

__all__ = ["ENTITY_TYPES", "SLOT", "SPLITS", "Entity", "EntityTable", "Template", "WikiPrompt"]

ENTITY_TYPES = ("city", "nobel_prize_winner", "verb", "physical_object", "occupation")
"""The five entity types of the benchmark."""

SPLITS = ("train", "val", "test")

SLOT = "%s"
"""Where a template takes its entity."""


@dataclass(frozen=True)
class Entity:
    """One entity.

    Attributes:
        name: as it is written into templates.
        values: the value of every attribute; may be empty in the benchmark's own files.
        split: `train`, `val` or `test`.
    """

    name: str
    values: Mapping[str, str]
    split: str


@dataclass(frozen=True)
class Template:
    """A text with one `%s` that asks for an attribute; it ends right before the answer."""

    text: str
    attribute: str
    split: str


@dataclass(frozen=True)
class WikiPrompt:
    """A text with one `%s` that asks for nothing; `entity` is the only one it may be filled with, None for any."""

    text: str
    entity: str | None
    split: str


@dataclass(frozen=True)
class EntityTable:
    """One entity type, checked: names once, every value there, every split known, one `%s` in every text.

    Attributes:
        entity_type: its name, e.g. `city`.
        entities: in the order of the file.
        templates: in the order of the file.
        wikipedia: may be empty.

    Raises:
        DataError: no entities; an entity twice, or without a value of an attribute that others have; a template
            without exactly one `%s`; an unknown split.
    """

    entity_type: str
    entities: tuple[Entity, ...]
    templates: tuple[Template, ...]
    wikipedia: tuple[WikiPrompt, ...] = ()

    def __post_init__(self):
        if not self.entities or not self.templates:
            lack = "templates" if self.entities else "entities"
            raise DataError(f"The table of '{self.entity_type}' has no {lack}; it needs entities and templates.")
        self._check_entities()
        for text in (*self.templates, *self.wikipedia):
            check_slot(text.text, self.entity_type)
        for item in (*self.entities, *self.templates, *self.wikipedia):
            check_split(item.split, item.name if isinstance(item, Entity) else item.text)

    def _check_entities(self) -> None:
        seen: set[str] = set()
        for entity in self.entities:
            if not entity.name or entity.name in seen:
                raise DataError(
                    f"The table of '{self.entity_type}' has an entity named '{entity.name}' "
                    f"{'twice' if entity.name else '(nothing)'}; give every entity one name of its own."
                )
            seen.add(entity.name)
            missing = [a for a in self.attributes if a not in entity.values]
            if missing:
                raise DataError(
                    f"Entity '{entity.name}' of '{self.entity_type}' has no {', '.join(missing)}; other entities "
                    f"have {', '.join(self.attributes)}: give it a value or drop the entity."
                )

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """Attributes that entities have values of, in the order of their first mention."""
        return tuple(dict.fromkeys(a for entity in self.entities for a in entity.values))

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """Attributes with both values and templates: what can be scored."""
        with_template = {t.attribute for t in self.templates}
        return tuple(a for a in self.attributes if a in with_template)

    @cached_property
    def entity(self) -> dict[str, Entity]:
        """Entities by name."""
        return {e.name: e for e in self.entities}

    def value(self, entity: str, attribute: str) -> str:
        """Return what the table says.

        Raises:
            DataError: no such entity or attribute.
        """
        if entity not in self.entity:
            raise DataError(
                f"No entity '{entity}' among the {len(self.entities)} of '{self.entity_type}'; use one of the table's "
                f"names.{did_you_mean(entity, self.entity)}"
            )
        return self.entity[entity].values[self.known(attribute)]

    def column(self, attribute: str) -> tuple[str, ...]:
        """Return an attribute's values, one an entity."""
        self.known(attribute)
        return tuple(e.values[attribute] for e in self.entities)

    def known(self, attribute: str) -> str:
        """Return the attribute's name where entities have values of it.

        Raises:
            DataError: they have none.
        """
        if attribute not in self.attributes:
            raise DataError(
                f"No attribute '{attribute}' in '{self.entity_type}', which has {', '.join(self.attributes)}; use one "
                f"of these.{did_you_mean(attribute, self.attributes)}"
            )
        return attribute

    def entities_in(self, splits: str | Iterable[str]) -> tuple[Entity, ...]:
        """Return the entities of one split or several."""
        wanted = _splits(splits)
        return tuple(e for e in self.entities if e.split in wanted)

    def templates_in(self, splits: str | Iterable[str], *, attribute: str | None = None) -> tuple[Template, ...]:
        """Return the templates of one split or several, of one attribute or of all that can be scored."""
        wanted, asked = _splits(splits), self.asked if attribute is None else (self.known(attribute),)
        return tuple(t for t in self.templates if t.split in wanted and t.attribute in asked)

    def wikipedia_in(self, splits: str | Iterable[str]) -> tuple[WikiPrompt, ...]:
        """Return the Wikipedia prompts of one split or several."""
        wanted = _splits(splits)
        return tuple(w for w in self.wikipedia if w.split in wanted)


def _splits(splits: str | Iterable[str]) -> tuple[str, ...]:
    wanted = (splits,) if isinstance(splits, str) else tuple(splits)
    for split in wanted:
        check_split(split, "the request")
    return wanted


def check_split(split: object, of: str) -> str:
    """Return a split's name.

    Raises:
        DataError: it is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise DataError(f"The split of {of[-60:]!r} is '{split}'; use one of {', '.join(SPLITS)}.")
    return str(split)


def check_slot(text: str, entity_type: str) -> str:
    """Return a template's text.

    Raises:
        DataError: it does not hold `%s` exactly once.
    """
    if text.count(SLOT) != 1:
        raise DataError(
            f"Template {text[-80:]!r} of '{entity_type}' has {text.count(SLOT)} places for an entity; it needs "
            f"exactly one '{SLOT}'."
        )
    return text
