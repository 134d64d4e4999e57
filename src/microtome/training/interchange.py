"""Fit the basis of an interchange on frozen prefixes: DAS, MDAS, joint blocks, DBM, MDBM.

    rotation    h' = b + (s - b) R R'                    R orthonormal, [d, k]
    joint       h' = b + (s - b) R_a R_a'                R_a the columns of R that belong to the pair's block
    mask        h' = b + sigmoid(m / T) * (s - b)        T falls linearly; frozen, the coordinates with m > 0

    loss = mean cross-entropy of the labels at the positions read, with h' put in at the site (+ penalty * sum sigmoid)

DAS is the rotation fitted on cause pairs alone, MDAS on cause and isolate pairs; DBM and MDBM likewise. Adam; after
each epoch the loss on validation pairs decides which parameters are kept. Several fits (attributes, ranks, seeds) go
through the model together, packed in the batch axis: each sees the pairs, in the order, that it would see alone.

Source: Geiger et al. 2023 (arXiv 2303.02536), Huang et al. 2024 (arXiv 2402.17700, its released code weighs all pairs
alike); the joint blocks are an extension of ours.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import MeasureError
from microtome.core.protocols import Featurizer
from microtome.core.seeds import derive
from microtome.features.identity import Identity
from microtome.features.interchange import soft_swap
from microtome.features.joint_rotation import JointRotation
from microtome.features.mask import SoftMask, annealed
from microtome.features.orthogonal import parametrise
from microtome.features.precision import wide
from microtome.features.rotation import random_axes
from microtome.training.swaps import IGNORED, Swaps

__all__ = ["Fitted", "MaskFit", "RotationFit", "Schedule", "fit_interchange", "minibatches", "swap_loss"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to fit.

    Attributes:
        epochs: passes over the training pairs.
        batch: pairs in a minibatch.
        lr: learning rate of Adam, constant.
        patience: epochs without a lower validation loss after which a fit stops; None never stops early.
        rows_at_once: most rows in one pass through the blocks; more fits or pairs than that take turns.
    """

    epochs: int = 3
    batch: int = 16
    lr: float = 1e-3
    patience: int | None = None
    rows_at_once: int = 512


@dataclass(frozen=True, eq=False)
class RotationFit:
    """A rotation to fit.

    Attributes:
        train: pairs over one or several recordings.
        sizes: the rank, or the rank of each named block of a joint rotation (`Swaps.blocks` counts them in order).
        validation: pairs that decide which epoch's rotation is kept; none keeps the last.
        seed: of the first rotation and of the order of the pairs.
        start: the first rotation, [d, k], where it is not drawn.
        kind: how it is kept orthonormal: `gram`, `qr` or `householder` (see `features/orthogonal.py`).
    """

    train: Sequence[Swaps]
    sizes: int | Mapping[str, int]
    validation: Sequence[Swaps] = ()
    seed: int = 0
    start: Float[Tensor, "d k"] | None = None
    kind: str = "gram"


