"""Conversations as rows of tokens, with the assistant's tokens told from all others by the tokenizer's own template.

    ids       the conversation as the chat template writes it
    answers   the tokens inside the template's generation blocks: what the assistant says and what ends it
    labels    ids at answers, -100 elsewhere: no loss is taken at what users, the system or the template say

White space at the ends of messages is left out: tokenizers would join it to the template's own, which is no answer.
A row that is longer than allowed loses its end, and is left out if no answer is left. So is one whose text has a
special token written out in it, which the tokenizer would take for the token itself and so for another turn. Both are
counted, nothing else is changed.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError, ModelError
from microtome.data.instructions.schema import Conversation, Message, PreferencePair
from microtome.models.model import Model
from microtome.training.trl_settings import IGNORED

__all__ = ["Encoded", "TokenRows", "conversation_rows", "encode", "pair_rows", "refuse_unfit"]

_GENERATION = re.compile(r"\{%-?\s*generation\b")


class Encoded(NamedTuple):
    """A conversation in tokens.

    Attributes:
        ids: as the template writes it.
        answers: True at what the assistant says; all False where the template does not tell.
    """

    ids: list[int]
    answers: list[bool]


@dataclass(frozen=True)
class TokenRows:
    """What trainers are given.

    Attributes:
        rows: `input_ids` and `labels` of conversations, or `prompt_ids`, `chosen_ids` and `rejected_ids` of pairs.
        counts: how many were `given` and `kept`, `truncated` among these, and left out because `too_long` or holding
            `special_tokens`; `tokens` in all and those that are `trained_on`.
        end: the token that ends every answer; None where there is no such one.
    """

    rows: list[dict[str, list[int]]]
    counts: dict[str, int]
    end: int | None

    @property
    def digest(self) -> str:
        """What stands for the rows: equal digests, equal rows."""
        whole = hashlib.blake2b(digest_size=16)
        for row in self.rows:
            for name, ids in row.items():
                whole.update(f"{name} {len(ids)} ".encode() + np.asarray(ids, "<i4").tobytes())
        return whole.hexdigest()


def refuse_unfit(model: Model) -> None:
    """Refuse a model that cannot be trained on conversations.

    Args:
        model: the model with its tokenizer.

    Raises:
        ModelError: no causal language model, no tokenizer, one without a chat template, or one with more tokens than
            the model has.
    """
    if not hasattr(model.module, "generate"):
        raise ModelError(
            f"Tuning '{model.name}' on conversations was asked for, found a {type(model.module).__name__}, which does "
            "not generate; give a causal language model of transformers."
        )
    template = getattr(model.tokenizer, "chat_template", None)
    if not isinstance(template, str):
        found = "no tokenizer" if model.tokenizer is None else "a tokenizer without a chat template"
        raise ModelError(
            f"Tuning '{model.name}' on conversations was asked for, found {found}; save one of training.tokenizer in "
            "its folder, or set its chat_template to training.tokenizer.CHATML."
        )
    known, largest = model.module.get_input_embeddings().num_embeddings, max(model.tokenizer.get_vocab().values())
    if largest >= known:
        raise ModelError(
            f"'{model.name}' has embeddings for {known} tokens, its tokenizer has ids to {largest}; put the tokenizer "
            "that it was trained with in its folder, or resize its embeddings."
        )


def encode(model: Model, messages: Sequence[Message], *, begin_answer: bool = False) -> Encoded:
    """Return a conversation in tokens, as the template writes it.

    Args:
        model: with a tokenizer that has a template.
        messages: (role, content) in order.
        begin_answer: end with what the template puts before an answer.
    """
    tokenizer = model.tokenizer
    marked = _GENERATION.search(tokenizer.chat_template) is not None
    found = tokenizer.apply_chat_template(
        [{"role": role, "content": content.strip()} for role, content in messages],
        add_generation_prompt=begin_answer,
        return_dict=True,
        return_assistant_tokens_mask=marked,
    )
    ids = list(found["input_ids"])
    answers = [bool(m) for m in found["assistant_masks"]] if marked else [False] * len(ids)
    return Encoded(ids, answers)


def conversation_rows(
    model: Model, conversations: Sequence[Conversation], *, longest: int, assistant_only: bool
) -> TokenRows:
    """Return conversations as rows to be trained on.

    Args:
        model: with its tokenizer.
        conversations: what to train on.
        longest: tokens of a row.
        assistant_only: take the loss at the assistant's tokens alone, else at all.

    Raises:
        DataError: a conversation without an answer, or none that can be used.
        ModelError: the template does not mark what the assistant says, and that alone was to be trained on.
    """
    rows, counts, special, ends = [], Counter(given=len(conversations)), _special(model), Counter()
    for number, conversation in enumerate(conversations):
        if not any(role == "assistant" for role, _ in conversation.messages):
            raise DataError(
                f"Conversation {number} ('{conversation.id}') has no assistant turn to train on; leave it out, as "
                "data.instructions.select does."
            )
        if _holds(special, conversation.messages):
            counts["special_tokens"] += 1
            continue
        ids, answers = encode(model, conversation.messages)
        if assistant_only and not any(answers):
            raise ModelError(
                f"The chat template of '{model.name}' does not mark what the assistant says; give it generation "
                "blocks, as training.tokenizer.CHATML has, or pass assistant_only=False."
            )
        ends.update(ids[i] for i in _last_of_each(answers))
        labels = [i if said or not assistant_only else IGNORED for i, said in zip(ids, answers, strict=True)]
        row = {"input_ids": ids[:longest], "labels": [IGNORED, *labels[1:longest]]}
        trained_on = sum(label != IGNORED for label in row["labels"])
        if trained_on == 0:
            counts["too_long"] += 1
            continue
        rows.append(row)
        counts.update(kept=1, truncated=len(ids) > longest, tokens=len(row["input_ids"]), trained_on=trained_on)
    return _finished(rows, counts, ends, special, longest, "conversations")


def pair_rows(model: Model, pairs: Sequence[PreferencePair], *, longest: int) -> TokenRows:
    """Return pairs of answers as rows for DPO: the prompt with what begins an answer, and each answer with its end.

    Args:
        model: with its tokenizer.
        pairs: what is preferred to what.
        longest: tokens of prompt and answer together.

    Raises:
        DataError: the template writes a prompt otherwise once an answer follows, or no pair can be used.
    """
    rows, counts, special, ends = [], Counter(given=len(pairs)), _special(model), Counter()
    for pair in pairs:
        answers = (("assistant", pair.chosen), ("assistant", pair.rejected))
        if _holds(special, (*pair.prompt, *answers)):
            counts["special_tokens"] += 1
            continue
        prompt = encode(model, pair.prompt, begin_answer=True).ids
        chosen, rejected = (_after(model, prompt, encode(model, (*pair.prompt, a)), pair.id) for a in answers)
        ends.update([chosen[-1], rejected[-1]])
        room = longest - len(prompt)
        if room < 1:
            counts["too_long"] += 1
            continue
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen[:room], "rejected_ids": rejected[:room]})
        size = sum(map(len, rows[-1].values()))
        counts.update(kept=1, truncated=max(len(chosen), len(rejected)) > room, tokens=size + len(prompt))
        counts["trained_on"] += size - len(prompt)
    return _finished(rows, counts, ends, special, longest, "pairs")


def _after(model: Model, prompt: list[int], whole: Encoded, id: str) -> list[int]:
    """Return what follows the prompt, to the end of the answer where the template marks it."""
    if whole.ids[: len(prompt)] != prompt:
        raise DataError(
            f"The chat template of '{model.name}' writes the prompt of pair '{id}' otherwise when an answer follows; "
            "give the tokenizer a template that does not, such as training.tokenizer.CHATML."
        )
    marked = _last_of_each(whole.answers)
    return whole.ids[len(prompt) : marked[-1] + 1 if marked else None]


def _last_of_each(answers: Sequence[bool]) -> list[int]:
    """Return where each answer ends."""
    return [i for i, said in enumerate(answers) if said and not (i + 1 < len(answers) and answers[i + 1])]


def _special(model: Model) -> dict[int, str]:
    added = model.tokenizer.added_tokens_decoder
    return {number: token.content for number, token in added.items() if token.special}


def _holds(special: dict[int, str], messages: Sequence[Message]) -> bool:
    return any(token in content for _, content in messages for token in special.values())


def _finished(
    rows: list[dict[str, list[int]]], counts: Counter, ends: Counter, special: dict[int, str], longest: int, what: str
) -> TokenRows:
    if not rows:
        raise DataError(
            f"Training on {counts['given']} {what} of at most {longest} tokens was asked for, found none to use "
            f"({counts['too_long']} too long, {counts['special_tokens']} with special tokens in the text); give "
            "others, or a greater length."
        )
    names = ("given", "kept", "truncated", "too_long", "special_tokens", "tokens", "trained_on")
    end = next(iter(ends)) if len(ends) == 1 else None
    return TokenRows(rows, {name: int(counts[name]) for name in names}, end if end in special else None)
