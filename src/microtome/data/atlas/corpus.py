"""The atlas corpus: an endless, seeded stream of short documents.

Five kinds of document, drawn by the weights of a `Mix`:

    facts     statements of true facts, one hop (countries, cities) and two hops (cities), among filler sentences
    lookup    a passage about two to four invented lands, then questions it answers, now and then one about a real
              place that it does not answer
    links     a passage that says in which invented land each of two to four invented towns lies, and asks it
    chain     the passage says both, and most questions take two hops
    edited    a passage about real lands with values swapped, so that it contradicts what is true; asked about the
              lands, or about cities in them, which the passage may or may not place

A town's land is half the time asked as `Letters go to Zornor` -> ` Blavia`, where the answer follows the town at once:
that makes the model look the land up at the town's own token, which is where the second hop needs it. Without it,
chains are not learnt in the time there is.

Every document says where its answers stand; the loss can weigh them. Some two-hop facts are never shown
(`two_hop_split`), so answering them is generalisation. All wording is training wording.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from microtome.data.atlas.facts import TWO_HOP_RELATIONS, City, Facts, load_facts
from microtome.data.atlas.names import fillers, nonce_names
from microtome.data.atlas.templates import Template, templates

__all__ = ["Answer", "Document", "Mix", "documents", "two_hop_split"]


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of document; they need not sum to one."""

    facts: float = 0.2
    lookup: float = 0.05
    links: float = 0.1
    chain: float = 0.5
    edited: float = 0.15


@dataclass(frozen=True)
class Answer:
    """Where one answer stands in a document's text.

    Attributes:
        start: first character, the space before the answer included.
        end: one past the last character.
        known: True where the weights or the passage determine it, False where it is news.
    """

    start: int
    end: int
    known: bool


@dataclass(frozen=True)
class Document:
    """One short text and its answers."""

    text: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class _Sentence:
    """A cue with its answer, or a filler (no answer)."""

    cue: str
    answer: str | None = None
    known: bool = False


def two_hop_split(city: City, relation: str) -> str:
    """Return `train`, `pair` (this city and relation never meet in training) or `city` (no two-hop fact of it does).

    A fixed rule on the tables' order: every tenth city is held out whole; of the others, each keeps two or three of
    its four relations.
    """
    facts = load_facts()
    index = facts.cities.index(city)
    if index % 10 == 9:
        return "city"
    return "pair" if (index + TWO_HOP_RELATIONS.index(relation)) % 3 == 0 else "train"


def documents(seed: int, mix: Mix | None = None) -> Iterator[Document]:
    """Yield documents without end; the same seed and mix give the same stream.

    Args:
        seed: of the stream.
        mix: shares of the kinds; the default is what zoo:atlas is trained on.
    """
    rng = random.Random(f"atlas-corpus-{seed}")
    mix = mix or Mix()
    writer = _Writer(load_facts(), rng)
    kinds = (
        writer.facts_document,
        writer.lookup_document,
        writer.links_document,
        writer.chain_document,
        writer.edited_document,
    )
    shares = (mix.facts, mix.lookup, mix.links, mix.chain, mix.edited)
    while True:
        (kind,) = rng.choices(kinds, shares)
        yield _join(kind())


def _join(sentences: list[_Sentence]) -> Document:
    text, answers = "", []
    for sentence in sentences:
        text += (" " if text else "") + sentence.cue
        if sentence.answer is not None:
            answers.append(Answer(len(text), len(text) + 1 + len(sentence.answer), sentence.known))
            text += f" {sentence.answer}."
    return Document(text, tuple(answers))