@dataclass(frozen=True, eq=False)
class MaskFit:
    """A mask over the coordinates to fit.

    Attributes:
        train: pairs over one or several recordings.
        penalty: weight of the sum of the gate, in nats a coordinate.
        validation: pairs that decide which epoch's mask is kept, judged by the frozen mask; none keeps the last.
        seed: of the order of the pairs.
        start: what every entry begins with; 0 is half open.
        temperatures: of the first and the last update.
    """

    train: Sequence[Swaps]
    penalty: float = 1e-4
    validation: Sequence[Swaps] = ()
    seed: int = 0
    start: float = 0.0
    temperatures: tuple[float, float] = (1.0, 0.01)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted basis and how it came about.

    Attributes:
        basis: `Rotation`, `JointRotation` or `Mask`, frozen; swapping all of it (a block of it) is the interchange.
        losses: of every update, penalty left out, [updates].
        validation: loss on the validation pairs after every epoch, [epochs]; empty without validation pairs.
        best: the epoch whose parameters were kept, from 0.
    """

    basis: Featurizer
    losses: Float[Tensor, " updates"]
    validation: Float[Tensor, " epochs"]
    best: int


def fit_interchange(
    fits: Sequence[RotationFit | MaskFit],
    schedule: Schedule,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Fitted]:
    """Fit some bases together and return them in order, each as it would be fitted alone.

    Args:
        fits: what to fit. Those over the same recordings and site share each pass through the blocks.
        schedule: how long and how fast, the same for all.
        progress: called with (updates done, updates in all, one line with the mean loss), and once at the end.

    Raises:
        MeasureError: a fit has no pairs, asks for more axes than there are coordinates, or its loss is not finite.

    Example:
        >>> das, mdas = fit_interchange([RotationFit(cause, 16), RotationFit(both, 16)], Schedule(epochs=5))
        >>> Edit("blocks.4.resid_post", From(source), positions=-1, basis=mdas.basis)
    """
    with torch.inference_mode(False), torch.enable_grad():
        states = [_State(i, fit, schedule) for i, fit in enumerate(fits)]
        _run(states, schedule, progress or (lambda done, total, line: None))
        return [s.fitted() for s in states]


def _run(states: list["_State"], schedule: Schedule, tell: Callable[[int, int, str], None]) -> None:
    """Go through the epochs, every fit until its patience is over."""
    optimizer = torch.optim.Adam([p for s in states for p in s.part.parameters()], schedule.lr, fused=True)
    total = sum(s.steps for s in states)
    for epoch in range(schedule.epochs):
        live = [s for s in states if not s.stopped]
        for turn in _turns([s.fit for s in live], schedule, epoch):
            _update([(live[i], swaps) for i, swaps in turn], schedule, optimizer)
            done = sum(len(s.losses) for s in states)
            if done // _TELL > (done - len(turn)) // _TELL:
                tell(done, total, _line(live, epoch, schedule))
        for state in live:
            state.end_epoch(schedule)
    tell(total, total, f"fitted {len(states)}")


_TELL = 20  # updates between two calls of `progress`


def _line(states: list["_State"], epoch: int, schedule: Schedule) -> str:
    loss = sum(float(s.losses[-1]) for s in states if s.losses) / sum(1 for s in states if s.losses)
    return f"epoch {epoch + 1} of {schedule.epochs}, {len(states)} fits, loss {loss:.3f}"


def minibatches(fit: RotationFit | MaskFit, schedule: Schedule, epoch: int) -> Iterator[Swaps]:
    """Yield the minibatches of a fit in one epoch, in the order in which it sees them."""
    for turn in _turns([fit], schedule, epoch):
        yield turn[0][1]


def swap_loss(swaps: Swaps, values: Float[Tensor, "n *unit"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the labels with some values put in at the site; gradients flow to them."""
    return _cross_entropy(swaps.suffix(swaps.site, values, swaps.rows), swaps.labels)


def _cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    flat = wide(logits).flatten(0, 1)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction=reduction)


# -- which pairs when


def _turns(fits: Sequence[RotationFit | MaskFit], schedule: Schedule, epoch: int) -> Iterator[list[tuple[int, Swaps]]]:
    """Yield for every update of an epoch the fits that take part, with their minibatches.

    Update k over recording j comes at a time drawn from (epoch, j, k) alone, so fits meet over one recording and none
    changes when another sees what.
    """
    parts = [_parts(fit, schedule, epoch) for fit in fits]
    keys = {key for part in parts for key in part}
    for j, k in sorted(keys, key=lambda jk: derive(0, "update", epoch, *jk)):
        taking_part = [i for i, part in enumerate(parts) if (j, k) in part]
        yield [(i, fits[i].train[j].select(parts[i][j, k])) for i in taking_part]


def _parts(fit: RotationFit | MaskFit, schedule: Schedule, epoch: int) -> dict[tuple[int, int], Tensor]:
    """Return (recording, k) -> the items of minibatch k over that recording, shuffled by the fit's seed."""
    found = {}
    for j, swaps in enumerate(fit.train):
        draw = torch.Generator().manual_seed(derive(fit.seed, "order", epoch, j))
        order = torch.randperm(len(swaps), generator=draw).to(swaps.rows.device)
        found |= {(j, k): items for k, items in enumerate(order.split(schedule.batch)) if len(items)}
    return found


# -- one update


