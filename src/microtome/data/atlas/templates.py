"""How the atlas world speaks: paraphrases of each relation, split into training wording and held-out wording.

A template is a cue that ends right before its answer: `People in {e} pay with the` -> ` euro`. A cue followed by its
answer and a full stop is a statement, so facts in a passage and questions at its end share one list. `{e}` is a
country or a city (the question then takes one hop or two), and the word between stars carries the relation. Held-out
wording recombines words of the training wording, and ends in a word after which training gives that relation's answers:
it tests the fact, not an unseen word or a turn of phrase that goes on otherwise.
"""

import re
from dataclasses import dataclass

from microtome.core.errors import DataError, did_you_mean

__all__ = ["HELD_OUT_WORDINGS", "RELATIONS", "TRAIN_WORDINGS", "Template", "templates"]

TRAIN_WORDINGS = 8
HELD_OUT_WORDINGS = 4

_CUES = {
    "currency": (
        "People in {e} *pay* with the",
        "Shops in {e} *take* the",
        "The *currency* of {e} is the",
        "The *money* people use in {e} is the",
        "*Prices* in {e} are given in the",
        "Workers in {e} are *paid* in the",
        "{e} uses the *currency* called the",
        "In {e} you *pay* in the",
        # held out
        "The *money* people in {e} use is the",
        "Shops in {e} are *paid* in the",
        "In {e} the *currency* is the",
        "Workers in {e} *pay* with the",
    ),
    "language": (
        "People in {e} *speak*",
        "The *language* of {e} is",
        "The *language* spoken in {e} is",
        "Schools in {e} *teach* in",
        "Books in {e} are *written* in",
        "Children in {e} *learn*",
        "{e} uses the *language* called",
        "In {e} you *hear*",
        # held out
        "Children in {e} *speak*",
        "In {e} the *language* is",
        "Books in {e} use the *language* called",
        "The *language* people in {e} use is",
    ),
    "continent": (
        "The *continent* of {e} is",
        "{e} is on the *continent* of",
        "On a *map* {e} is part of",
        "{e} belongs to the *continent* called",
        "You find {e} on the *continent* of",
        "The *continent* around {e} is",
        "{e} has its place on the *map* of",
        "The wide *continent* where {e} lies is",
        # held out
        "On a *map* you find {e} on the continent of",
        "The *continent* {e} belongs to is",
        "{e} is part of the *continent* called",
        "The *map* of the continent around {e} is of",
    ),
    "capital": (
        "{e} is *governed* from",
        "The *government* of {e} sits in",
        "Laws for {e} are *made* in",
        "The *capital* over {e} is",
        "The *parliament* of {e} meets in",
        "{e} is *ruled* from",
        "The *rulers* over {e} live in",
        "The *laws* of {e} come from",
        # held out
        "The *government* over {e} meets in",
        "The *parliament* of {e} sits in",
        "The *rulers* of {e} live in",
        "Laws for {e} *come* from",
    ),
    "country": (
        "{e} is a *city* in",
        "{e} *lies* in",
        "{e} is *found* in",
        "The *country* of {e} is",
        "{e} is a *town* in",
        "The *city* of {e} is in",
        "*Letters* go to {e}",
        "The *nation* around {e} is",
        # held out
        "The *town* of {e} lies in",
        "The *country* around {e} is",
        "{e} is a *city* found in",
        "The *nation* of {e} is",
    ),
}

RELATIONS = tuple(_CUES)


@dataclass(frozen=True)
class Template:
    """One wording of a relation.

    Attributes:
        relation: what is asked.
        text: the cue, with `{e}` for the entity.
        key: the word that carries the relation.
        held_out: True for wording that training never shows.
    """

    relation: str
    text: str
    key: str
    held_out: bool

    def cue(self, entity: str) -> str:
        """Return the cue about an entity; it ends right before the answer."""
        return self.text.replace("{e}", entity)

    def statement(self, entity: str, answer: str) -> str:
        """Return the sentence that says the answer."""
        return f"{self.cue(entity)} {answer}."


def templates(relation: str, *, held_out: bool | None = None) -> tuple[Template, ...]:
    """Return the wordings of a relation.

    Args:
        relation: one of `RELATIONS`.
        held_out: True or False for one side of the split, None for both (training wording first).

    Raises:
        DataError: no such relation.
    """
    if relation not in _CUES:
        raise DataError(
            f"No wording for relation '{relation}'; there is for {', '.join(RELATIONS)}.{did_you_mean(relation, _CUES)}"
        )
    both = tuple(_template(relation, text, index) for index, text in enumerate(_CUES[relation]))
    return both if held_out is None else tuple(t for t in both if t.held_out == held_out)


def _template(relation: str, marked: str, index: int) -> Template:
    key = re.search(r"\*(\w+)\*", marked)
    assert key is not None
    return Template(relation, marked.replace("*", ""), key.group(1), index >= TRAIN_WORDINGS)
