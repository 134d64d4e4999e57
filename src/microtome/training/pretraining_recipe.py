"""What a pretraining run is told: how long, how fast, what to do when the loss jumps, when to keep a checkpoint.

    rate     peak * (step + 1) / warm_up            while warming up
             peak                                   while stable
             peak * (floor + (1 - floor) * g(t))    while falling, t in [0, 1) the part of the fall that is over
    g(t)     cosine (1 + cos(pi t)) / 2;  linear 1 - t;  sqrt 1 - sqrt(t)

With `decay` 1 nothing is stable and the cosine is FuxiTranyu's schedule (arXiv 2408.06273, Table 4: 3e-4 down to 10 %).
With `decay` 0.2, say, it is warm-up-stable-decay (WSD, arXiv 2404.06395, section 4), whose fall may be
any of the three.

FuxiTranyu's loss diverged at 241 billion tokens; its authors went back and cut the peak rate from 3e-4 to 1e-4 (section
3.5). `Spikes` is that decision as a rule, taken without anybody watching. `Recipe` is everything that makes the losses
what they are, and so has a fingerprint; `Checkpoints` says what is kept of them and has none.
"""

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from microtome.core.errors import ConfigError

__all__ = ["Checkpoints", "Recipe", "Spikes", "checkpoint_steps", "fingerprint", "rate_at", "spike_start", "tokens_at"]


@dataclass(frozen=True)
class Spikes:
    """When a loss is a spike, and what is done about it.

    A spike is `patience` updates in a row whose losses lie above the mean of the `window` losses before them by more
    than `height` of their standard deviations and more than `least`; or a loss or a gradient that is not finite. Then
    the weights go back to the newest checkpoint from before the spike and all rates are multiplied by `cut`.

    Attributes:
        window: losses that say what is normal; 0 leaves only those that are not finite.
        height: standard deviations.
        least: nats; keeps a very smooth run from calling small bumps spikes.
        patience: updates in a row.
        cut: of the learning rate, every time.
        skip: go on with the batches after the spike; otherwise those since the checkpoint are trained on again.
        most: times this is done before training is given up as diverged.
    """

    window: int = 100
    height: float = 6.0
    least: float = 0.5
    patience: int = 3
    cut: float = 1 / 3
    skip: bool = True
    most: int = 3


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained.

    Attributes:
        steps: updates in all.
        batch_tokens: tokens of an update, all processes together; batches are gathered until it is reached.
        growth: pairs of (update, tokens of an update from there on), as FuxiTranyu went from 2 to 4 million.
        peak: highest learning rate.
        floor: where the rate ends, as a share of `peak`.
        warm_up: updates of linear increase.
        decay: share of the updates after the warm-up, the last ones, over which the rate falls.
        fall: how it falls.
        weight_decay: of matrices; vectors (norms, biases) are not decayed.
        betas: of AdamW.
        eps: of AdamW.
        clip: largest norm of the gradient.
        z_loss: weight of the mean squared log of the softmax's denominator, which keeps logits small; 0 for none.
        bf16: multiply in bfloat16 (weights, optimizer and sums stay in the parameters' own precision).
        seed: of what the model draws while it trains (dropout).
        spikes: what to do when the loss jumps.
    """

    steps: int
    batch_tokens: int
    growth: tuple[tuple[int, int], ...] = ()
    peak: float = 3e-4
    floor: float = 0.1
    warm_up: int = 100
    decay: float = 1.0
    fall: Literal["cosine", "linear", "sqrt"] = "cosine"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0
    z_loss: float = 0.0
    bf16: bool = True
    seed: int = 0
    spikes: Spikes = field(default_factory=Spikes)

    def __post_init__(self):
        if self.steps < 1 or self.batch_tokens < 1:
            raise ConfigError(
                f"{self.steps} updates of {self.batch_tokens} tokens were asked for; give steps and batch_tokens of 1 "
                "or more."
            )
        if self.fall not in _FALLS:
            raise ConfigError(f"A fall '{self.fall}' was asked for; there are {', '.join(_FALLS)}.")


@dataclass(frozen=True)
class Checkpoints:
    """After which updates a checkpoint is written, and what becomes of old ones.

    The three schedules add up; before the first update and after the last there always is one.

    Attributes:
        every: updates from one to the next; 0 for none.
        evenly: so many, evenly spaced, the last at the end (the paper released 58); 0 for none.
        log_spaced: so many, evenly spaced in the logarithm of the update, from 1 to the end; 0 for none.
        resumable: of how many, the newest, the optimizer is kept; the others keep the model.
        keep: how many, the newest, are kept at all; 0 for all.
    """

    every: int = 0
    evenly: int = 0
    log_spaced: int = 0
    resumable: int = 2
    keep: int = 0

    def __post_init__(self):
        if self.resumable < 1 or 0 < self.keep < self.resumable:
            raise ConfigError(
                f"Checkpoints with resumable={self.resumable} and keep={self.keep} were asked for; at least one must "
                "be resumable, and no more than are kept."
            )


_FALLS = {
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "linear": lambda t: 1 - t,
    "sqrt": lambda t: 1 - math.sqrt(t),
}


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate of an update, counted from 0, before any cut.

    Args:
        recipe: says how it goes.
        step: the update.
    """
    if step < recipe.warm_up:
        return recipe.peak * (step + 1) / recipe.warm_up
    falling = max(1, round(recipe.decay * (recipe.steps - recipe.warm_up)))
    over = max(0, step - (recipe.steps - falling)) / falling
    return recipe.peak * (recipe.floor + (1 - recipe.floor) * _FALLS[recipe.fall](over))


def tokens_at(recipe: Recipe, step: int) -> int:
    """Return how many tokens an update has, counted from 0.

    Args:
        recipe: says how many.
        step: the update.
    """
    return next((tokens for start, tokens in sorted(recipe.growth, reverse=True) if step >= start), recipe.batch_tokens)


def spike_start(losses: Sequence[float], rule: Spikes) -> int | None:
    """Return at which update the spike began that shows in the last losses, or None when there is none.

    Args:
        losses: of all updates so far.
        rule: what a spike is.
    """
    if not math.isfinite(losses[-1]):
        return len(losses) - 1
    first = len(losses) - rule.patience
    normal = losses[max(0, first - rule.window) : max(0, first)]
    if rule.window == 0 or len(normal) < rule.window:
        return None
    high = statistics.fmean(normal) + max(rule.least, rule.height * statistics.pstdev(normal))
    return first if all(loss > high for loss in losses[first:]) else None


def checkpoint_steps(plan: Checkpoints, steps: int) -> tuple[int, ...]:
    """Return the updates done when a checkpoint is written, from 0 (the untrained model) to the last.

    Args:
        plan: the schedules.
        steps: updates in all.
    """
    found = {0, steps}
    if plan.every:
        found |= set(range(plan.every, steps, plan.every))
    found |= {round(i * steps / plan.evenly) for i in range(1, plan.evenly + 1)}
    found |= {round(steps ** (i / max(1, plan.log_spaced - 1))) for i in range(plan.log_spaced)}
    return tuple(sorted(found))


def fingerprint(recipe: Recipe, run: str, model: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Return a digest of all that makes the losses of a run what they are, and the same spelt out as plain data.

    Args:
        recipe: how the model is pretrained.
        run: what names its weights and data.
        model: its configuration.
    """
    told = {"recipe": asdict(recipe), "run": run, "model": dict(model)}
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), json.loads(text)