def _update(turn: list[tuple["_State", Swaps]], schedule: Schedule, optimizer: torch.optim.Optimizer) -> None:
    """Move the fits of one turn by one step; fits that take no part are left alone, momentum included."""
    optimizer.zero_grad(set_to_none=True)
    for group in _groups(turn, schedule.rows_at_once):
        losses = _losses(group)
        total = sum(loss + state.penalty() for (state, _), loss in zip(group, losses, strict=True))
        total.backward()
        for (state, _), loss in zip(group, losses, strict=True):
            state.losses.append(loss.detach())
    optimizer.step()
    for state, _ in turn:
        state.part.retract()


def _groups(turn: list[tuple["_State", Swaps]], limit: int) -> list[list[tuple["_State", Swaps]]]:
    """Return the fits in groups over one recording and site, at most `limit` rows each."""
    groups: list[list[tuple[_State, Swaps]]] = []
    for item in sorted(turn, key=lambda x: (id(x[1].suffix), str(x[1].site))):
        last = groups[-1] if groups else []
        same = last and last[0][1].suffix is item[1].suffix and last[0][1].site == item[1].site
        if same and sum(len(s) for _, s in last) + len(item[1]) <= limit:
            last.append(item)
        else:
            groups.append([item])
    return groups


def _losses(group: list[tuple["_State", Swaps]]) -> list[Tensor]:
    """Return the loss of every fit of a group, from one pass through the blocks."""
    values = torch.cat([state.swapped(swaps) for state, swaps in group])
    rows = torch.cat([swaps.rows for _, swaps in group])
    first = group[0][1]
    labels = torch.cat([swaps.labels for _, swaps in group])
    losses = _cross_entropy(first.suffix(first.site, values, rows), labels, "none").view_as(labels)
    sizes = [len(swaps) for _, swaps in group]
    counted = (labels != IGNORED).split(sizes)
    return [x.sum() / count.sum() for x, count in zip(losses.split(sizes), counted, strict=True)]


# -- what is fitted


class _Rotating(nn.Module):
    """A rotation, perhaps in blocks, while it is fitted."""

    def __init__(self, fit: RotationFit, base: Tensor):
        super().__init__()
        self.names = tuple(fit.sizes) if isinstance(fit.sizes, Mapping) else ()
        self.sizes = tuple(fit.sizes.values()) if self.names else (fit.sizes,)
        draw = torch.Generator().manual_seed(derive(fit.seed, "rotation"))
        start = random_axes(base.shape[1], sum(self.sizes), draw) if fit.start is None else fit.start
        if start.shape != (base.shape[1], sum(self.sizes)):
            raise MeasureError(
                f"A rotation of rank {sum(self.sizes)} in width {base.shape[1]} was asked for, found a start "
                f"{list(start.shape)}; give one of that shape."
            )
        self.rotation = parametrise(fit.kind, start.to(wide(base)))
        of_column = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        self.register_buffer("of_column", of_column.to(base.device))

    def forward(self, base: Tensor, source: Tensor, blocks: Tensor, temperature: float) -> Tensor:
        """Return the base with the source's coordinates in each pair's block."""
        change = wide(source) - wide(base)
        if len(self.sizes) == 1:
            return base + self.rotation.project(change).to(base.dtype)
        axes = self.rotation()
        return base + ((change @ axes) * (self.of_column == blocks[:, None]) @ axes.mT).to(base.dtype)

    def penalty(self, temperature: float) -> float:
        """Return what is added to the loss."""
        return 0.0

    def retract(self) -> None:
        """Put the parameters in order after an update."""
        self.rotation.retract()

    def freeze(self) -> Featurizer:
        """Return the basis."""
        found = self.rotation.freeze()
        return JointRotation(found.axes, self.names, self.sizes) if self.names else found


