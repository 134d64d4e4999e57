"""Fit several seeds of an embedding regressor at once: one readable loop, early stop for each, resumed after kill -9.

    loss_s = sum over the batch of seed s of w (prediction - value)^2 / sum of w          (its gradient: `Slopes`)

Every seed has its own first weights, its own order of rows and its own clipped gradient, drawn from its number alone,
so a seed learns the same, to rounding, whichever others are beside it and however many threads share them. What is
judged, and kept at its best, is a running mean of the weights (arXiv 1803.05407 has why: it lies in the middle of what
single updates jump around in). A seed whose held-out error has not fallen for `patience` epochs leaves the batch;
without held-out rows the last weights are kept. The rate rises over the first epochs and falls as a cosine over those
planned.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import ConfigError, ModelError
from microtome.core.files import replace_with
from microtome.core.seeds import derive
from microtome.training.regression.fitted import Fitted, Judged, untrained
from microtome.training.regression.network import EmbeddingRegressor, Shape
from microtome.training.regression.numbers import Numbers
from microtome.training.regression.slopes import Slopes
from microtome.training.regression.stacked import AdamW, Stacked
from microtome.training.regression.threads import shared_out

__all__ = ["Schedule", "fit_seeds", "log_spaced"]

_log = logging.getLogger(__name__)
_TABLES = ("z.weight", "n.weight")
_PLAIN = ("epoch", "active", "averaged", "best", "best_epoch", "best_held", "snapshots")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the training rows at most.
        batch: rows an update, of each seed.
        peak: highest learning rate.
        floor: where the cosine ends, as a share of `peak`.
        warm_up: epochs of linear increase.
        weight_decay: of matrices, the embedding tables among them; vectors are not decayed.
        betas: of AdamW.
        clip: largest norm of a seed's gradient.
        average: decay, an update, of the running mean of weights that is judged and kept; 0: the weights themselves.
        judge_every: epochs between evaluations on held-out rows.
        patience: epochs without a better evaluation after which a seed stops; 0: never.
        snapshots: epochs at which the tables of Z and N are kept.
        checkpoint_every: seconds between checkpoints.
    """

    epochs: int
    batch: int = 256
    peak: float = 3e-3
    floor: float = 0.01
    warm_up: int = 5
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    average: float = 0.99
    judge_every: int = 5
    patience: int = 0
    snapshots: tuple[int, ...] = ()
    checkpoint_every: float = 10.0

    def __post_init__(self):
        if self.epochs < 1 or self.batch < 1 or self.judge_every < 1:
            raise ConfigError(
                f"{self.epochs} epochs of batches of {self.batch}, judged every {self.judge_every}, were asked for; "
                "give at least 1 of each."
            )

    def share(self, epoch: float) -> float:
        """Return the learning rate after so many epochs, as a share of the highest."""
        if epoch < self.warm_up:
            return (epoch + 1e-2) / self.warm_up
        done = (epoch - self.warm_up) / max(1, self.epochs - self.warm_up)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def log_spaced(epochs: int, count: int) -> tuple[int, ...]:
    """Return 0 and about `count` - 1 epochs up to the last, each about as many times the one before.

    Example:
        >>> log_spaced(100, 5)
        (0, 1, 5, 22, 100)
    """
    steps = max(count - 1, 1)
    return tuple(sorted({0, epochs, *(round(epochs ** (k / max(steps - 1, 1))) for k in range(steps))}))


@dataclass
class _State:
    """Where a fit stands: what a checkpoint holds."""

    epoch: int
    active: Tensor
    optimizer: AdamW
    averaged: Tensor
    best: Tensor
    best_epoch: Tensor
    best_held: Tensor
    history: list[Judged] = field(default_factory=list)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class _Part(NamedTuple):
    """What an epoch made of some seeds: weights, their running mean, the weighted mean squared error of each."""

    optimizer: AdamW
    averaged: Tensor
    error: Float[Tensor, "part"]


