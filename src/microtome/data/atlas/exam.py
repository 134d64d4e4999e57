"""What zoo:atlas is examined on: questions by part of the world, in wording that training never showed.

    recall            every one-hop fact, weights only
    lookup            a passage about two invented lands, one hop
    context_2hop      the passage also places two invented towns in them, two hops
    edited            a passage that contradicts the weights: the passage is right
    latent_2hop       a city's two-hop facts, weights only: shown in training (`train`), withheld (`pair`), or of a
                      city none of whose two-hop facts was shown (`city`)

Chance is what the best constant guess scores where the weights must answer, and one half where the passage names two
candidates.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from microtome.data.atlas.corpus import two_hop_split
from microtome.data.atlas.facts import TWO_HOP_RELATIONS, Facts, load_facts
from microtome.data.atlas.names import nonce_names
from microtome.data.atlas.templates import templates

__all__ = ["Question", "constant_guess", "exam"]


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        part: what it examines.
        relation: what is asked.
        prompt: ends right before the answer.
        answer: without the space in front.
        in_passage: True where a passage names the answer and one other.
    """

    part: str
    relation: str
    prompt: str
    answer: str
    in_passage: bool


def exam(seed: int = 0, *, held_out: bool = True, passages: int = 400) -> tuple[Question, ...]:
    """Return the questions, the same for the same seed.

    Args:
        seed: of the choice of wording and the invented passages.
        held_out: True for wording withheld from training, False for training wording.
        passages: questions in each part with a passage.
    """
    facts, rng = load_facts(), random.Random(f"atlas-exam-{seed}")
    questions = []
    for country in facts.countries:
        for relation in TWO_HOP_RELATIONS:
            questions += _asked(facts, "recall", country.name, relation, held_out)
    for city in facts.country_of:
        questions += _asked(facts, "recall", city, "country", held_out)
    for city in facts.cities:
        for relation in TWO_HOP_RELATIONS:
            part = f"latent_2hop ({two_hop_split(city, relation)})"
            questions += _asked(facts, part, city.name, relation, held_out)
    makers: dict[str, Callable[[], Question]] = {
        "lookup": lambda: _passage(facts, rng, held_out, linked=False),
        "context_2hop": lambda: _passage(facts, rng, held_out, linked=True),
        "edited": lambda: _edited(facts, rng, held_out),
    }
    for make in makers.values():
        questions += [make() for _ in range(passages)]
    return tuple(questions)


def constant_guess(questions: list[Question]) -> float:
    """Return the accuracy of chance: one half with two candidates in the passage, else the best guess by relation."""
    if all(q.in_passage for q in questions):
        return 0.5
    by_relation: dict[str, Counter[str]] = {}
    for question in questions:
        by_relation.setdefault(question.relation, Counter())[question.answer] += 1
    return sum(counts.most_common(1)[0][1] for counts in by_relation.values()) / len(questions)


def _asked(facts: Facts, part: str, entity: str, relation: str, held_out: bool) -> list[Question]:
    answer = facts.answer(entity, relation)
    wordings = templates(relation, held_out=held_out)
    return [Question(part, relation, wording.cue(entity), answer, False) for wording in wordings]


def _passage(facts: Facts, rng: random.Random, held_out: bool, *, linked: bool) -> Question:
    relation = rng.choice(TWO_HOP_RELATIONS)
    names = rng.sample(nonce_names(), 4)
    values = rng.sample(facts.vocabulary(relation), 2)
    part = "context_2hop" if linked else "lookup"
    return _over(part, relation, (names[:2], names[2:] if linked else None), values, rng, held_out)


def _edited(facts: Facts, rng: random.Random, held_out: bool) -> Question:
    relation = rng.choice(TWO_HOP_RELATIONS)
    while True:
        lands = [c.name for c in rng.sample(facts.countries, 2)]
        values = [facts.answer(land, relation) for land in lands][::-1]
        if values[0] != values[1]:
            return _over("edited", relation, (lands, None), values, rng, held_out)


def _over(
    part: str,
    relation: str,
    names: tuple[list[str], list[str] | None],
    values: list[str],
    rng: random.Random,
    held_out: bool,
) -> Question:
    """Write the passage (facts of two lands, then perhaps where two places lie, shuffled) and ask about the first."""
    lands, places = names

    def say(entity: str, about: str, answer: str) -> str:
        return rng.choice(templates(about, held_out=held_out)).statement(entity, answer)

    sentences = [say(land, relation, value) for land, value in zip(lands, values, strict=True)]
    if places is not None:
        sentences += [say(place, "country", land) for place, land in zip(places, lands, strict=True)]
    rng.shuffle(sentences)
    cue = rng.choice(templates(relation, held_out=held_out)).cue((places or lands)[0])
    return Question(part, relation, " ".join([*sentences, cue]), values[0], True)
