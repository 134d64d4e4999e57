"""Pretraining: one loop anyone can read, from two minutes on a laptop to a cluster, that ends the same if it is killed.

    loss = mean over targets t of  -log p(x_t | x_<t in its document)  +  z_loss * (log Z_t)^2

Z_t is the denominator of the softmax (the z-loss of PaLM, arXiv 2204.02311, section 5). AdamW, warm-up, clipped
gradients, gradient accumulation, bfloat16 products; what the numbers are is in `pretraining_recipe.py`, what is on
disk in `checkpoints.py`. One process and many (`torchrun`, `accelerate launch`; gloo on CPUs, nccl on GPUs) run the
same lines: where there are several, accelerate gives each the whole model (DDP), or `sharded` a part of it (FSDP2).

**Data.** `batches(state)` returns a stream: an iterator of `packing.Rows` with a `state()` that JSON holds unchanged
and from which `batches` makes a stream that goes on with the next batch; `batches(None)` begins. A batch is of the
whole run: every process iterates the same stream and trains on its share of the rows, so the state is one, the union of
what the processes see is what one would see, and a run may go on with another number of processes (its losses then
agree to rounding only). An update takes as many batches as make `batch_tokens`. `packing.packing` makes what is wanted.

**Resuming.** With a `folder`, a run that was killed at any instant goes on from the newest checkpoint and has the same
losses, to the last bit where the arithmetic is repeatable (one CPU thread, or torch.use_deterministic_algorithms), as
one that was not: weights, optimizer, data, random generators and rollbacks are as they were. A folder of another recipe
is refused. `on_checkpoint(folder, step)` is called in the main process after a checkpoint is in place, at least once
each: after a kill again for the one training resumes from. It may draw random numbers; training does not see it.

**Spikes.** See `pretraining_recipe.Spikes`. Later checkpoints than the one gone back to are removed.

Not here: tensor or pipeline parallelism, chunked cross-entropy (the logits of a batch are held in float32), fp16 (the
paper's, whose loss diverged), compilation.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microtome.core.errors import DataError
from microtome.training.packing import Rows
from microtome.training.pretraining_recipe import Checkpoints, Recipe, checkpoint_steps, rate_at, spike_start, tokens_at
from microtome.training.pretraining_session import Journal, Session, Stream, Update, own_draws
from microtome.training.throughput import Meter, measured_peak

__all__ = ["Pretrained", "pretrain"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """How a run went, what came before a resumption included.

    Attributes:
        losses: mean cross-entropy of each update, in nats, without the z-loss.
        norms: of each update's gradient, before it was clipped.
        languages: language -> updates in which it had targets, and its mean cross-entropy in them.
        tokens: trained on.
        seconds: spent in updates, in wall-clock time; checkpoints and what is done with them do not count.
        rollbacks: each with the update at which the spike began, its loss, and the update gone back to.
        tokens_per_second: mean since this process began.
        mfu: share of the peak FLOPs; see `throughput`.
    """

    losses: list[float]
    norms: list[float]
    languages: dict[str, tuple[list[int], list[float]]]
    tokens: int
    seconds: float
    rollbacks: list[dict]
    tokens_per_second: float
    mfu: float


def pretrain(
    module: nn.Module,
    batches: Callable[[Any], Stream],
    recipe: Recipe,
    *,
    run: str = "",
    folder: Path | str | None = None,
    checkpoints: Checkpoints | None = None,
    on_checkpoint: Callable[[Path, int], object] | None = None,
    progress: Callable[[int, int, str], object] | None = None,
    report_every: int = 20,
    peak_flops: float | None = None,
    sharded: bool = False,
) -> Pretrained:
    """Train a causal language model from its present weights, in place; return how it went.

    Args:
        module: a transformers causal language model, in the precision its weights are to have (float32).
        batches: makes the stream of batches from a state; see the head of this file.
        recipe: how to train.
        run: names initial weights and data (`fuxi 5M seed 0, 12 languages at alpha 0.3`); part of the fingerprint.
        folder: where checkpoints are, to resume from and to write; None trains without, and so cannot roll back.
        checkpoints: which; by default one at the end.
        on_checkpoint: called with each checkpoint's folder and the number of updates done, e.g. to analyse it.
        progress: called in the main process with (updates done, updates in all, one line).
        report_every: updates between calls of `progress` and lines of the log.
        peak_flops: FLOPs a second of one device in the precision used; measured by a matrix product if None.
        sharded: divide weights, gradients and optimizer among the processes; the module is left so.

    Raises:
        ModelError: the loss is not finite and there is nothing to go back to, or it spikes too often; or the folder
            is of another recipe; or the model cannot be told of documents.
        DataError: the stream ends too early, or its batches do not make up an update.
        RecordError: a checkpoint is damaged, or the disk is full.
    """
    session = Session(module, recipe, run, Path(folder) if folder is not None else None, on_checkpoint, sharded)
    plan = checkpoints or Checkpoints()
    wanted = set(checkpoint_steps(plan, recipe.steps)) if folder is not None else set()
    device, dtype = session.accelerator.device, torch.bfloat16 if recipe.bf16 else module.dtype
    meter = Meter(session.flops, peak_flops or measured_peak(device, dtype), session.world, recipe.steps)
    with own_draws():
        found = session.resume()
        journal = found or Journal()
        stream = batches(journal.data)
        if found is None and 0 in wanted:
            session.save(journal, stream, plan)
        while journal.step < recipe.steps:
            begun, step = time.perf_counter(), journal.step
            tokens = tokens_at(recipe, step)
            rows = _gather(stream, tokens, step)
            rate = rate_at(recipe, step) * recipe.spikes.cut ** len(journal.rollbacks)
            _note(journal, session.update(rows, rate), tokens, time.perf_counter() - begun)
            spike = spike_start(journal.losses, recipe.spikes)
            if spike is not None:
                journal = session.roll_back(journal, spike)
                stream = stream if recipe.spikes.skip else batches(journal.data)
                continue
            meter.count(tokens, rows[0].ids.shape[1], time.perf_counter() - begun)
            if journal.step in wanted:
                session.save(journal, stream, plan)
            if session.main and (journal.step % report_every == 0 or journal.step == recipe.steps):
                line = meter.line(journal.losses)
                _log.info("update %d of %d: %s", journal.step, recipe.steps, line)
                if progress is not None:
                    progress(journal.step, recipe.steps, line)
    session.close()
    told = {k: v for k, v in vars(journal).items() if k not in ("data", "languages")}
    return Pretrained(
        **told,
        languages={name: (steps, losses) for name, (steps, losses) in journal.languages.items()},
        tokens_per_second=meter.speed,
        mfu=meter.mfu,
    )


def _gather(stream: Iterator[Rows], tokens: int, step: int) -> list[Rows]:
    """Return the batches of one update."""
    parts, found = [], 0
    while found < tokens:
        part = next(stream, None)
        if part is None:
            raise DataError(f"Update {step} was to be trained, the stream of batches has ended; make it endless.")
        parts.append(part)
        found += part.ids.numel()
    if found != tokens:
        raise DataError(
            f"An update of {tokens} tokens was asked for, batches of {parts[-1].ids.numel()} make {found}; give "
            "batch_tokens that are a multiple of them."
        )
    return parts


def _note(journal: Journal, found: Update, tokens: int, seconds: float) -> None:
    for name, loss in found.languages.items():
        steps, losses = journal.languages.setdefault(name, [[], []])
        steps.append(journal.step)
        losses.append(loss)
    journal.losses.append(found.loss)
    journal.norms.append(found.norm)
    journal.tokens += tokens
    journal.seconds += seconds