class _Masking(nn.Module):
    """A mask while it is fitted."""

    def __init__(self, fit: MaskFit, base: Tensor):
        super().__init__()
        self.weight = fit.penalty
        self.mask = SoftMask(base.shape[1], start=fit.start).to(wide(base))

    def forward(self, base: Tensor, source: Tensor, blocks: Tensor, temperature: float) -> Tensor:
        """Return the base with a share of each coordinate of the source; a temperature of 0 is the frozen mask."""
        gate = self.mask.gate(temperature) if temperature else (self.mask.logits > 0).to(self.mask.logits)
        return soft_swap(base, source, None, gate)

    def penalty(self, temperature: float) -> Tensor:
        """Return what is added to the loss."""
        return self.weight * self.mask.gate(temperature).sum()

    def retract(self) -> None:
        """Do nothing: every mask is allowed."""

    def freeze(self) -> Featurizer:
        """Return the basis."""
        return self.mask.freeze(Identity(self.mask.logits.shape[0]))


@dataclass
class _Kept:
    """The parameters to end with."""

    loss: float = float("inf")
    epoch: int = -1
    parameters: dict[str, Tensor] = field(default_factory=dict)


class _State:
    """One fit while it runs."""

    def __init__(self, number: int, fit: RotationFit | MaskFit, schedule: Schedule):
        self.number, self.fit = number, fit
        self.steps = schedule.epochs * len(_parts(fit, schedule, 0))
        if self.steps == 0:
            raise MeasureError(f"Fit {number} was asked for, found no training pairs (or no epochs); give it some.")
        if fit.validation and not any(len(s) for s in fit.validation):
            raise MeasureError(f"Fit {number} was asked for with validation, found no pairs in it; leave it out.")
        base = next(s for s in fit.train if len(s)).base[:1].flatten(1)
        self.part = _Rotating(fit, base) if isinstance(fit, RotationFit) else _Masking(fit, base)
        self.losses: list[Tensor] = []
        self.validation: list[float] = []
        self.kept = _Kept()
        self.stopped = False

    @property
    def temperature(self) -> float:
        """Of the update to come; only masks have one."""
        if isinstance(self.fit, RotationFit):
            return 0.0
        start, end = self.fit.temperatures
        return annealed(len(self.losses), self.steps, start=start, end=end)

    def swapped(self, swaps: Swaps, temperature: float | None = None) -> Tensor:
        """Return the values to put in."""
        base, source = swaps.base, swaps.source
        t = self.temperature if temperature is None else temperature
        return self.part(base.flatten(1), source.flatten(1), swaps.blocks, t).view_as(base)

    def penalty(self) -> Tensor | float:
        """Return what is added to the loss of the update to come."""
        return self.part.penalty(self.temperature)

    def end_epoch(self, schedule: Schedule) -> None:
        """Check the loss, validate, keep the better parameters, stop when patience is over."""
        epoch = len(self.losses) // (self.steps // schedule.epochs) - 1
        if self.fit.validation:
            self.validation.append(self._validate(schedule.rows_at_once))
        worst = float(sum([self.losses[-1], *self.validation[-1:]]))
        if not math.isfinite(worst):
            raise MeasureError(
                f"Fit {self.number} was asked for {self.steps} updates, found a loss of {worst} after "
                f"{len(self.losses)}; lower the learning rate."
            )
        if not self.fit.validation or self.validation[-1] < self.kept.loss:
            loss = self.validation[-1] if self.fit.validation else float("inf")
            self.kept = _Kept(loss, epoch, {n: p.detach().clone() for n, p in self.part.state_dict().items()})
        self.stopped = schedule.patience is not None and epoch - self.kept.epoch >= schedule.patience

    @torch.no_grad()
    def _validate(self, rows_at_once: int) -> float:
        """Return the mean loss over the validation pairs, of the basis as it would be frozen."""
        total, count = 0.0, 0
        for swaps in filter(len, self.fit.validation):
            for items in torch.arange(len(swaps), device=swaps.rows.device).split(rows_at_once):
                part = swaps.select(items)
                logits = part.suffix(part.site, self.swapped(part, 0.0), part.rows)
                total += float(_cross_entropy(logits, part.labels, "sum"))
                count += int((part.labels != IGNORED).sum())
        return total / count

    def fitted(self) -> Fitted:
        """Return the basis of the parameters kept."""
        self.part.load_state_dict(self.kept.parameters)
        losses = torch.stack(self.losses).cpu()
        return Fitted(self.part.freeze(), losses, torch.tensor(self.validation, dtype=torch.float64), self.kept.epoch)
