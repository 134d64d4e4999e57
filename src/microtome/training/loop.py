"""One training loop anyone can read: AdamW, linear warm-up then cosine, clipped gradients, checkpoints that resume.

After karpathy/nanoGPT `train.py`. The caller hands in a function that makes the batch of any step, so a resumed run
sees the batches it would have seen. The loss is the weighted mean of next-token cross-entropy

    loss = sum_t w_t * -log p(x_t | x_<t) / sum_t w_t

and the output head runs only where w_t > 0. Single process, the parameters' own precision; nothing is distributed.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import DataError, ModelError

__all__ = ["Batch", "Schedule", "learning_rate", "train", "weighted_loss"]

_log = logging.getLogger(__name__)
_LOG_EVERY = 10.0


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, right-padded, with the weight each token has in the loss as a target."""

    ids: Int[Tensor, "batch seq"]
    weights: Float[Tensor, "batch seq"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: updates in all.
        peak: highest learning rate.
        floor: where the cosine ends, one update after the last, as a share of `peak`.
        warm_up: updates of linear increase.
        decay: share of the updates after the warm-up, the last ones, over which the rate falls; before them it is flat.
        weight_decay: of matrices; vectors (norms) are not decayed.
        betas: of AdamW.
        clip: largest norm of the gradient.
        checkpoint_every: updates between checkpoints.
    """

    steps: int
    peak: float = 3e-3
    floor: float = 0.02
    warm_up: int = 200
    decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    checkpoint_every: int = 500


def learning_rate(schedule: Schedule, step: int) -> float:
    """Return the learning rate of an update (counted from 0): linear warm-up, flat, half a cosine down to the floor."""
    if step < schedule.warm_up:
        return schedule.peak * (step + 1) / schedule.warm_up
    falling = max(1, round(schedule.decay * (schedule.steps - schedule.warm_up)))
    done = max(0, step - (schedule.steps - falling)) / falling
    low = schedule.peak * schedule.floor
    return low + (schedule.peak - low) * 0.5 * (1 + math.cos(math.pi * done))


def weighted_loss(module: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Return the weighted mean cross-entropy of a causal language model on a batch.

    Args:
        module: a transformers causal LM: `module.model` makes the hidden states, `module.lm_head` the logits.
        batch: rows are right-padded, so causal attention alone keeps padding out.

    Raises:
        DataError: no token after the first of its row has weight.
    """
    weights = batch.weights[:, 1:]
    chosen = weights > 0
    if not chosen.any():
        raise DataError(
            f"Asked for the loss of a batch of shape {list(batch.ids.shape)}; found no target with weight above 0; "
            "weigh at least one token after the first of a row."
        )
    hidden = module.model(batch.ids[:, :-1], use_cache=False).last_hidden_state
    logits = module.lm_head(hidden[chosen])
    losses = nn.functional.cross_entropy(logits.float(), batch.ids[:, 1:][chosen], reduction="none")
    return (losses * weights[chosen]).sum() / weights[chosen].sum()


def train(
    module: nn.Module,
    batch_of: Callable[[int], Batch],
    schedule: Schedule,
    *,
    run: str = "",
    checkpoint: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Train a model in place; return the CPU seconds it took, those before a resumption included.

    Progress goes to `progress` every 20 updates and to the log (INFO) about every ten seconds.

    Args:
        module: the model, in the precision to train in.
        batch_of: makes the batch of an update, the same batch whenever asked.
        schedule: how long and how fast.
        run: names weights and data (`atlas, seed 0`); only a checkpoint of this run and schedule is resumed.
        checkpoint: file to resume from and to write to; None trains without.
        progress: called with (updates done, updates in all, one line with loss and estimate).

    Raises:
        ModelError: the loss is no longer finite, or the checkpoint is of another run.
    """
    optimizer, named = _optimizer(module, schedule), f"{run} ({schedule})"
    start, seconds = _resume(module, optimizer, named, checkpoint)
    module.train()
    clock, wall, mean = time.process_time(), time.monotonic(), float("nan")
    logged = wall
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        loss = weighted_loss(module, batch_of(step))
        if not math.isfinite(loss.item()):
            raise ModelError(f"Training diverged at step {step} (loss {loss.item()}); lower the peak learning rate.")
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = loss.item() if step == start else 0.98 * mean + 0.02 * loss.item()
        done, now = step + 1, time.monotonic()
        left = (now - wall) / (done - start) * (schedule.steps - done)
        line = f"loss {mean:.3f}, about {left / 60:.1f} min left"
        if checkpoint is not None and (done % schedule.checkpoint_every == 0 or done == schedule.steps):
            _save(checkpoint, module, optimizer, named, done, seconds + time.process_time() - clock)
        if progress is not None and (done % 20 == 0 or done == schedule.steps):
            progress(done, schedule.steps, line)
        if now - logged >= _LOG_EVERY or done == schedule.steps:
            _log.info("step %d of %d: %s", done, schedule.steps, line)
            logged = now
    module.eval()
    return seconds + time.process_time() - clock


def _optimizer(module: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.peak, betas=schedule.betas)


def _resume(
    module: nn.Module, optimizer: torch.optim.Optimizer, named: str, checkpoint: Path | None
) -> tuple[int, float]:
    """Return (updates done, CPU seconds spent) of the checkpoint, after loading it; (0, 0) when there is none."""
    if checkpoint is None or not checkpoint.is_file():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True)
    found = state.get("run", "an unnamed run")
    if found != named:
        raise ModelError(
            f"Asked to resume {named} from '{checkpoint}'; found a checkpoint of {found}; remove the file or use "
            "another folder."
        )
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return state["done"], state["seconds"]


def _save(
    checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, named: str, done: int, seconds: float
) -> None:
    """Write the checkpoint beside its place, then move it there: a killed write leaves the old one."""
    state = {"run": named, "module": module.state_dict(), "optimizer": optimizer.state_dict()}
    partial = checkpoint.with_suffix(".partial")
    torch.save(state | {"done": done, "seconds": seconds}, partial)
    partial.replace(checkpoint)
