"""nnsight: a trace that reads the sources and stops, a trace with gradients for each step; the rotation is torch's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor

from benchmarks.das import Fitted, Fitter, Task, adam
from benchmarks.peers.plain_das import Reflections
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import Work

__all__ = ["fitters"]


def fitters(work: Work) -> list[Fitter]:
    """The one way."""
    tokenizer = unused_tokenizer(work.model.config.vocab_size, work.scratch)
    lens = TransformersModel(work.copied_model(), task="text-generation", tokenizer=tokenizer)

    def prepare(tasks: Sequence[Task]) -> list[Tensor]:
        return [_collected(lens, task) for task in tasks]

    def fit(tasks: Sequence[Task], items: Sequence[Tensor]) -> list[Fitted]:
        return [_fit(lens, task, sources) for task, sources in zip(tasks, items, strict=True)]

    def said(task: Task, sources: Tensor, axes: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([_logits(lens, task, sources, items, axes).argmax(-1) for items in task.batches()])

    return [Fitter("nnsight", prepare, fit, said)]


def _collected(lens: TransformersModel, task: Task) -> Tensor:
    """Return the source activations, [pairs, width]; a prompt that comes often is run once."""
    prompts, of_pair = task.source.unique(dim=0, return_inverse=True)
    found: list[Tensor] = []
    for ids in prompts.split(16):
        with torch.no_grad(), lens.trace(ids) as tracer:
            found.append(lens.model.layers[task.layer].output[:, task.position].save())
            tracer.stop()
    return torch.cat(found)[of_pair]


def _fit(lens: TransformersModel, task: Task, sources: Tensor) -> Fitted:
    rotation = Reflections(task.start)

    def loss_of(items: Tensor) -> Tensor:
        return F.cross_entropy(_logits(lens, task, sources, items, rotation()), task.labels[items])

    return Fitted(adam(list(rotation.parameters()), task, loss_of), rotation().detach())


def _logits(lens: TransformersModel, task: Task, sources: Tensor, items: Tensor, axes: Tensor) -> Tensor:
    taken, kept = sources[items], []
    with lens.trace(task.base[items]):
        hidden = lens.model.layers[task.layer].output
        own = hidden[:, task.position]
        hidden[:, task.position] = own + (taken - own) @ axes @ axes.T
        kept.append(lens.lm_head.output[:, -1].save())
    return kept[0]
