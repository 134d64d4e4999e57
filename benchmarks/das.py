"""Fitting DAS rotations: what a task is, and how a tool is asked to fit and to answer.

Setting (as in the specification of peers): the residual after one layer at one position, rank a quarter of the width
(128 of 512), minibatches of 16, Adam. torch's parametrisation of a rotation completes it at random to a square one and
the path depends on that, so whoever uses it seeds the global generator with `COMPLETION` before handing it the first
rotation: then all of them optimise the same parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

__all__ = ["BATCH", "COMPLETION", "Fitted", "Fitter", "Task", "adam"]

BATCH = 16
COMPLETION = 0


@dataclass(frozen=True, eq=False)
class Task:
    """One rotation to fit, or pairs to be answered under one.

    Attributes:
        base, source: token ids, [pairs, 16].
        labels: the token that should follow each base, [pairs].
        start: the first rotation, [width, rank].
        order: the pairs of each update, [updates, 16].
        layer: after which layer the residual is changed.
        position: where, from the start.
        lr: of Adam.
    """

    base: Tensor
    source: Tensor
    labels: Tensor
    start: Tensor
    order: Tensor
    layer: int
    position: int
    lr: float

    def first(self, pairs: int) -> "Task":
        """Return the first pairs, without an order to fit them in."""
        parts = {name: getattr(self, name)[:pairs] for name in ("base", "source", "labels")}
        return replace(self, order=self.order[:0], **parts)

    def batches(self) -> list[Tensor]:
        """Return the pairs in order, 16 at a time."""
        return list(torch.arange(len(self.base), device=self.base.device).split(BATCH))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of a fit: the losses of every update, [updates], and the rotation, [width, rank]."""

    losses: Tensor
    axes: Tensor


@dataclass(frozen=True, eq=False)
class Fitter:
    """How a tool fits rotations, and answers under one.

    Attributes:
        name: the tool and the way.
        prepare: what is done once whatever the rotations are; one item for each task.
        fit: fits every task, given its item.
        said: the token said after each base of a task, given its item and a rotation, [pairs].
        cholesky: the rotation is kept orthonormal by a Cholesky solve, not by torch's parametrisation.
        order: the order in which the tool will visit a task's pairs; a tool that cannot be told has one of its own.
        at_once: it fits several tasks faster together than one after another.
        variant: a second way of a tool, timed for the single step alone.
        note: what a reader of the row must know.
    """

    name: str
    prepare: Callable[[Sequence[Task]], list]
    fit: Callable[[Sequence[Task], Sequence], list[Fitted]]
    said: Callable[[Task, object, Tensor], Tensor]
    cholesky: bool = False
    order: Callable[[Task], Tensor] = lambda task: task.order
    at_once: bool = False
    variant: bool = False
    note: str = ""

    def prepared_fit(self, tasks: Sequence[Task]) -> list[Fitted]:
        """Prepare and fit."""
        return self.fit(tasks, self.prepare(tasks))


def adam(parameters: Sequence[nn.Parameter], task: Task, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Go through a task's updates with Adam and return the loss of each.

    Args:
        parameters: of the rotation.
        task: its order and learning rate.
        loss_of: the loss of some pairs, with a graph.
    """
    optimizer, losses = torch.optim.Adam(parameters, lr=task.lr), []
    for items in task.order.to(task.base.device):
        loss = loss_of(items)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
