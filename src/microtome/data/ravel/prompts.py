"""Prompts: a template filled with an entity, and where in it the entity stands.

A span is [first character, one past the last), in characters of the prompt, so that a model room can map it to tokens
of each example (`last_token`) rather than to one offset a template, which fails where a name changes how the rest is
cut into tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.pairs import Pair
from microtome.data.ravel.tables import SLOT, EntityTable

__all__ = ["Prompt", "fill", "last_token", "prompts", "spans"]

Span = tuple[int, int]


@dataclass(frozen=True)
class Prompt:
    """A template filled with an entity.

    Attributes:
        text: the prompt.
        span: of the entity, in characters.
        template: the template's text.
        entity: the entity's name.
        attribute: what is asked.
    """

    text: str
    span: Span
    template: str
    entity: str
    attribute: str


def fill(template: str, entity: str) -> tuple[str, Span]:
    """Return a template's text with an entity in its place, and the entity's span."""
    start = template.index(SLOT)
    return template[:start] + entity + template[start + len(SLOT) :], (start, start + len(entity))


def prompts(
    table: EntityTable,
    *,
    attribute: str | None = None,
    splits: Sequence[str] = ("train", "val", "test"),
    per_template: int | None = None,
    seed: int = 0,
) -> Iterator[Prompt]:
    """Yield the prompts a model should be asked, template by template.

    Args:
        table: of entities and templates.
        attribute: the only one asked for; None for every one that can be scored.
        splits: of templates and of entities.
        per_template: entities drawn for each template; None for all.
        seed: of the draw.
    """
    entities = table.entities_in(splits)
    for index, template in enumerate(table.templates_in(splits, attribute=attribute)):
        chosen = range(len(entities))
        if per_template is not None and per_template < len(entities):
            rng = generator(seed, "prompts", table.entity_type, index)
            chosen = sorted(rng.choice(len(entities), per_template, replace=False))
        for i in chosen:
            text, span = fill(template.text, entities[i].name)
            yield Prompt(text, span, template.text, entities[i].name, template.attribute)


def spans(pair: Pair) -> tuple[Span, Span]:
    """Return the spans of the entities in a pair's base and source, from the groups that `draw_pairs` gives it.

    Raises:
        DataError: the groups do not make up the pair's texts.
    """
    found = []
    for text, keys in ((pair.base, ("template", "entity")), (pair.source, ("source_template", "source_entity"))):
        template, entity = (pair.groups.get(key, "") for key in keys)
        filled, span = fill(template, entity) if template.count(SLOT) == 1 else ("", (0, 0))
        if filled != text:
            raise DataError(
                f"The groups {' and '.join(keys)} do not make up {text[-60:]!r}; give pairs drawn by draw_pairs."
            )
        found.append(span)
    return found[0], found[1]


def last_token(offsets: Sequence[Span], span: Span) -> int:
    """Return the index of the token that holds a span's last character.

    Args:
        offsets: of each token, in characters of the same text; special tokens as (0, 0).
        span: of the entity.

    Raises:
        DataError: no token holds it.
    """
    last = span[1] - 1
    for index, (start, end) in enumerate(offsets):
        if start <= last < end:
            return index
    raise DataError(
        f"No token holds character {last} of the prompt ({len(offsets)} tokens); give the offsets of the same text, "
        "not cut short."
    )
