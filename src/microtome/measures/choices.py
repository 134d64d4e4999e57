"""Questions with options, answered by likelihood: the option whose ending is likeliest after its context is chosen.

    acc         argmax of  log p(ending | context)
    acc_norm    argmax of  log p(ending | context) / characters of the ending        (long endings lose less)
    acc_bytes   the same with UTF-8 bytes

The definitions are lm-evaluation-harness's, so that its numbers come out: context and ending are tokenised together
and cut where the context alone ends, white space at the end of a context belongs to the ending, special tokens are
those that the tokenizer adds unasked, an empty context is the beginning of a text, what is too long loses its
beginning, and the first of equal options is chosen. The computation is ours: what all options of a question begin with
runs once and its keys and values are repeated for them; the output head sees the rest alone. A model that takes no keys
and values back runs every option whole. Endings that are the same for all options have acc_norm = acc.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import DataError, MeasureError
from microtome.data.benchmarks import Choice
from microtome.engine.run import run
from microtome.measures.bits import context_length, pad_right, pass_size, start_token, target_losses
from microtome.measures.intervals import Interval, wilson
from microtome.models.model import Model

__all__ = ["Scored", "accuracy", "chance", "encode_pair", "score_choices"]

_STEP = 4
"""Beginnings are shared in multiples of this, so that many questions share as much and run together unpadded."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A question and how likely a model finds its options.

    Attributes:
        choice: the question.
        log_likelihoods: log p(ending | context) of each option, nats, [options].
        tokens: how many tokens of each were scored, [options].
    """

    choice: Choice
    log_likelihoods: Float[np.ndarray, " options"]
    tokens: Int[np.ndarray, " options"]

    @property
    def chosen(self) -> int:
        """The likeliest option; the first of several."""
        return int(np.argmax(self.log_likelihoods))

    @property
    def acc(self) -> bool:
        """Whether that is the right one."""
        return self.chosen == self.choice.answer

    @property
    def acc_norm(self) -> bool:
        """Whether the option likeliest by character is."""
        return self._by([len(ending) for ending in self.choice.endings])

    @property
    def acc_bytes(self) -> bool:
        """Whether the option likeliest by byte is."""
        return self._by([len(ending.encode()) for ending in self.choice.endings])

    def _by(self, lengths: list[int]) -> bool:
        return int(np.argmax(self.log_likelihoods / np.array(lengths))) == self.choice.answer


@dataclass(frozen=True)
class _Question:
    """The options of a question in tokens.

    Attributes:
        number: of the question.
        rows: context and ending of each option.
        scored: tokens of each ending.
        shared: how many tokens all rows begin with, as far as they predict nothing scored; a multiple of `_STEP`.
    """

    number: int
    rows: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    shared: int

    @property
    def rest(self) -> int:
        """Longest rest of a row that a model has to read."""
        return max(map(len, self.rows)) - 1 - self.shared


def score_choices(
    model: Model,
    choices: Sequence[Choice],
    *,
    batch: int | None = None,
    told: Callable[[float], None] | None = None,
) -> list[Scored]:
    """Return how likely a model finds the options of each question, in order.

    Args:
        model: a causal language model with a tokenizer.
        choices: of any benchmarks.
        batch: most tokens in one pass, padding included; None for what suits the device.
        told: takes the share that is done.

    Raises:
        DataError: no questions, no tokenizer, an ending without tokens of its own or longer than the model takes.
        MeasureError: NaN logits.

    Example:
        scored = score_choices(model, read_choices("xcopa", folder, ["et"]))
        accuracy([s.acc for s in scored]), chance([s.choice for s in scored])
    """
    questions = _in_tokens(model, choices)
    found: dict[int, Scored] = {}
    for group in _groups(questions, pass_size(model, batch)):
        values = iter(_log_likelihoods(model, group).split([len(q.rows) for q in group]))
        for question in group:
            scored = next(values).numpy()
            if not np.isfinite(scored).all():
                where = choices[question.number]
                raise MeasureError(
                    f"Question {where.id} of {where.benchmark} ({where.language}) has the log-likelihoods "
                    f"{scored.tolist()}; mend the model."
                )
            found[question.number] = Scored(choices[question.number], scored, np.array(question.scored))
        if told:
            told(len(found) / len(questions))
    return [found[i] for i in range(len(choices))]


def accuracy(right: Sequence[bool] | np.ndarray, *, level: float = 0.95) -> Interval:
    """Return the share of questions answered rightly with Wilson's interval.

    Args:
        right: whether each was.
        level: of the interval.

    Raises:
        MeasureError: no questions.
    """
    return wilson(float(np.sum(right)), len(right), level=level)


def chance(choices: Sequence[Choice]) -> float:
    """Return the accuracy of choosing at random: the mean of 1 / options.

    Args:
        choices: at least one.
    """
    return float(np.mean([1 / choice.options for choice in choices]))


def encode_pair(tokenizer: Callable, context: str, ending: str) -> tuple[list[int], list[int]]:
    """Return the token ids of a context, and those of the ending after it.

    Args:
        tokenizer: of transformers.
        context: not empty.
        ending: with what parts it from the context.

    Example:
        encode_pair(tokenizer, "The answer is ", "no")     # as of "The answer is" and " no"
    """
    context, ending = _moved(context, ending)
    return _cut(tokenizer(context)["input_ids"], tokenizer(context + ending)["input_ids"])


def _moved(context: str, ending: str) -> tuple[str, str]:
    """Return both with the white space at the context's end moved to the ending."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + ending


