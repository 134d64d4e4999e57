"""From an item to the prompts of its four cells: one skeleton, one token count, one answer vocabulary.

A prompt is four sentences and a cue. In `context_2hop` the sentences say where the two places are and what the two
lands have; in `lookup` only the latter; in `recall` and `latent_2hop` none of it. A sentence that is absent gives its
slot to a filler of as many tokens, so the four prompts of an item and skeleton have equal length and word order.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from microtome.data.atlas import Template, templates
from microtome.data.puzzles.items import Item
from microtome.data.puzzles.tokens import Vocabulary

__all__ = ["SKELETONS", "Cell", "Sentence", "Skeleton", "Variant", "render_cells"]


class Cell(StrEnum):
    """Where the fact is (weights or context) and how many hops the question takes."""

    RECALL = "recall"
    LOOKUP = "lookup"
    LATENT_2HOP = "latent_2hop"
    CONTEXT_2HOP = "context_2hop"

    @property
    def in_context(self) -> bool:
        """True where the passage holds the fact."""
        return self in (Cell.LOOKUP, Cell.CONTEXT_2HOP)

    @property
    def hops(self) -> int:
        """One or two."""
        return 2 if self in (Cell.LATENT_2HOP, Cell.CONTEXT_2HOP) else 1


class Variant(StrEnum):
    """What the passages are about."""

    NONCE = "nonce"
    SHARED = "shared"
    REAL = "real"
    CONTRADICT = "contradict"


@dataclass(frozen=True)
class Skeleton:
    """One choice of wording for question, facts and places, whatever the relation.

    Attributes:
        name: `s00` and on.
        index: which wording.
        held_out: True where all its wording is withheld from the training of zoo:atlas.
    """

    name: str
    index: int
    held_out: bool

    def question(self, relation: str) -> Template:
        """Return the wording of the cue."""
        return self._pick(relation, 0)

    def statement(self, relation: str) -> Template:
        """Return the wording of the facts in the passage."""
        return self._pick(relation, 3)

    def link(self) -> Template:
        """Return the wording of the sentences that place a city in a country."""
        return self._pick("country", 5)

    def _pick(self, relation: str, shift: int) -> Template:
        pool = templates(relation, held_out=self.held_out)
        return pool[(self.index + shift) % len(pool)]


SKELETONS = tuple(Skeleton(f"s{i:02d}", i if i < 8 else i - 8, i >= 8) for i in range(12))


@dataclass(frozen=True)
class Sentence:
    """One sentence, or the cue at the end, with the places of its parts.

    Attributes:
        text: the words.
        spans: (start, end) in characters by class, for the classes that occur.
    """

    text: str
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def render_cells(
    item: Item,
    skeleton: Skeleton,
    vocabulary: Vocabulary,
    variant: Variant,
    seed: int,
    refused: Counter[str],
) -> dict[Cell, tuple[tuple[Sentence, ...], Sentence]] | None:
    """Return (sentences of the prompt, cue of its counterfactual) of each cell, or None where that cannot be.

    Args:
        item: who and what is asked.
        skeleton: the wording.
        vocabulary: the tokenizer.
        variant: what the passages are about.
        seed: of the order of sentences and the choice of fillers.
        refused: gains one under the reason when None is returned.
    """
    rng = random.Random(f"render-{seed}-{item.name}-{skeleton.name}")
    roles = ["fact", "cf_fact", "link", "cf_link"]
    rng.shuffle(roles)
    full = _passage(item, skeleton, variant)
    cues = {cell: [_cue(item, skeleton, cell, variant, which) for which in (0, 1)] for cell in Cell}
    slots = [vocabulary.length(full[role].text, first=i == 0) for i, role in enumerate(roles)]
    longest = vocabulary.length(cues[Cell.CONTEXT_2HOP][0].text)
    cells = {}
    for cell in Cell:
        spare = longest - vocabulary.length(cues[cell][0].text)
        passage = _fill([full[r] if r in _shown(cell, variant) else None for r in roles], slots, spare, vocabulary, rng)
        if passage is None:
            refused["no filler of the length needed"] += 1
            return None
        cells[cell] = ((*passage, cues[cell][0]), cues[cell][1])
    return cells


def _shown(cell: Cell, variant: Variant) -> frozenset[str]:
    if cell is Cell.CONTEXT_2HOP or variant is Variant.SHARED:
        return frozenset({"fact", "cf_fact", "link", "cf_link"})
    return frozenset({"fact", "cf_fact"}) if cell is Cell.LOOKUP else frozenset()


def _names(item: Item, variant: Variant) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return (lands, places) of the passage."""
    real = variant in (Variant.REAL, Variant.CONTRADICT)
    return (item.countries, item.cities) if real else (item.lands, item.places)


def _asked(item: Item, cell: Cell, variant: Variant, which: int) -> str:
    lands, places = _names(item, variant)
    by_cell = {
        Cell.RECALL: item.countries,
        Cell.LATENT_2HOP: item.cities,
        Cell.LOOKUP: lands,
        Cell.CONTEXT_2HOP: places,
    }
    return by_cell[cell][which]


def _cue(item: Item, skeleton: Skeleton, cell: Cell, variant: Variant, which: int) -> Sentence:
    wording, entity = skeleton.question(item.relation), _asked(item, cell, variant, which)
    at, key = wording.text.index("{e}"), wording.text.index(wording.key)
    key += len(entity) - len("{e}") if key > at else 0
    spans = {"entity": (at, at + len(entity)), "relation": (key, key + len(wording.key))}
    return Sentence(wording.cue(entity), spans)


def _passage(item: Item, skeleton: Skeleton, variant: Variant) -> dict[str, Sentence]:
    """Return the four sentences of the full passage by role."""
    lands, places = _names(item, variant)
    values = item.answers[::-1] if variant is Variant.CONTRADICT else item.answers
    fact, link = skeleton.statement(item.relation), skeleton.link()
    return {
        "fact": _statement("fact", fact, lands[0], values[0]),
        "cf_fact": _statement("cf_fact", fact, lands[1], values[1]),
        "link": _statement("link", link, places[0], lands[0]),
        "cf_link": _statement("cf_link", link, places[1], lands[1]),
    }


def _statement(role: str, wording: Template, entity: str, answer: str) -> Sentence:
    text, at = wording.statement(entity, answer), wording.text.index("{e}")
    end = len(text) - len(".")
    return Sentence(text, {f"{role}_entity": (at, at + len(entity)), f"{role}_answer": (end - len(answer), end)})


def _fill(
    wanted: list[Sentence | None], slots: list[int], spare: int, vocabulary: Vocabulary, rng: random.Random
) -> list[Sentence] | None:
    """Return the passage with a filler of its slot's token count for every absent sentence, the last of `spare` more.

    None where there is no such filler, or no absent sentence to take up the spare tokens.
    """
    absent = [i for i, sentence in enumerate(wanted) if sentence is None]
    if not absent:
        return None if spare else [s for s in wanted if s is not None]
    passage: list[Sentence] = []
    for i, sentence in enumerate(wanted):
        if sentence is None:
            length = slots[i] + (spare if i == absent[-1] else 0)
            used = {s.text for s in passage}
            options = [f for f in vocabulary.fillers(length, first=i == 0) if f not in used]
            if not options:
                return None
            sentence = Sentence(rng.choice(options))
        passage.append(sentence)
    return passage
