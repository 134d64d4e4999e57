"""The sides of the split as token pairs: every pair stands twice, once to be changed and once to be left alone.

Row i of a side's `TokenPairs` is pair i labelled with what the source would be answered, row n + i the same pair with
the base's own answer. For a target attribute the wanted row of a pair is the first where the pair asks for the target,
the second elsewhere; so every target is fitted and scored on one recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.data.pairs import Pair
from microtome.data.ravel import fill, last_token, spans
from microtome.engine.run import run
from microtome.measures.disentangle import Trials
from microtome.models.model import Model
from microtome.training.swaps import Swaps, TokenPairs, chosen, record_swaps

__all__ = ["Encoder", "Side", "encode_side", "with_own_answers"]


class Encoder:
    """A tokenizer's view of prompts, answers and where an entity stands; prompts are remembered.

    Args:
        model: whose tokenizer it is.

    Raises:
        DataError: the tokenizer does not say where its tokens stand in the text.
    """

    def __init__(self, model: Model):
        self.tokenizer = model.tokenizer
        if self.tokenizer is None or not getattr(self.tokenizer, "is_fast", False):
            found = "none" if self.tokenizer is None else f"a {type(self.tokenizer).__name__}"
            raise DataError(
                f"A tokenizer that tells where its tokens stand in the text was asked for, found {found}; give the "
                "model a fast tokenizer (tokenizer.json)."
            )
        self._known: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}

    def prompt(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return a prompt's ids and the characters each token stands for."""
        if text not in self._known:
            found = self.tokenizer(text, return_offsets_mapping=True)
            self._known[text] = (found["input_ids"], found["offset_mapping"])
        return self._known[text]

    def at(self, text: str, span: tuple[int, int], position: str) -> int:
        """Return the position that is edited or taken from: the entity's last token, or the prompt's."""
        ids, offsets = self.prompt(text)
        return last_token(offsets, span) if position == "entity" else len(ids) - 1

    def answer(self, prompt: str, gap: str, label: str, most: int) -> list[int] | None:
        """Return the first tokens of an answer after a prompt, or None where the tokenizer merges the two."""
        before, both = self.prompt(prompt)[0], self.prompt(prompt + gap + label)[0]
        found = both[len(before) :][:most]
        return found if both[: len(before)] == before and found else None


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the split, recorded.

    Attributes:
        name: one of `data.ravel.SIDES`.
        pairs: those whose answers can be told from their prompts.
        merged: pairs left out because prompt and answer share a token.
        tokens: both versions of every pair, [2n].
    """

    name: str
    pairs: tuple[Pair, ...]
    merged: int
    tokens: TokenPairs
    _trials: dict[tuple[int, int], Trials] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def asked(self) -> list[str]:
        """The attribute each pair asks for."""
        return [p.groups["cell"] for p in self.pairs]

    def group(self, name: str) -> list[str]:
        """Return a group of every pair: entity, template, pool, source_entity."""
        return [p.groups[name] for p in self.pairs]

    def rows(self, target: str, *, kinds: Sequence[str] = ("cause", "isolate")) -> Tensor:
        """Return which of the 2n rows are wanted for a target attribute, as a mask."""
        own = torch.tensor([a == target for a in self.asked])
        return torch.cat([own & ("cause" in kinds), ~own & ("isolate" in kinds)])

    def of_pairs(self, values: Tensor, target: str) -> np.ndarray:
        """Return what was found for each pair under a target: [..., 2n] to [..., n]."""
        own = torch.tensor([a == target for a in self.asked])
        n = len(self)
        return torch.where(own, values[..., :n], values[..., n:]).numpy()

    def trials(self, seed: int, draws: int) -> Trials:
        """Return these pairs with resamples of them: every arm is scored on the same draws, so that arms compare."""
        if (seed, draws) not in self._trials:
            self._trials[seed, draws] = Trials(
                self.asked,
                templates=self.group("template"),
                entities=self.group("entity"),
                rng=generator(seed, "scores", self.name),
                draws=draws,
            )
        return self._trials[seed, draws]

    def record(self, model: Model, sites: Sequence[Site], memory_budget: str) -> dict[Site, list[Swaps]]:
        """Return what fitting and scoring at some sites needs."""
        return record_swaps(model, self.tokens, list(sites), memory_budget=memory_budget)

    def wanted(
        self, swaps: Sequence[Swaps], target: str, *, kinds: Sequence[str] = ("cause", "isolate"), block: int = 0
    ) -> list[Swaps]:
        """Return the swaps of a target attribute, all in one block of a joint basis."""
        found = chosen(swaps, self.rows(target, kinds=kinds))
        return [replace(s, blocks=torch.full_like(s.blocks, block)) for s in found if len(s)]


def encode_side(encoder: Encoder, name: str, pairs: Sequence[Pair], position: str, answer_tokens: int) -> Side:
    """Return a side's pairs as tokens.

    Raises:
        DataError: no pair is left whose answers can be told from their prompts.
    """
    kept, rows = [], []
    for pair in pairs:
        cause, isolate = (
            encoder.answer(pair.base, pair.gap, label, answer_tokens) for label in (pair.cf_label, pair.base_label)
        )
        if cause and isolate and cause != isolate:
            kept.append(pair)
            rows.append((cause, isolate))
    if not kept:
        raise DataError(
            f"None of {len(pairs)} pairs of side '{name}' has answers that differ in their first {answer_tokens} "
            "tokens and stand apart from the prompt's; raise pairs.answer_tokens, or use other data."
        )
    places = [spans(p) for p in kept]
    tokens = TokenPairs(
        bases=[encoder.prompt(p.base)[0] for p in kept] * 2,
        sources=[encoder.prompt(p.source)[0] for p in kept] * 2,
        labels=[c for c, _ in rows] + [i for _, i in rows],
        base_at=[encoder.at(p.base, s[0], position) for p, s in zip(kept, places, strict=True)] * 2,
        source_at=[encoder.at(p.source, s[1], position) for p, s in zip(kept, places, strict=True)] * 2,
    )
    return Side(name, tuple(kept), len(pairs) - len(kept), tokens)


def with_own_answers(side: Side, model: Model, *, batch: int) -> Side | None:
    """Return a side whose labels are what a model itself says first: to each base, and to it about the source's entity.

    So a network that knows nothing can be asked for the same thing as one that knows: to answer as it would have about
    the source. Pairs to which it says the same either way are left out; None where those are all.

    Args:
        side: the pairs.
        model: whose answers they are; its tokenizer must be the side's.
        batch: prompts in one forward pass.
    """
    about_source = [fill(p.groups["template"], p.groups["source_entity"])[0] for p in side.pairs]
    texts = list(dict.fromkeys([*(p.base for p in side.pairs), *about_source]))
    said: dict[str, int] = {}
    for first in range(0, len(texts), batch):
        part = texts[first : first + batch]
        logits = run(model, model.batch(part), logits="last").logits
        said |= zip(part, logits.reshape(len(part), -1).argmax(1).tolist(), strict=True)
    kept = [i for i, (p, other) in enumerate(zip(side.pairs, about_source, strict=True)) if said[p.base] != said[other]]
    if not kept:
        return None
    tokens, both = side.tokens, [*kept, *(i + len(side) for i in kept)]
    labels = [[said[about_source[i]]] for i in kept] + [[said[side.pairs[i].base]] for i in kept]
    chosen_tokens = TokenPairs(
        bases=[tokens.bases[i] for i in both],
        sources=[tokens.sources[i] for i in both],
        labels=labels,
        base_at=[tokens.base_at[i] for i in both],
        source_at=[tokens.source_at[i] for i in both],
    )
    return Side(side.name, tuple(side.pairs[i] for i in kept), side.merged, chosen_tokens)
