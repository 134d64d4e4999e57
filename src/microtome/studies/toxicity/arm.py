"""An arm: a model as an intervention leaves it, of whatever kind: edits, a rule of decoding, other weights, a prefix.

Every arm, the unedited one included, goes through the same three measurements: next-token distributions on clean texts,
completions of prompts (common random numbers: the same seeds and batches in all arms), and the probability of flagged
words where they come next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.protocols import Metric
from microtome.core.seeds import derive
from microtome.edits.prompting import pre_prompted
from microtome.engine.edit import Edit
from microtome.engine.generate import Rule, generate
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.divergence import CleanKL, Divergence
from microtome.measures.perplexity import text_losses
from microtome.measures.scorers import Scorer
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.studies.toxicity.config import Generating

__all__ = ["Arm", "Cost", "completions", "costs", "decoded", "logits_at", "scores", "values"]


@dataclass(frozen=True, eq=False)
class Arm:
    """What is run.

    Attributes:
        model: the model.
        edits: changes of activations.
        rules: changes of the next token's logits while generating.
        on_texts: the same changes as edits of the logits of texts at hand.
        prefix: tokens put before every text, after its first token.
        weights: makes a copy of the model with other weights, when it is run.
    """

    model: Model
    edits: tuple[Edit, ...] = ()
    rules: tuple[Rule, ...] = ()
    on_texts: Callable[[Batch], list[Edit]] | None = None
    prefix: tuple[int, ...] = ()
    weights: Callable[[], Model] | None = None

    @property
    def is_edits(self) -> bool:
        """Whether it is nothing but edits, so that a sweep can run many of its kind together."""
        return not (self.rules or self.prefix or self.on_texts or self.weights)

    @property
    def changes(self) -> bool:
        """Whether it is anything but the model as it is."""
        return bool(self.edits or self.rules or self.prefix or self.on_texts or self.weights)

    def logits(self, batch: Batch, *, last: bool = False) -> Tensor:
        """Return the logits of a batch without the prefix's own, [batch, seq or 1, vocab]."""
        seen = self._seen(batch)
        edits = [*self.edits, *(self.on_texts(seen) if self.on_texts else ())]
        logits = run(self._model(), seen, edits=edits, logits="last" if last else "all").logits
        return logits if last else logits[:, -batch.seq :]

    def complete(self, batch: Batch, how: Generating, seed: int) -> Tensor:
        """Return the token ids of one completion of each prompt, [batch, new tokens]."""
        return generate(
            self._model(),
            self._seen(batch),
            how.new_tokens,
            edits=self.edits,
            rules=self.rules,
            sample=True,
            temperature=how.temperature,
            top_p=how.top_p,
            seed=seed,
        )

    def _model(self) -> Model:
        return self.weights() if self.weights else self.model

    def _seen(self, batch: Batch) -> Batch:
        if not self.prefix:
            return batch
        ids, mask = batch.inputs["input_ids"], batch.mask
        rows = [row[held].tolist() for row, held in zip(ids, mask, strict=True)]
        starts = getattr(self.model.tokenizer, "bos_token_id", None)
        after = int(starts is not None and all(row[0] == starts for row in rows))
        return pre_prompted(self.model, rows, self.prefix, after=after)


def completions(
    arm: Arm, prompts: Sequence[str], how: Generating, seed: int, told: Callable[[float], None] | None = None
) -> list[list[list[int]]]:
    """Return token ids of the completions of each prompt, [prompts][completions], without what ends them.

    Args:
        arm: what is run.
        prompts: texts; equal seeds and prompts mean equal random numbers in every arm.
        how: how many, how long, how they are drawn.
        seed: of the draws.
        told: takes the share that is done.
    """
    tokenizer, n = arm.model.tokenizer, how.completions
    rows = [ids for p in prompts for ids in [tokenizer(p)["input_ids"]] * n]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    found: list[list[int]] = [[] for _ in rows]
    for start in range(0, len(rows), how.rows):
        chosen = order[start : start + how.rows]
        said = arm.complete(arm.model.batch_ids([rows[i] for i in chosen]), how, derive(seed, start))
        for i, ids in zip(chosen, said.tolist(), strict=True):
            found[i] = ids[: next((k for k, t in enumerate(ids) if t in ends), len(ids))]
        if told:
            told(min(1.0, (start + how.rows) / len(rows)))
    return [found[i : i + n] for i in range(0, len(found), n)]


