"""Puzzle items: for one answer and one counterfactual answer, four pairs of entities, one pair for each cell.

    recall        a country and its counterfactual             (France, Japan)    -> euro, yen
    latent_2hop   a city in each                               (Lyon, Osaka)
    lookup        two invented lands said to have the answers  (Zorvia, Blanor)
    context_2hop  two invented places in those lands           (Kremak, Muldun)

Countries are paired once, so that items can be split without a country on both sides. In a pair, the names have equal
token counts and the answers differ in their first token. A pair whose names hold an answer (South Africa, Africa) is
left out: it could be answered by copying where the cell says it must be recalled.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from microtome.data.atlas import City, Facts, load_facts, nonce_names, two_hop_split
from microtome.data.puzzles.tokens import Vocabulary

__all__ = ["Item", "candidate_items"]


@dataclass(frozen=True)
class Item:
    """One answer, its counterfactual, and who is asked about in each cell; second members are the counterfactual's.

    Attributes:
        name: `asked-counterfactual/relation`, by the names of the two countries.
        pair: the two countries, in the order of the alphabet; what a split must not cut.
        relation: what is asked.
        answers: answer and counterfactual answer.
        countries: real countries that have them.
        cities: a real city in each.
        lands: invented names for the countries of a passage.
        places: invented names for the cities of a passage.
        two_hop: `train` where zoo:atlas was shown the city's answer, else `pair` or `city` (`two_hop_split`).
    """

    name: str
    pair: str
    relation: str
    answers: tuple[str, str]
    countries: tuple[str, str]
    cities: tuple[str, str]
    lands: tuple[str, str]
    places: tuple[str, str]
    two_hop: str


def candidate_items(
    vocabulary: Vocabulary, relations: Sequence[str], seed: int, refused: Counter[str]
) -> Iterator[Item]:
    """Yield items that fit the tokenizer, pairs and relations taking turns; why others were refused is counted.

    Args:
        vocabulary: the tokenizer.
        relations: what may be asked.
        seed: of the pairing, the cities and the invented names.
        refused: gains one for each candidate refused, under its reason.
    """
    facts = load_facts()
    rng = random.Random(f"items-{seed}")
    pairs = list(_country_pairs(facts, vocabulary, rng))
    refused["pairs of countries"] = len(pairs)
    for direction, shift, index in product((1, -1), range(len(relations)), range(len(pairs))):
        relation = relations[(index + shift) % len(relations)]
        first, second = pairs[index][::direction]
        item = _item(facts, vocabulary, relation, (first, second), rng, refused)
        if item is not None:
            yield item


def _country_pairs(facts: Facts, vocabulary: Vocabulary, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Pair countries that have cities, each with one of equal token count."""
    by_length: dict[int, list[str]] = {}
    for country in dict.fromkeys(c.country for c in facts.cities):
        by_length.setdefault(vocabulary.length(country), []).append(country)
    for _, bucket in sorted(by_length.items()):
        rng.shuffle(bucket)
        yield from zip(bucket[::2], bucket[1::2], strict=False)


def _item(
    facts: Facts,
    vocabulary: Vocabulary,
    relation: str,
    countries: tuple[str, str],
    rng: random.Random,
    refused: Counter[str],
) -> Item | None:
    answers = (facts.answer(countries[0], relation), facts.answer(countries[1], relation))
    ids = [vocabulary.sentence(answer) for answer in answers]
    if answers[0] == answers[1]:
        refused["same answer"] += 1
        return None
    if ids[0][0] == ids[1][0]:
        refused["answers alike in their first token"] += 1
        return None
    cities = _cities(facts, vocabulary, relation, countries, rng)
    if cities is None:
        refused["no cities of equal token count"] += 1
        return None
    if any(_holds(place, answer) for place in (*countries, *(c.name for c in cities)) for answer in answers):
        refused["an answer inside a name"] += 1
        return None
    names = _nonce(vocabulary, vocabulary.length(countries[0]), rng)
    first, second = sorted(countries)
    return Item(
        name=f"{countries[0]}-{countries[1]}/{relation}".replace(" ", "_"),
        pair=f"{first}-{second}".replace(" ", "_"),
        relation=relation,
        answers=answers,
        countries=countries,
        cities=(cities[0].name, cities[1].name),
        lands=(names[0], names[1]),
        places=(names[2], names[3]),
        two_hop=two_hop_split(cities[0], relation),
    )


def _holds(name: str, answer: str) -> bool:
    return re.search(rf"\b{re.escape(answer)}\b", name) is not None


def _cities(
    facts: Facts, vocabulary: Vocabulary, relation: str, countries: tuple[str, str], rng: random.Random
) -> tuple[City, City] | None:
    """Draw a city of each country, of equal token count; cities whose answer training withheld come first."""
    groups = [[c for c in facts.cities if c.country == country] for country in countries]
    options = [o for o in product(*groups) if vocabulary.length(o[0].name) == vocabulary.length(o[1].name)]
    if not options:
        return None
    wanted = vocabulary.length(countries[0])
    rng.shuffle(options)

    def rank(option: tuple[City, ...]) -> tuple[int, bool]:
        shown = sum(two_hop_split(city, relation) == "train" for city in option)
        return shown, vocabulary.length(option[0].name) != wanted

    first, second = min(options, key=rank)
    return first, second


def _nonce(vocabulary: Vocabulary, wanted: int, rng: random.Random) -> list[str]:
    """Draw four invented names of one token count, the wanted one if enough names have it, else the most common."""
    by_length: dict[int, list[str]] = {}
    for name in nonce_names():
        by_length.setdefault(vocabulary.length(name), []).append(name)
    best = by_length.get(wanted, [])
    return rng.sample(best if len(best) >= 16 else max(by_length.values(), key=len), 4)
