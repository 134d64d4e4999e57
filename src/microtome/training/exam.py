"""Examine zoo:atlas: accuracy by part of the exam and by cell of the puzzles, with Wilson intervals and chance.

An answer is right when greedy decoding gives all its tokens. That is read off one forward pass over prompt and answer:
every answer token must be the likeliest after what comes before it.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from microtome.core.errors import DataError
from microtome.data.atlas.exam import Question, constant_guess, exam
from microtome.data.puzzles import Puzzle, Variant, make_puzzles
from microtome.data.puzzles.tokens import Vocabulary
from microtome.measures.intervals import wilson

__all__ = ["Row", "evaluate_atlas", "greedy_correct"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """Accuracy on one part.

    Attributes:
        part: which questions.
        n: how many.
        correct: how many were answered right.
        low: lower end of the 95 % Wilson interval of the accuracy.
        high: its upper end.
        chance: accuracy of the best constant guess by relation, or one half with two candidates in the passage.
    """

    part: str
    n: int
    correct: int
    low: float
    high: float
    chance: float

    @property
    def accuracy(self) -> float:
        """Share answered right."""
        return self.correct / self.n


def evaluate_atlas(
    module: nn.Module, tokenizer: Callable, *, seed: int = 0, items: int = 64, questions: int | None = None
) -> list[Row]:
    """Return the exam's rows, then one for each cell of the puzzles, seen and held-out wording apart.

    Args:
        module: a causal language model.
        tokenizer: its tokenizer.
        seed: of the exam and the puzzles.
        items: puzzle items.
        questions: most questions of each part, drawn by the seed; None for all.
    """
    rows = []
    for part, asked in (*_exam_parts(seed), *_puzzle_parts(tokenizer, seed, items)):
        chosen = asked
        if questions is not None and len(asked) > questions:
            chosen = random.Random(f"evaluate-{seed}-{part}").sample(asked, questions)
        rows.append(_row(part, chosen, module, tokenizer))
        _log.info("%s: %d of %d right", part, rows[-1].correct, rows[-1].n)
    return rows


def _exam_parts(seed: int) -> Iterator[tuple[str, list[Question]]]:
    for held_out in (True, False):
        by_part: dict[str, list[Question]] = {}
        for question in exam(seed, held_out=held_out):
            by_part.setdefault(f"{question.part}, {_wording(held_out)}", []).append(question)
        yield from by_part.items()


def _puzzle_parts(tokenizer: Callable, seed: int, items: int) -> Iterator[tuple[str, list[Question]]]:
    for variant in (Variant.NONCE, Variant.CONTRADICT):
        puzzles = make_puzzles(lambda text: tokenizer(text)["input_ids"], items=items, variant=variant, seed=seed)
        groups: dict[str, list[Question]] = {}
        for puzzle in puzzles:
            if variant is Variant.NONCE or puzzle.cell.in_context:
                part = _part(puzzle)
                question = Question(part, puzzle.relation, puzzle.prompt, puzzle.answer, puzzle.cell.in_context)
                groups.setdefault(part, []).append(question)
        yield from groups.items()


def _part(puzzle: Puzzle) -> str:
    shown = "" if puzzle.two_hop in (None, "train") else ", withheld"
    return f"puzzle {puzzle.variant} {puzzle.cell}{shown}, {_wording(puzzle.held_out_wording)}"


def _wording(held_out: bool) -> str:
    return f"{'held-out' if held_out else 'training'} wording"


def _row(part: str, questions: list[Question], module: nn.Module, tokenizer: Callable) -> Row:
    vocabulary = Vocabulary(lambda text: tokenizer(text)["input_ids"])
    asked = [(list(vocabulary.encode(q.prompt)), list(vocabulary.continuation(q.prompt, q.answer))) for q in questions]
    correct = sum(greedy_correct(module, asked))
    interval = wilson(correct, len(asked))
    return Row(part, len(asked), correct, interval.low, interval.high, constant_guess(questions))


@torch.no_grad()
def greedy_correct(
    module: nn.Module, asked: Sequence[tuple[list[int], list[int]]], *, batch_size: int = 128
) -> list[bool]:
    """Return, for each (prompt ids, answer ids), whether greedy decoding gives the whole answer.

    Args:
        module: a transformers causal LM; rows are right-padded, so causal attention alone keeps padding out.
        asked: prompts and answers.
        batch_size: rows of one forward pass.

    Raises:
        DataError: a prompt or an answer has no tokens.
    """
    for number, (prompt, answer) in enumerate(asked):
        if not prompt or not answer:
            raise DataError(
                f"Question {number} has {len(prompt)} prompt tokens and {len(answer)} answer tokens; each needs one at "
                "least: drop the question."
            )
    device = next(module.parameters()).device
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]) + len(asked[i][1]))
    right = [False] * len(asked)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [asked[i][0] + asked[i][1] for i in chosen]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        best = module(ids.to(device), use_cache=False).logits.argmax(-1)
        for row, i in enumerate(chosen):
            prompt, answer = asked[i]
            at = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
            right[i] = best[row, at].tolist() == answer
    return right