def _cut(context: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    return list(context), list(whole[len(context) :])


def _in_tokens(model: Model, choices: Sequence[Choice]) -> list[_Question]:
    """Return the questions in tokens; a text that occurs again is not tokenised again."""
    if model.tokenizer is None:
        raise DataError(f"Model '{model.name}' has no tokenizer, so it cannot be asked; load it with one.")
    if not len(choices):
        raise DataError("Answers to no questions were asked for; give at least one.")
    pairs = [[_moved(*pair) for pair in choice.pairs] for choice in choices]
    texts = list(dict.fromkeys(text for options in pairs for c, e in options for text in (c, c + e) if c))
    ids = dict(zip(texts, model.tokenizer(texts)["input_ids"] if texts else (), strict=True))
    limit, shares = context_length(model), "past_key_values" in model.accepts
    questions = []
    for number, (choice, options) in enumerate(zip(choices, pairs, strict=True)):
        parts = [_cut(ids[c], ids[c + e]) if c else _begun(model, e) for c, e in options]
        rows = [_fitting(context, ending, limit, choice) for context, ending in parts]
        scored = tuple(len(ending) for _, ending in parts)
        questions.append(_Question(number, tuple(rows), scored, _shared(rows, scored) if shares else 0))
    return questions


def _begun(model: Model, ending: str) -> tuple[list[int], list[int]]:
    """Return the same for an ending that begins a text."""
    ids, start = model.tokenizer(ending, add_special_tokens=False)["input_ids"], start_token(model)
    if start is None:
        raise DataError(f"An empty context needs a token that begins texts, '{model.name}' has none; give a context.")
    return ([start], ids) if ids[:1] != [start] else (ids[:1], ids[1:])


def _fitting(context: list[int], ending: list[int], limit: int | None, choice: Choice) -> tuple[int, ...]:
    """Return context and ending as one row; the model reads all but the last token, so it may have one more."""
    if not ending or (limit and len(ending) > limit):
        raise DataError(
            f"Question {choice.id} of {choice.benchmark} ({choice.language}) has an ending of {len(ending)} tokens, "
            f"the model takes 1 to {limit or 'any number'}; leave the question out."
        )
    row = (*context, *ending)
    return row[-(limit + 1) :] if limit else row


def _shared(rows: Sequence[tuple[int, ...]], scored: Sequence[int]) -> int:
    """Return how many tokens all rows begin with, in steps; the token before an ending is left out: it predicts."""
    most = min(len(row) - n - 1 for row, n in zip(rows, scored, strict=True))
    same = (len(set(tokens)) == 1 for tokens in zip(*rows, strict=False))
    return next((i for i, equal in enumerate(same) if not equal or i >= most), most) // _STEP * _STEP


def _groups(questions: Sequence[_Question], most: int) -> Iterator[list[_Question]]:
    """Yield questions that share as many tokens and have rests of like length together."""
    group: list[_Question] = []
    for question in sorted(questions, key=lambda q: (q.shared, q.rest), reverse=True):
        rows = sum(len(q.rows) for q in group) + len(question.rows)
        if group and (question.shared != group[0].shared or rows * (group[0].shared + group[0].rest) > most):
            yield group
            group = []
        group.append(question)
    if group:
        yield group


@torch.no_grad()
def _log_likelihoods(model: Model, questions: list[_Question]) -> Float[Tensor, " rows"]:
    """Return log p of the ending of every option, one question after the other."""
    shared = questions[0].shared
    batch = pad_right(model, [row[shared:-1] for q in questions for row in q.rows], before=shared)
    if shared:
        logits = model.module(**batch.inputs, past_key_values=_beginnings(model, questions), use_cache=True).logits
    else:
        logits = run(model, batch).logits
    scored = torch.tensor([n for q in questions for n in q.scored], device=batch.mask.device)
    places = torch.arange(batch.seq, device=batch.mask.device)
    chosen = batch.mask & (places >= (batch.mask.sum(1) - scored)[:, None])  # the last places of each row
    targets = torch.tensor([t for q in questions for row, n in zip(q.rows, q.scored, strict=True) for t in row[-n:]])
    losses = target_losses(logits[chosen.to(logits.device)], targets)
    return torch.zeros(len(batch), dtype=torch.float64).index_add(0, chosen.nonzero()[:, 0].cpu(), -losses)


def _beginnings(model: Model, questions: list[_Question]) -> object:
    """Return the keys and values of what the options of each question share, one copy an option."""
    batch = model.batch_ids([q.rows[0][: q.shared] for q in questions])
    fewest: Mapping = {"logits_to_keep": 1} if "logits_to_keep" in model.accepts else {}
    cache = model.module(**batch.inputs, use_cache=True, **fewest).past_key_values
    cache.batch_select_indices(torch.tensor([i for i, q in enumerate(questions) for _ in q.rows], device=model.device))
    return cache