class _Writer:
    """Draws documents from one random stream."""

    def __init__(self, facts: Facts, rng: random.Random):
        self.facts, self.rng = facts, rng
        self.wordings = {r: templates(r, held_out=False) for r in (*TWO_HOP_RELATIONS, "country")}
        self.vocabulary = {r: facts.vocabulary(r) for r in TWO_HOP_RELATIONS}
        self.at_once: Template = next(w for w in self.wordings["country"] if w.text.endswith("{e}"))
        self.two_hops = [(c.name, r) for c in facts.cities for r in TWO_HOP_RELATIONS if two_hop_split(c, r) == "train"]
        self.shown = set(self.two_hops)
        self.one_hops = [(c.name, r) for c in facts.countries for r in TWO_HOP_RELATIONS]
        self.one_hops += [(city, "country") for city in facts.country_of]
        self.cities_in: dict[str, list[str]] = {}
        for city in facts.cities:
            self.cities_in.setdefault(city.country, []).append(city.name)

    def facts_document(self) -> list[_Sentence]:
        """Five true statements, some sentences of no account between them."""
        sentences = [self._true_statement() for _ in range(5)]
        if self.rng.random() < 0.5:
            sentences[self.rng.randrange(4)] = self._filler()
        return sentences

    def lookup_document(self) -> list[_Sentence]:
        """A passage about two to four invented lands, among fillers, and four questions about them."""
        relation, n = self.rng.choice(TWO_HOP_RELATIONS), self.rng.choice((2, 2, 3, 4))
        lands, values = self._nonce(n), self.rng.sample(self.vocabulary[relation], n)
        passage = [self._statement(land, relation, value) for land, value in zip(lands, values, strict=True)]
        if n == 2:
            passage += [self._filler() for _ in range(self.rng.choice((0, 0, 1, 2)))]
        self.rng.shuffle(passage)
        asked = self.rng.choices(range(n), k=4)
        return passage + [self._land_question(relation, lands[i], values[i], set(lands)) for i in asked]

    def links_document(self) -> list[_Sentence]:
        """A passage that places two to four invented towns in invented lands, and asks where each lies."""
        n = self.rng.choice((2, 3, 4))
        names = self._nonce(2 * n)
        lands, towns = names[:n], names[n:]
        passage = [self._link(town, land) for town, land in zip(towns, lands, strict=True)]
        self.rng.shuffle(passage)
        return passage + [self._link(towns[i], lands[i], known=True) for i in self._order(n)]

    def chain_document(self) -> list[_Sentence]:
        """A passage about two to four invented towns in as many invented lands, each asked about once."""
        relation, n = self.rng.choice(TWO_HOP_RELATIONS), self.rng.choice((2, 2, 3, 4))
        names, values = self._nonce(2 * n), self.rng.sample(self.vocabulary[relation], n)
        lands, towns = names[:n], names[n:]
        passage = [self._statement(land, relation, value) for land, value in zip(lands, values, strict=True)]
        passage += [self._statement(town, "country", land) for town, land in zip(towns, lands, strict=True)]
        self.rng.shuffle(passage)
        return passage + [
            self._chain_question(relation, lands[i], towns[i], values[i], set(names)) for i in self._order(n)
        ]

    def edited_document(self) -> list[_Sentence]:
        """A passage about two real lands, with values swapped, drawn anew or true, and three questions.

        Cities are asked about in half of these; half the time the passage says where they lie. Only cities whose own
        two-hop fact may be shown are: a passage with true values would otherwise give withheld facts away.
        """
        relation = self.rng.choice(TWO_HOP_RELATIONS)
        lands = self.rng.sample(list(self.cities_in), 2)
        cities = [self._shown_city(land, relation) for land in lands] if self.rng.random() < 0.5 else []
        true = [self.facts.answer(land, relation) for land in lands]
        drawn = self.rng.random()
        values = true if drawn < 0.2 else true[::-1] if drawn < 0.6 else self.rng.sample(self.vocabulary[relation], 2)
        passage = [self._statement(land, relation, value) for land, value in zip(lands, values, strict=True)]
        if not all(cities):
            cities = []
        if cities and self.rng.random() < 0.5:
            passage += [self._statement(city, "country", land) for city, land in zip(cities, lands, strict=True)]
        self.rng.shuffle(passage)
        names = {*lands, *cities}
        if not cities:
            asked = self.rng.choices(range(2), k=3)
            return passage + [self._land_question(relation, lands[i], values[i], names) for i in asked]
        return passage + [self._chain_question(relation, lands[i], cities[i], values[i], names) for i in self._order(2)]

    def _shown_city(self, land: str, relation: str) -> str:
        """Draw a city whose two-hop fact training may show; an empty name where the land has none."""
        shown = [c for c in self.cities_in[land] if (c, relation) in self.shown]
        return self.rng.choice(shown) if shown else ""

    def _order(self, n: int) -> list[int]:
        return self.rng.sample(range(n), n)

    def _land_question(self, relation: str, land: str, value: str, avoid: set[str]) -> _Sentence:
        """Ask one hop about a land; now and then about a real place elsewhere."""
        if self.rng.random() < 0.1:
            return self._true_statement(avoid)
        return self._statement(land, relation, value, known=True)

    def _chain_question(self, relation: str, land: str, town: str, value: str, avoid: set[str]) -> _Sentence:
        """Ask two hops about a town, mostly; else where it lies, or about its land, or about a real place elsewhere."""
        kind = self.rng.random()
        if kind < 0.05:
            return self._true_statement(avoid)
        if kind < 0.65:
            return self._statement(town, relation, value, known=True)
        if kind < 0.85:
            return self._link(town, land, known=True)
        return self._statement(land, relation, value, known=True)

    def _link(self, town: str, land: str, known: bool = False) -> _Sentence:
        """Say where a town lies, half the time so that the land follows its name at once."""
        if self.rng.random() < 0.5:
            return _Sentence(self.at_once.cue(town), land, known)
        return self._statement(town, "country", land, known)

    def _true_statement(self, avoid: frozenset[str] | set[str] = frozenset()) -> _Sentence:
        while True:
            pool = self.two_hops if self.rng.random() < 0.4 else self.one_hops
            entity, relation = self.rng.choice(pool)
            if entity not in avoid and self.facts.country_of.get(entity) not in avoid:
                return self._statement(entity, relation, self.facts.answer(entity, relation), known=True)

    def _statement(self, entity: str, relation: str, answer: str, known: bool = False) -> _Sentence:
        wording: Template = self.rng.choice(self.wordings[relation])
        return _Sentence(wording.cue(entity), answer, known)

    def _filler(self) -> _Sentence:
        return _Sentence(self.rng.choice(fillers()))

    def _nonce(self, n: int) -> list[str]:
        return self.rng.sample(nonce_names(), n)