def fit_seeds(
    shape: Shape,
    train: Numbers,
    held: Numbers | None,
    schedule: Schedule,
    *,
    seeds: Sequence[int],
    checkpoint: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Fitted:
    """Return regressors fitted to the same numbers, one for each seed.

    Args:
        shape: of all of them.
        train: rows to fit.
        held: rows that tell when to stop and which weights to keep; None: the last weights are kept.
        schedule: how long and how fast.
        seeds: one each, all different.
        checkpoint: file to resume from and to write to; None trains without.
        progress: called with (epochs done, epochs, one line).

    Raises:
        ConfigError: no seed, or one twice.
        ModelError: the loss is no longer finite, or the checkpoint is of another run.

    Example:
        fitted = fit_seeds(Shape(119, 180), rows, inner, Schedule(epochs=200, patience=60), seeds=range(5))
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"Seeds {list(seeds)} were asked for; give at least one, each once.")
    forward, named = Stacked(EmbeddingRegressor(shape)), _named(shape, train, held, schedule, seeds)
    state = _resumed(checkpoint, named) or _begun(shape, seeds, schedule, forward)
    saved = started = time.monotonic()
    first = state.epoch
    product = min(schedule.batch, len(train)) * shape.width * max(shape.width, shape.embedding)
    with torch.no_grad(), shared_out(product) as each:
        _snapshot(state, schedule, forward)
        while state.epoch < schedule.epochs and len(state.active):
            parts = each(lambda part: _epoch(forward, state, train, schedule, seeds, part), len(state.active))
            error = _joined(state, parts)
            state.epoch += 1
            _snapshot(state, schedule, forward)
            if state.epoch % schedule.judge_every == 0 or state.epoch == schedule.epochs:
                _judge(forward, state, error, held, schedule, seeds)
            now = time.monotonic()
            if checkpoint is not None and now - saved >= schedule.checkpoint_every:
                _save(checkpoint, named, state)
                saved = now
            if progress is not None and state.history:
                left = (now - started) / (state.epoch - first) * (schedule.epochs - state.epoch)
                progress(state.epoch, schedule.epochs, f"{_line(state)}, about {left:.0f} s left at most")
    _log.info("%d seeds, %d epochs, %.1f s: %s", len(seeds), state.epoch, time.monotonic() - started, _line(state))
    epochs = tuple(state.best_epoch.tolist())
    return Fitted(shape, seeds, state.best, epochs, tuple(state.history), state.snapshots)


def _begun(shape: Shape, seeds: tuple[int, ...], schedule: Schedule, forward: Stacked) -> _State:
    weights = untrained(shape, seeds).weights
    module = EmbeddingRegressor(shape)
    rates = schedule.peak * forward.each(lambda name, axes: module.rate_of(name))
    decays = schedule.weight_decay * forward.each(lambda name, axes: float(axes > 1))
    count = len(seeds)
    return _State(
        epoch=0,
        active=torch.arange(count),
        optimizer=AdamW(weights.clone(), rates, decays, betas=schedule.betas),
        averaged=weights.clone(),
        best=weights,
        best_epoch=torch.zeros(count, dtype=torch.int64),
        best_held=torch.full((count,), math.inf),
    )


def _epoch(
    forward: Stacked, state: _State, train: Numbers, schedule: Schedule, seeds: tuple[int, ...], part: slice
) -> _Part:
    """Take every batch once for some of the active seeds; the state stays as it is."""
    order = torch.stack([_order(seeds[s], state.epoch, len(train)) for s in state.active[part].tolist()])
    optimizer, averaged = state.optimizer.part(part), state.averaged[part].clone()
    slopes = Slopes(forward, optimizer.weights)
    rows = (*slopes.places(train.z[order], train.n[order], train.task[order]), train.value[order], train.weight[order])
    batches = list(zip(*(x.split(schedule.batch, 1) for x in rows), strict=True))
    total = torch.zeros(len(order))
    for k, (*places, value, weight) in enumerate(batches):
        total += slopes(tuple(places), value, weight)
        length = slopes.gradient.norm(dim=1, keepdim=True)
        slopes.gradient *= (schedule.clip / length.clamp(min=1e-12)).clamp(max=1)
        optimizer.step(slopes.gradient, schedule.share(state.epoch + k / len(batches)))
        # the running mean begins as a plain mean, so that the first weights are soon forgotten
        averaged.lerp_(optimizer.weights, 1 - min(schedule.average, optimizer.steps / (optimizer.steps + 10)))
    if not torch.isfinite(total).all():
        raise ModelError(
            f"Training diverged in epoch {state.epoch} (seed {seeds[state.active[part][~torch.isfinite(total)][0]]}); "
            "lower the peak learning rate."
        )
    return _Part(optimizer, averaged, total / train.weight.sum())


def _joined(state: _State, parts: Sequence[_Part]) -> Float[Tensor, "active"]:
    """Put what became of all parts into the state; return the errors."""
    state.optimizer.take([part.optimizer for part in parts])
    state.averaged = torch.cat([part.averaged for part in parts])
    return torch.cat([part.error for part in parts])


def _order(seed: int, epoch: int, rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


@torch.no_grad()
def _judge(
    forward: Stacked,
    state: _State,
    error: Float[Tensor, "active"],
    held: Numbers | None,
    schedule: Schedule,
    seeds: tuple[int, ...],
) -> None:
    """Evaluate the active seeds, keep the weights of those that are better than ever, and let go of those that wait."""
    weights, active = state.averaged, state.active
    judged: list[float | None] = [None] * len(active)
    better = torch.ones(len(active), dtype=torch.bool)
    if held is not None:
        found = forward(weights, held.z, held.n, held.task)
        now = ((found - held.value).square() * held.weight).sum(1).div(held.weight.sum()).sqrt()
        better, judged = now < state.best_held[active], now.tolist()
        state.best_held[active[better]] = now[better]
    state.best[active[better]] = weights[better]
    state.best_epoch[active[better]] = state.epoch
    for place, train_error, held_error in zip(active.tolist(), error.sqrt().tolist(), judged, strict=True):
        state.history.append(Judged(state.epoch, seeds[place], train_error, held_error))
    if schedule.patience:
        on = state.epoch - state.best_epoch[active] < schedule.patience
        state.active = active[on]
        state.averaged = state.averaged[on]
        state.optimizer.keep(on)


def _snapshot(state: _State, schedule: Schedule, forward: Stacked) -> None:
    if state.epoch in schedule.snapshots and state.epoch not in state.snapshots:
        now = state.best.clone()
        now[state.active] = state.averaged
        parts = forward.parts(now)
        state.snapshots[state.epoch] = {name[0]: parts[name].clone() for name in _TABLES}


def _line(state: _State) -> str:
    last = state.history[-1]
    held = state.best_held[state.best_held.isfinite()]
    best = f", best held-out {float(held.median()):.4f}" if len(held) else ""
    return f"error {last.train:.4f}{best} (standardised), {len(state.active)} seeds"


def _named(shape: Shape, train: Numbers, held: Numbers | None, schedule: Schedule, seeds: tuple[int, ...]) -> str:
    """Say which fit this is: a checkpoint of another is not resumed."""
    rows = [float(x) for rows in (train, held) if rows is not None for x in (len(rows), rows.value.double().sum())]
    plan = {k: v for k, v in asdict(schedule).items() if k != "checkpoint_every"}
    return f"{shape}, {plan}, seeds {list(seeds)}, rows {rows}"


def _resumed(checkpoint: Path | None, named: str) -> _State | None:
    if checkpoint is None or not checkpoint.is_file():
        return None
    held = torch.load(checkpoint, weights_only=True)
    if held["run"] != named:
        raise ModelError(
            f"Asked to resume a fit of {named} from '{checkpoint}'; found one of {held['run']}; remove the file or use "
            "another folder."
        )
    o = held["optimizer"]
    optimizer = AdamW(o["weights"], o["rates"], o["decays"], betas=o["betas"])
    optimizer.mean, optimizer.square, optimizer.steps = o["mean"], o["square"], o["steps"]
    history = [Judged(**row) for row in held["history"]]
    plain = {name: held[name] for name in _PLAIN}
    return _State(optimizer=optimizer, history=history, **plain)


def _save(checkpoint: Path, named: str, state: _State) -> None:
    o = state.optimizer
    held = {name: getattr(state, name) for name in _PLAIN}
    held["history"] = [asdict(row) for row in state.history]
    held["optimizer"] = {"weights": o.weights, "rates": o.rates, "decays": o.decays, "betas": o.betas, "mean": o.mean,
                         "square": o.square, "steps": o.steps}  # fmt: skip
    replace_with(checkpoint, lambda part: torch.save({"run": named, **held}, part))
