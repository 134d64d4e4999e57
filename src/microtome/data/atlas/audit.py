"""Audit the corpus: is a two-hop fact that training withholds ever said, and where?

A withheld fact (`two_hop_split` is not `train`) must not be stated on the corpus's own authority. A passage about real
places may still imply it: "Lyon lies in France. People in France pay with the euro." and then "People in Lyon pay with
the euro." The audit counts every such sentence and tells the two apart.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from microtome.data.atlas.corpus import Document, two_hop_split
from microtome.data.atlas.facts import TWO_HOP_RELATIONS, load_facts
from microtome.data.atlas.templates import templates

__all__ = ["Audit", "audit"]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        documents: looked at.
        answers: sentences with an answer in them.
        implied: sentences that state a withheld fact after a passage that says both of its hops.
        stated: sentences that state a withheld fact otherwise; should be none.
        denied: sentences that give a withheld question another answer, by an edited passage.
    """

    documents: int
    answers: int
    implied: int
    stated: int
    denied: int


def audit(documents: Iterable[Document]) -> Audit:
    """Return the count of withheld two-hop facts in some documents.

    Args:
        documents: finitely many, e.g. `itertools.islice(documents(0), 5000)`.
    """
    withheld, found = _withheld(), {"implied": 0, "stated": 0, "denied": 0}
    seen = answers = 0
    for document in documents:
        seen += 1
        for answer in document.answers:
            answers += 1
            before = document.text[: answer.start]
            about = withheld.get(before.rpartition(". ")[2])
            if about is not None:
                said = document.text[answer.start : answer.end].strip()
                found[_kind(*about, said, before)] += 1
    return Audit(seen, answers, **found)


@functools.cache
def _withheld() -> dict[str, tuple[str, str]]:
    """Return (city, relation) by every cue that asks a withheld two-hop fact."""
    pairs = [(city, r) for city in load_facts().cities for r in TWO_HOP_RELATIONS if two_hop_split(city, r) != "train"]
    return {t.cue(city.name): (city.name, r) for city, r in pairs for t in templates(r, held_out=None)}


def _kind(city: str, relation: str, said: str, before: str) -> str:
    facts = load_facts()
    if said != facts.answer(city, relation):
        return "denied"
    country = facts.country_of[city]
    placed = any(t.statement(city, country) in before for t in templates("country"))
    told = any(t.statement(country, said) in before for t in templates(relation))
    return "implied" if placed and told else "stated"
