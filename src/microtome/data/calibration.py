"""Tasks whose circuits or rules are known, as clean and corrupt prompts: what patching tools are calibrated on.

    ioi        indirect object identification (task of Wang et al., arXiv 2211.00593): `When Anna and Paul went to the
               park, Paul gave a ball to` -> Anna; corrupt: the giver is the other one, so the answer is too
    addition   sums of two two-digit numbers: `23+45=` -> 68; corrupt: one operand is another

Clean and corrupt have equal token counts under the caller's `encode`, and their answers have as many tokens and differ
in the first one, so a logit difference is defined. The wording is ours. No claim is made on what a model can do.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import permutations

from microtome.core.errors import DataError
from microtome.data.pairs import Pair, PairSet
from microtome.data.puzzles.tokens import Encode

__all__ = ["addition_pairs", "ioi_pairs"]

_NAMES = (
    "Anna Paul Mary John Tom Kate Mark Lisa James Sarah David Emma Peter Laura Simon Alice Daniel Rachel Robert Helen "
    "Michael Julia Kevin Susan"
).split()
_PLACES = ("park", "school", "store", "garden", "station", "market")
_THINGS = ("ball", "book", "drink", "ring", "letter", "basket")
_IOI = (
    ("together", "When {a} and {b} went to the {place}, {giver} gave a {thing} to"),
    ("after", "After {a} and {b} met at the {place}, {giver} handed a {thing} to"),
    ("then", "Then {a} and {b} sat in the {place}, and {giver} passed a {thing} to"),
    ("while", "While {a} and {b} were at the {place}, {giver} showed a {thing} to"),
)
_SUMS = (("bare", "{x}+{y}="), ("asked", "Question: {x}+{y}=?\nAnswer:"))
_PATIENCE = 1000


def ioi_pairs(encode: Encode, n: int = 100, *, seed: int = 0) -> PairSet:
    """Return pairs of indirect object identification.

    Groups: `entity` the two names, `template` wording and order of the names (`together-abb`, `together-bab`: the
    giver is named second or first), `cell` `ioi`.

    Args:
        encode: text to token ids.
        n: how many.
        seed: of names, places, things and wording.

    Raises:
        DataError: fewer fit the tokenizer than asked.
    """
    return PairSet(tuple(_drawn(_ioi(random.Random(f"ioi-{seed}")), encode, n, "ioi")))


def addition_pairs(encode: Encode, n: int = 100, *, seed: int = 0) -> PairSet:
    """Return pairs of two-digit addition; the answer follows `=` at once, without a space (`Pair.gap` is empty).

    A space would be a token of its own, the first of every answer, in tokenizers that set digits apart. Groups:
    `entity` the clean operands, `template` the wording, `cell` `addition_carry` or `addition_no_carry` by the clean
    sum's units.

    Args:
        encode: text to token ids.
        n: how many.
        seed: of operands and wording.

    Raises:
        DataError: fewer fit the tokenizer than asked.
    """
    return PairSet(tuple(_drawn(_addition(random.Random(f"addition-{seed}")), encode, n, "addition")))


def _ioi(rng: random.Random) -> Iterator[Pair]:
    couples = list(permutations(_NAMES, 2))
    while True:
        (name, text), (receiver, giver) = rng.choice(_IOI), rng.choice(couples)
        swapped = rng.random() < 0.5
        a, b = (giver, receiver) if swapped else (receiver, giver)
        told = text.replace("{place}", rng.choice(_PLACES)).replace("{thing}", rng.choice(_THINGS))
        clean, corrupt = (told.format(a=a, b=b, giver=who) for who in (giver, receiver))
        order = "bab" if swapped else "abb"
        groups = {"entity": "-".join(sorted((a, b))), "template": f"{name}-{order}", "cell": "ioi"}
        yield Pair(clean, corrupt, receiver, giver, "cause", groups)


def _addition(rng: random.Random) -> Iterator[Pair]:
    while True:
        name, text = rng.choice(_SUMS)
        x, y, other = (rng.randint(10, 99) for _ in range(3))
        if other in (x, y):
            continue
        carry = "carry" if x % 10 + y % 10 > 9 else "no_carry"
        changed = (other, y) if rng.random() < 0.5 else (x, other)
        clean, corrupt = text.format(x=x, y=y), text.format(x=changed[0], y=changed[1])
        groups = {"entity": f"{x}+{y}", "template": name, "cell": f"addition_{carry}"}
        yield Pair(clean, corrupt, str(x + y), str(sum(changed)), "cause", groups, gap="")


def _drawn(candidates: Iterator[Pair], encode: Encode, n: int, noun: str) -> list[Pair]:
    """Return the first `n` different candidates that fit the tokenizer; give up when a thousand in a row do not."""
    pairs: dict[tuple[str, str], Pair] = {}
    refused: Counter[str] = Counter()
    missed = 0
    while len(pairs) < n and missed < _PATIENCE:
        pair = next(candidates)
        reason = "drawn before" if (pair.base, pair.source) in pairs else _misfit(pair, encode)
        if reason is None:
            pairs[pair.base, pair.source], missed = pair, 0
        else:
            refused[reason] += 1
            missed += 1
    if len(pairs) < n or n < 1:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "none"
        raise DataError(
            f"Asked for {n} {noun} pairs, found {len(pairs)} that fit this tokenizer (refused: {reasons}); ask for "
            f"{f'at most {len(pairs)}' if pairs else 'one or more, or use another tokenizer'}."
        )
    return list(pairs.values())


def _misfit(pair: Pair, encode: Encode) -> str | None:
    prompts, answers = [], []
    for prompt, label in ((pair.base, pair.base_label), (pair.source, pair.cf_label)):
        before, both = encode(prompt), encode(f"{prompt}{pair.gap}{label}")
        if both[: len(before)] != before:
            return "with an answer that changes the prompt's tokens"
        prompts.append(before)
        answers.append(both[len(before) :])
    if len(prompts[0]) != len(prompts[1]):
        return "with prompts of different token count"
    if len(answers[0]) != len(answers[1]):
        return "with answers of different token count"
    return "with answers alike in their first token" if answers[0][:1] == answers[1][:1] else None