@dataclass(frozen=True, eq=False)
class Cost:
    """What an arm does to clean texts.

    Attributes:
        divergence: of its next-token distributions from the unedited ones.
        losses: summed loss of each text, [texts].
        tokens: how many tokens each sums, [texts].
    """

    divergence: Divergence
    losses: Tensor
    tokens: Tensor


def costs(arms: Sequence[Arm], batches: Sequence[Batch]) -> list[Cost]:
    """Return what every arm does to clean texts, beside the first, which is the unedited model.

    Args:
        arms: what is run.
        batches: of the texts.
    """
    apart, losses = [CleanKL() for _ in arms], [[] for _ in arms]
    for batch in batches:
        before = arms[0].logits(batch)
        for i, arm in enumerate(arms):
            after = arm.logits(batch) if i else before
            apart[i].update(before, after=after, mask=batch.mask)
            losses[i].append(text_losses(after, batch.inputs["input_ids"], batch.mask))
    sums = [[torch.cat(part).cpu() for part in zip(*own, strict=True)] for own in losses]
    return [Cost(a.finish(), summed, tokens) for a, (summed, tokens) in zip(apart, sums, strict=True)]


def scores(scorer: Scorer, texts: Sequence[str]) -> np.ndarray:
    """Return how toxic completions are, [texts]; an empty one is not."""
    found = np.zeros(len(texts))
    held = [i for i, t in enumerate(texts) if t.strip()]
    if held:
        found[held] = scorer.scores([texts[i] for i in held])
    return found


def decoded(arm: Arm, said: Sequence[Sequence[Sequence[int]]]) -> list[str]:
    """Return completions as texts, prompt after prompt."""
    decode = arm.model.tokenizer.decode
    return [decode(ids, skip_special_tokens=True) for part in said for ids in part]


def values(
    arms: Sequence[Arm],
    parts: Sequence[tuple[Batch, Metric]],
    *,
    memory_budget: int | str = "2GiB",
    told: Callable[[float], None] | None = None,
) -> Float[Tensor, "arms rows"]:
    """Return a metric of every row under every arm, float64; arms that are edits run together, in one sweep a batch.

    Args:
        arms: what is run; all of one model before they change it.
        parts: batches, each with the metric that is read on it.
        memory_budget: bytes a sweep may hold.
        told: takes the share that is done.
    """
    together = [i for i, arm in enumerate(arms) if arm.is_edits and arm.edits]
    rows = torch.zeros(len(arms), sum(len(batch) for batch, _ in parts), dtype=torch.float64)
    at = 0
    for k, (batch, metric) in enumerate(parts):
        columns = slice(at, at := at + len(batch))
        if together:
            cells = [list(arms[i].edits) for i in together]
            found = sweep(arms[0].model, batch, cells, metric, memory_budget=memory_budget)
            rows[together, columns] = found.effects.double().cpu()
        if told:
            told((k + 1) / len(parts) / 2)
    plain: Tensor | None = None
    for i in (i for i in range(len(arms)) if i not in set(together)):
        if arms[i].changes or plain is None:
            rows[i] = torch.cat(
                [metric(logits_at(arms[i], b, metric.positions), torch.arange(len(b))) for b, metric in parts]
            ).cpu()
            plain = plain if arms[i].changes else rows[i].clone()
        else:
            rows[i] = plain
        if told:
            told(0.5 + (i + 1) / len(arms) / 2)
    return rows


def logits_at(arm: Arm, batch: Batch, positions: Tensor | str) -> Float[Tensor, "batch n vocab"]:
    """Return the logits of a batch at some positions of each row, [batch, n], or at the "last"."""
    if isinstance(positions, str):
        return arm.logits(batch, last=True)
    logits = arm.logits(batch)
    return logits[torch.arange(len(logits), device=logits.device)[:, None], positions.to(logits.device)]
