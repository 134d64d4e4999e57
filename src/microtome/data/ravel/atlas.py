"""The atlas world's own facts as entity tables: what zoo:atlas was trained on, in the benchmark's form.

    atlas_country   capital, continent, language, currency of every country
    atlas_city      country, and by it capital, continent, language, currency of every city that is no capital

Templates are the atlas's cues: training wording gives the train and val templates, wording held out from training the
test templates, so the context test is wording the model never saw. Entities are split by seed; the model has seen all
countries, and of cities' two-hop facts only some (`two_hop_split`), which the filter of an instance will show. In
place of Wikipedia prompts stand sentences of no account that then name the entity and ask for nothing.
"""

import functools

from microtome.core.seeds import generator
from microtome.data.atlas import TWO_HOP_RELATIONS, fillers, load_facts, templates
from microtome.data.ravel.synthetic import assign_splits
from microtome.data.ravel.tables import SLOT, SPLITS, Entity, EntityTable, Template, WikiPrompt

__all__ = ["atlas_tables"]

_VAL_WORDINGS = 2
_BEGINNINGS = ("People in %s", "Shops in %s", "Children in %s", "Books in %s", "Workers in %s", "In %s")


@functools.cache
def atlas_tables(seed: int = 0) -> dict[str, EntityTable]:
    """Return the tables by entity type.

    Args:
        seed: of the entity split and of which training wording is val.

    Example:
        atlas_tables()["atlas_country"].value("France", "capital")
    """
    facts = load_facts()
    entities = {
        "atlas_country": (tuple(c.name for c in facts.countries), TWO_HOP_RELATIONS),
        "atlas_city": (tuple(c.name for c in facts.cities), ("country", *TWO_HOP_RELATIONS)),
    }
    return {kind: _table(kind, names, relations, seed) for kind, (names, relations) in entities.items()}


def _table(kind: str, names: tuple[str, ...], relations: tuple[str, ...], seed: int) -> EntityTable:
    facts, splits = load_facts(), assign_splits(names, seed=seed)
    entities = tuple(Entity(n, {r: facts.answer(n, r) for r in relations}, splits[n]) for n in names)
    asked = tuple(t for r in relations for t in _templates(r, seed))
    return EntityTable(kind, entities, asked, _prompts())


def _templates(relation: str, seed: int) -> tuple[Template, ...]:
    training = templates(relation, held_out=False)
    val = set(generator(seed, "atlas wording", relation).permutation(len(training))[:_VAL_WORDINGS].tolist())
    split = {t.text: "val" if i in val else "train" for i, t in enumerate(training)}
    return tuple(
        Template(t.text.replace("{e}", SLOT), relation, split.get(t.text, "test")) for t in templates(relation)
    )


def _prompts() -> tuple[WikiPrompt, ...]:
    """Return the sentences of no account, each beginning and each filler in one split only."""
    made = []
    for index, filler in enumerate(fillers()):
        split = SPLITS[index % len(SPLITS)]
        for beginning in _BEGINNINGS[index % len(SPLITS) :: len(SPLITS)]:
            made.append(WikiPrompt(f"{filler} {beginning}", None, split))
    return tuple(made)
