"""The world of `zoo:hand`: its words, its facts, and prompts with minimal counterfactuals.

Twelve traders buy and sell twelve goods: fact(e, r) = good (5 e + 3 + 5 r) mod 12, a permutation for each relation, so
two traders never share an answer and the two relations never agree. A prompt lists four (trader, good) pairs that
contradict the facts, then asks `relation trader gate`. The gate, the last token, is all that tells the tasks apart:

    recall    answer = the fact in the weights
    lookup    answer = the good that follows the trader in this prompt

The counterfactual prompt changes one token, the trader asked about, to another trader of the same context. Options are
the answers of the four traders listed, so a model that knows nothing is right with probability 1/4 in both tasks.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from microtome.core.errors import DataError, did_you_mean

__all__ = [
    "BOS",
    "ENTITIES",
    "GATES",
    "PAD",
    "RELATIONS",
    "SKELETONS",
    "UNKNOWN",
    "VALUES",
    "VOCAB",
    "HandItem",
    "fact",
    "hand_items",
    "token_id",
]

PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"
GATES = ("recall", "lookup")
ENTITIES = ("Arden", "Belor", "Corin", "Doria", "Elvan", "Fenna", "Galdo", "Hesta", "Ivrin", "Jorun", "Kelda", "Lorne")
RELATIONS = ("buys", "sells")
VALUES = ("amber", "barley", "cedar", "dates", "emery", "flax", "ginger", "honey", "indigo", "jade", "kelp", "linen")
FILLERS = (",", ";", ".", "and", "so", "then", "note", "now")
VOCAB = (PAD, BOS, UNKNOWN, *GATES, *ENTITIES, *RELATIONS, *VALUES, *FILLERS)
SKELETONS = (
    "{p0} , {p1} , {p2} , {p3} . {question}",
    "note {p0} ; {p1} ; {p2} ; {p3} . {question}",
    "so {p0} and {p1} , {p2} and {p3} . now {question}",
    "{p0} then {p1} then {p2} then {p3} ; so {question}",
)


@dataclass(frozen=True)
class HandItem:
    """One question with its minimal counterfactual (same length, one token changed, another answer).

    Attributes:
        task: "recall" or "lookup".
        skeleton: index into `SKELETONS`.
        prompt: the text (the tokenizer puts `<bos>` before it).
        counterfactual: the same text asking about another trader of the context.
        answer: token id of the right answer.
        cf_answer: token id of the right answer to the counterfactual.
        options: token ids to choose from: the answers of the four traders listed.
        fact: (entity, relation) asked about.
        cf_fact: (entity, relation) the counterfactual asks about.
    """

    task: str
    skeleton: int
    prompt: str
    counterfactual: str
    answer: int
    cf_answer: int
    options: tuple[int, ...]
    fact: tuple[int, int]
    cf_fact: tuple[int, int]


def token_id(word: str) -> int:
    """Return the token id of a word of the vocabulary."""
    return VOCAB.index(word)


def fact(entity: int, relation: int) -> int:
    """Return which good (index into `VALUES`) an entity buys (relation 0) or sells (relation 1)."""
    return (5 * entity + 3 + 5 * relation) % len(VALUES)


def hand_items(task: str, n: int, *, seed: int = 0, skeletons: Sequence[int] = (0, 1, 2, 3)) -> list[HandItem]:
    """Return `n` items; every 24 in a row ask each fact once. One seed gives both tasks the same prompts but the gate.

    Args:
        task: "recall" or "lookup".
        n: how many.
        seed: seed of the sampling.
        skeletons: which sentence skeletons to use, in turn.

    Raises:
        DataError: an unknown task or skeleton.
    """
    if task not in GATES:
        raise DataError(
            f"No task '{task}' in the world of zoo:hand; it has 'recall' and 'lookup'.{did_you_mean(task, GATES)}"
        )
    unknown = [s for s in skeletons if s not in range(len(SKELETONS))]
    if unknown or not skeletons:
        raise DataError(f"Skeletons {list(skeletons)} of zoo:hand: give some of 0-{len(SKELETONS) - 1}.")
    rng = random.Random(seed)
    facts = [(e, r) for e in range(len(ENTITIES)) for r in range(len(RELATIONS))]
    asked = [f for _ in range(-(-n // len(facts))) for f in rng.sample(facts, len(facts))]
    return [_item(task, f, skeletons[i % len(skeletons)], rng) for i, f in enumerate(asked[:n])]


def _item(task: str, asked: tuple[int, int], skeleton: int, rng: random.Random) -> HandItem:
    entity, relation = asked
    others = rng.sample([e for e in range(len(ENTITIES)) if e != entity], 3)
    traders = rng.sample([entity, *others], 4)
    goods = _contradicting(traders, rng)
    known = [fact(e, relation) for e in traders] if task == "recall" else goods
    answer_of = {e: token_id(VALUES[v]) for e, v in zip(traders, known, strict=True)}
    other = others[0]

    def text(trader: int) -> str:
        pairs = {f"p{i}": f"{ENTITIES[e]} {VALUES[v]}" for i, (e, v) in enumerate(zip(traders, goods, strict=True))}
        return SKELETONS[skeleton].format(question=f"{RELATIONS[relation]} {ENTITIES[trader]} {task}", **pairs)

    return HandItem(
        task,
        skeleton,
        text(entity),
        text(other),
        answer_of[entity],
        answer_of[other],
        tuple(answer_of.values()),
        asked,
        (other, relation),
    )


def _contradicting(traders: list[int], rng: random.Random) -> list[int]:
    """Draw different goods for the traders, none of which is a fact of its trader."""
    while True:
        goods = rng.sample(range(len(VALUES)), len(traders))
        if all(v != fact(e, r) for e, v in zip(traders, goods, strict=True) for r in range(len(RELATIONS))):
            return goods
