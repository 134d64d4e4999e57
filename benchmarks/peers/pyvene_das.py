"""pyvene: LowRankRotatedSpaceIntervention, as documented (source and base prompt each step) and with sources collected.

Its rotation layer is put at the task's start after seeding, so that torch's parametrisation completes it as for all.
"""

from collections.abc import Sequence

import pyvene
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.das import COMPLETION, Fitted, Fitter, Task, adam
from benchmarks.workload import Work

__all__ = ["fitters"]


def fitters(work: Work) -> list[Fitter]:
    """Both ways."""
    model = work.copied_model()

    def fit(tasks: Sequence[Task], items: Sequence[Tensor | None]) -> list[Fitted]:
        return [_fit(model, task, sources) for task, sources in zip(tasks, items, strict=True)]

    def said(task: Task, sources: Tensor | None, axes: Tensor) -> Tensor:
        lens = _lens(model, task, axes)
        with torch.no_grad():
            return torch.cat([_logits(lens, task, sources, items).argmax(-1) for items in task.batches()])

    def collected(tasks: Sequence[Task]) -> list[Tensor]:
        return [_collected(model, task) for task in tasks]

    return [
        Fitter("pyvene, source and base prompt", lambda tasks: [None] * len(tasks), fit, said),
        Fitter("pyvene, source representations passed in", collected, fit, said),
    ]


def _lens(model: torch.nn.Module, task: Task, start: Tensor) -> pyvene.IntervenableModel:
    place = {"layer": task.layer, "component": "block_output", "low_rank_dimension": start.shape[1]}
    lens = pyvene.IntervenableModel({**place, "intervention_type": pyvene.LowRankRotatedSpaceIntervention}, model=model)
    rotation = _rotation(lens)
    rotation.to(start.device, start.dtype)
    torch.manual_seed(COMPLETION)
    rotation.weight = start.clone()
    return lens


def _rotation(lens: pyvene.IntervenableModel) -> torch.nn.Module:
    (intervention,) = lens.interventions.values()
    return intervention.rotate_layer


def _fit(model: torch.nn.Module, task: Task, sources: Tensor | None) -> Fitted:
    lens = _lens(model, task, task.start)

    def loss_of(items: Tensor) -> Tensor:
        return F.cross_entropy(_logits(lens, task, sources, items), task.labels[items])

    losses = adam(list(_rotation(lens).parameters()), task, loss_of)
    return Fitted(losses, _rotation(lens).weight.detach())


def _logits(lens: pyvene.IntervenableModel, task: Task, sources: Tensor | None, items: Tensor) -> Tensor:
    base, where = {"input_ids": task.base[items]}, {"sources->base": task.position}
    if sources is None:
        out = lens(base, [{"input_ids": task.source[items]}], where)[1]
    else:
        out = lens(base, unit_locations=where, source_representations=sources[items])[1]
    return out.logits[:, -1]


def _collected(model: torch.nn.Module, task: Task) -> Tensor:
    """Return the source activations, [pairs, 1, width]; a prompt that comes often is run once."""
    prompts, of_pair = task.source.unique(dim=0, return_inverse=True)
    place = {"layer": task.layer, "component": "block_output"}
    lens = pyvene.IntervenableModel({**place, "intervention_type": pyvene.CollectIntervention}, model=model)
    found: list[Tensor] = []
    with torch.no_grad():
        for ids in prompts.split(16):
            found += lens({"input_ids": ids}, unit_locations={"base": task.position})[0][1]
    return torch.cat(found).view(len(prompts), 1, -1)[of_pair]
