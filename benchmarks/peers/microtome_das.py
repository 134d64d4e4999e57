"""Ours: `record_swaps`, `fit_interchange` and `evaluate_swaps`; one recording and one call for all tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.das import BATCH, Fitted, Fitter, Task
from benchmarks.peers import plain_das
from benchmarks.workload import Work
from microtome.core.site import Site
from microtome.features.rotation import Rotation
from microtome.models.model import Model
from microtome.training.evaluate import Arm, evaluate_swaps
from microtome.training.interchange import RotationFit, Schedule, fit_interchange, minibatches
from microtome.training.swaps import Swaps, TokenPairs, chosen, record_swaps

__all__ = ["fitters", "prepare"]


def fitters(work: Work) -> list[Fitter]:
    """With the Cholesky solve that is our default, with torch's parametrisation as everybody else, and plain hooks."""
    model = Model.load(work.copied_model(), device=work.device)

    def fitter(name: str, kind: str) -> Fitter:
        def fit(tasks: Sequence[Task], items: Sequence[list[Swaps]]) -> list[Fitted]:
            fits = [_wanted(task, swaps, kind) for task, swaps in zip(tasks, items, strict=True)]
            return [Fitted(f.losses, f.basis.axes) for f in fit_interchange(fits, _schedule(tasks[0]))]

        def order(task: Task) -> Tensor:
            (swaps,) = prepare(model, [task])
            fit, schedule = _wanted(task, swaps, kind), _schedule(task)
            return torch.stack([s.pairs for e in range(schedule.epochs) for s in minibatches(fit, schedule, e)]).cpu()

        def recorded(tasks: Sequence[Task]) -> list[list[Swaps]]:
            return prepare(model, tasks)

        return Fitter(name, recorded, fit, _said, kind == "gram", order, at_once=True, variant=kind != "gram")

    ours = [fitter("microtome", "gram"), fitter("the same, torch's parametrisation", "householder")]
    return [*ours, *(f for f in plain_das.fitters(work) if f.variant)]


def prepare(model: Model, tasks: Sequence[Task]) -> list[list[Swaps]]:
    """Record the prompts of all tasks at all their layers at once; return the swaps of each task."""
    columns = [torch.cat([getattr(task, name) for task in tasks]).tolist() for name in ("base", "source")]
    labels = [[label] for task in tasks for label in task.labels.tolist()]
    at = [task.position for task in tasks for _ in task.base]
    sites = {task.layer: f"blocks.{task.layer}.resid_post" for task in tasks}
    recorded = record_swaps(model, TokenPairs(*columns, labels, at, at), list(sites.values()))
    owner = torch.cat([torch.full((len(task.base),), i) for i, task in enumerate(tasks)])
    return [chosen(recorded[Site(sites[task.layer])], owner == i) for i, task in enumerate(tasks)]


def _wanted(task: Task, swaps: list[Swaps], kind: str) -> RotationFit:
    return RotationFit(swaps, task.start.shape[1], start=task.start, kind=kind)


def _schedule(task: Task) -> Schedule:
    return Schedule(len(task.order) * BATCH // len(task.base), BATCH, task.lr)


def _said(task: Task, swaps: list[Swaps], axes: Tensor) -> Tensor:
    outcome = evaluate_swaps(swaps, [Arm(Rotation(axes))])
    return outcome.first[0, outcome.seen]
