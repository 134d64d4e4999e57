"""The prompts of the study: drawn, split, answered, and put into batches.

    recall (weights, 1 hop)   lookup (context, 1 hop)   latent_2hop (weights, 2 hops)   context_2hop (context, 2 hops)

The two tasks are `recall` and `context_2hop`, called reasoning; the other two cells say whether a set found for one of
them follows the place of the fact or the number of hops. Parts:

    discovery     score units                  selectivity   discovery countries, passages of the transfer variant
    validation    choose sizes                 replication   test countries, the same
    test          other countries              transfer      test countries, unseen wording, transfer passages
    unseen        test countries and wording that no earlier part (and no training of zoo:atlas) has seen

No pair of countries is in two of discovery, validation and test. A prompt counts where the model gives the whole answer
to it and to its minimal counterfactual.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import DataError
from microtome.core.seeds import derive
from microtome.data.puzzles import Cell, Puzzle, Variant, make_puzzles, split_puzzles
from microtome.engine.run import run
from microtome.measures.intervals import wilson
from microtome.measures.outputs import Accuracy, LogitDiff, Stack
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.studies.recall.config import Prompts, RecallConfig

__all__ = ["PARTS", "REASONING", "RECALL", "TASKS", "Cases", "answer_prompts", "cases_of", "draw_prompts", "reading"]

PARTS = ("discovery", "validation", "test", "unseen")
RECALL, REASONING = Cell.RECALL, Cell.CONTEXT_2HOP
TASKS = {"recall": RECALL, "reasoning": REASONING}

Drawn = Mapping[tuple[str, Cell], Sequence[Puzzle]]


@dataclass(frozen=True, eq=False)
class Cases:
    """Prompts of one part and cell, ready to run.

    Attributes:
        puzzles: the prompts with what is known of them.
        batch: the prompts, left-padded.
        counterfactual: the same with another entity asked about, token for token.
        metric: [rows, 2]: logit(answer) - logit(counterfactual answer), and whether the answer's first token is said.
    """

    puzzles: tuple[Puzzle, ...]
    batch: Batch
    counterfactual: Batch
    metric: Stack

    def __len__(self) -> int:
        return len(self.puzzles)

    @property
    def clusters(self) -> list[list[str]]:
        """What prompts have in common: their pair of countries, their skeleton."""
        return [[p.pair for p in self.puzzles], [p.skeleton for p in self.puzzles]]

    @property
    def difference(self) -> LogitDiff:
        """The logit difference alone."""
        return self.metric.metrics[0]

    def positions(self, name: str) -> Tensor:
        """Return the (padded) positions of a class in every prompt, [rows, most]; shorter ones repeat their first."""
        found = [_class(p, name) for p in self.puzzles]
        most = max(map(len, found))
        shifts = [self.batch.seq - len(p.ids) for p in self.puzzles]
        table = [
            [x + shift for x in (*own, *own[:1] * (most - len(own)))] for own, shift in zip(found, shifts, strict=True)
        ]
        return torch.tensor(table, device=self.batch.mask.device)

    def select(self, rows: Sequence[int]) -> "Cases":
        """Return some of the prompts, padded as all of them."""
        chosen = tuple(self.puzzles[i] for i in rows)
        return Cases(chosen, self.batch.select(rows), self.counterfactual.select(rows), _metric(chosen))

    def chunks(self, size: int) -> Iterator["Cases"]:
        """Yield consecutive parts of at most `size` prompts, padded alike."""
        for start in range(0, len(self), size):
            yield self.select(list(range(start, min(start + size, len(self)))))

    def intact(self, model: Model, size: int) -> np.ndarray:
        """Return the metric of the unedited model, [prompts, 2]."""
        found = []
        for chunk in self.chunks(size):
            logits = run(model, chunk.batch, logits="last").logits
            found.append(chunk.metric(logits, torch.arange(len(chunk), device=logits.device)))
        return torch.cat(found).double().cpu().numpy()


def _class(puzzle: Puzzle, name: str) -> tuple[int, ...]:
    """Return the positions of a class; `between` are the tokens after the entity that are neither relation nor last."""
    if name != "between":
        return puzzle.positions[name]
    named = {*puzzle.positions["relation"], *puzzle.positions["last"]}
    after = range(max(puzzle.positions["entity"]) + 1, len(puzzle.ids))
    return tuple(p for p in after if p not in named) or puzzle.positions["last"]


def _metric(puzzles: Sequence[Puzzle]) -> Stack:
    right, other = (
        torch.tensor([ids[0] for ids in found])
        for found in ([p.answer_ids for p in puzzles], [p.cf_answer_ids for p in puzzles])
    )
    return Stack([LogitDiff(right, other), Accuracy(right)])


def cases_of(model: Model, puzzles: Sequence[Puzzle]) -> Cases:
    """Return prompts as batches for a model."""
    return Cases(
        tuple(puzzles),
        model.batch_ids([p.ids for p in puzzles]),
        model.batch_ids([p.cf_ids for p in puzzles]),
        _metric(puzzles),
    )


def draw_prompts(model: Model, prompts: Prompts, seed: int) -> Drawn:
    """Return candidates by part and cell: twice as many as wanted, spread over items and skeletons.

    Raises:
        DataError: no tokenizer, or too few items fit it.
    """
    drawn: dict[tuple[str, Cell], list[Puzzle]] = {}
    for part, (found, wanted) in _sides(_encode(model), prompts, seed).items():
        by_key = {(p.item, p.skeleton, p.cell): p for p in found}
        for key in _spread(found, 2 * wanted, derive(seed, "draw", part)):
            for cell in Cell:
                drawn.setdefault((part, cell), []).append(by_key[*key, cell])
    return drawn


def _sides(encode, prompts: Prompts, seed: int) -> dict[str, tuple[Sequence[Puzzle], int]]:
    """Return the pool of each part and how many prompts per cell it should give."""
    puzzles = make_puzzles(encode, items=prompts.items, variant=prompts.variant, seed=seed)
    split = split_puzzles(puzzles, seed=seed)
    share = prompts.discovery / (prompts.discovery + prompts.validation)
    inner = split_puzzles(split.discovery, discovery=share, unseen=(), seed=derive(seed, "validation"))
    others = make_puzzles(encode, items=prompts.items, variant=prompts.transfer, seed=seed)
    first = {p.pair for p in split.discovery}
    fresh = [p for p in others if p.pair not in first]
    return {
        "discovery": (inner.discovery, prompts.discovery),
        "validation": (inner.test, prompts.validation),
        "test": (split.test, prompts.test),
        "unseen": (split.unseen, prompts.test),
        "transfer": ([p for p in fresh if p.held_out_wording], prompts.test),
        "selectivity": ([p for p in others if p.pair in first and not p.held_out_wording], prompts.discovery),
        "replication": (fresh, prompts.discovery),
    }


def _encode(model: Model):
    if model.tokenizer is None:
        raise DataError(f"Model '{model.name}' has no tokenizer, so no prompts can be made; load one that has.")
    return lambda text: model.tokenizer(text)["input_ids"]


def _spread(puzzles: Sequence[Puzzle], wanted: int, seed: int) -> list[tuple[str, str]]:
    """Draw (item, skeleton) pairs: every item once before any twice, skeletons at random."""
    keys = sorted({(p.item, p.skeleton) for p in puzzles})
    random.Random(seed).shuffle(keys)
    seen: Counter[str] = Counter()
    ranked = []
    for key in keys:
        ranked.append((seen[key[0]], key))
        seen[key[0]] += 1
    return [key for _, key in sorted(ranked, key=lambda r: r[0])[:wanted]]


def answer_prompts(model: Model, drawn: Drawn, config: RecallConfig) -> tuple[list[dict], list[dict]]:
    """Return (accuracy by part and cell, one row per prompt that is kept), after asking the model everything.

    Raises:
        DataError: a task has fewer right answers than the least wanted, in a part that verdicts rest on.
    """
    accuracies, kept = [], []
    for (part, cell), puzzles in drawn.items():
        first, whole = _right(model, puzzles, config.batch, counterfactual=False)
        _, other = _right(model, puzzles, config.batch, counterfactual=True)
        both = whole & other
        wanted = _wanted(config.prompts, part)
        rows = both.nonzero()[:, 0].tolist()[:wanted]
        accuracies.append(_accuracy_row(part, cell, puzzles, first, whole, both, len(rows)))
        kept += [_prompt_row(part, cell, puzzles[i]) for i in rows]
        if part in PARTS and cell in TASKS.values() and len(rows) < config.prompts.least:
            raise DataError(
                f"'{model.name}' answers {len(rows)} of {len(puzzles)} {cell} prompts of part '{part}' right (with "
                f"their counterfactuals); {config.prompts.least} are needed: use a model that can do both tasks, or "
                "set prompts.least."
            )
    return accuracies, kept


def _wanted(prompts: Prompts, part: str) -> int:
    if part in ("test", "unseen", "transfer"):
        return prompts.test
    return prompts.validation if part == "validation" else prompts.discovery


def _accuracy_row(part: str, cell: Cell, puzzles, first: Tensor, whole: Tensor, both: Tensor, kept: int) -> dict:
    interval = wilson(int(whole.sum()), len(puzzles))
    common = Counter(p.answer for p in puzzles).most_common(1)[0][1]
    return {
        "part": part,
        "cell": str(cell),
        "asked": len(puzzles),
        "first_token": float(first.double().mean()),
        "whole_answer": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "with_counterfactual": float(both.double().mean()),
        "commonest_answer": common / len(puzzles),
        "answer_in_prompt": sum(p.answer_in_prompt for p in puzzles) / len(puzzles),
        "kept": kept,
    }


def _prompt_row(part: str, cell: Cell, puzzle: Puzzle) -> dict:
    return {
        "part": part,
        "cell": str(cell),
        "item": puzzle.item,
        "pair": puzzle.pair,
        "skeleton": puzzle.skeleton,
        "prompt": puzzle.prompt,
        "answer": puzzle.answer,
        "counterfactual": puzzle.counterfactual,
        "cf_answer": puzzle.cf_answer,
        "tokens": len(puzzle.ids),
        "changed": len(puzzle.changed),
        "two_hop": puzzle.two_hop,
    }


def _right(model: Model, puzzles: Sequence[Puzzle], size: int, *, counterfactual: bool) -> tuple[Tensor, Tensor]:
    """Return whether the first token, and the whole answer, is what greedy decoding says, each [prompts]."""
    if counterfactual:
        asked = [(p.cf_ids, p.cf_answer_ids) for p in puzzles]
    else:
        asked = [(p.ids, p.answer_ids) for p in puzzles]
    first, whole = [], []
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        batch = model.batch_ids([(*ids, *answer[:-1]) for ids, answer in part])
        most = max(len(answer) for _, answer in part)
        answers = torch.tensor([[*answer, *[-1] * (most - len(answer))] for _, answer in part])
        places = torch.tensor([[batch.seq - len(a) + min(j, len(a) - 1) for j in range(most)] for _, a in part])
        logits = run(model, batch).logits
        read = logits[torch.arange(len(part))[:, None], places.to(logits.device)]
        rows = torch.arange(len(part))
        whole.append(Accuracy(answers, places)(read, rows).cpu() == 1)
        first.append(Accuracy(answers[:, 0], places[:, 0])(read[:, :1], rows).cpu() == 1)
    return torch.cat(first), torch.cat(whole)


def reading(model: Model, config: RecallConfig) -> list[dict]:
    """Return how often a passage that contradicts the weights is believed, by cell: which route answers is visible."""
    n = config.prompts.test
    puzzles = make_puzzles(
        _encode(model),
        items=min(n, config.prompts.items),
        variant=Variant.CONTRADICT,
        seed=config.seed,
        cells=(Cell.LOOKUP, Cell.CONTEXT_2HOP),
    )
    rows = []
    for cell in (Cell.LOOKUP, Cell.CONTEXT_2HOP):
        own = [p for p in puzzles if p.cell is cell]
        by_key = {(p.item, p.skeleton): p for p in own}
        asked = [by_key[k] for k in _spread(own, n, derive(config.seed, "reading"))]
        said = _said(model, asked, config.batch)
        for answer, ids in (("the passage's", "answer_ids"), ("the weights'", "cf_answer_ids")):
            hits = sum(s == getattr(p, ids)[0] for s, p in zip(said, asked, strict=True))
            share = wilson(hits, len(asked))
            rows.append(
                {
                    "cell": str(cell),
                    "answer": answer,
                    "share": share.estimate,
                    "low": share.low,
                    "high": share.high,
                    "n": len(asked),
                }
            )
    return rows


def _said(model: Model, puzzles: Sequence[Puzzle], size: int) -> list[int]:
    """Return the likeliest next token of every prompt."""
    said = []
    for start in range(0, len(puzzles), size):
        logits = run(model, model.batch_ids([p.ids for p in puzzles[start : start + size]]), logits="last").logits
        said += logits[:, -1].argmax(-1).tolist()
    return said
