"""TransformerLens 4: the parts of its `fit_das`, which takes neither a first rotation nor an order of the pairs.

As there, the activations of all sources are collected once, by whole forwards.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.interchange import (
    LearnedSubspace,
    SubspaceInterchange,
    collect_activations,
    run_with_intervention,
)

from benchmarks.das import BATCH, COMPLETION, Fitted, Fitter, Task, adam
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import Work

__all__ = ["fitters"]

RESID = "blocks.{}.hook_resid_post"


def fitters(work: Work) -> list[Fitter]:
    """The one way."""
    model = work.copied_model()
    tokenizer = unused_tokenizer(model.config.vocab_size, work.scratch)
    bridge = TransformerBridge.boot_transformers("llama", hf_model=model, tokenizer=tokenizer, device=work.device)
    bridge.to(work.model.dtype).eval().requires_grad_(False)

    def prepare(tasks: Sequence[Task]) -> list[Tensor]:
        return [_collected(bridge, task) for task in tasks]

    def fit(tasks: Sequence[Task], items: Sequence[Tensor]) -> list[Fitted]:
        return [_fit(bridge, task, sources) for task, sources in zip(tasks, items, strict=True)]

    def said(task: Task, sources: Tensor, axes: Tensor) -> Tensor:
        swap = SubspaceInterchange(axes)
        with torch.no_grad():
            return torch.cat([_logits(bridge, task, sources, items, swap).argmax(-1) for items in task.batches()])

    return [Fitter("transformer_lens", prepare, fit, said)]


def _collected(bridge: TransformerBridge, task: Task) -> Tensor:
    """Return the source activations, [pairs, width]; a prompt that comes often is run once."""
    prompts, of_pair = task.source.unique(dim=0, return_inverse=True)
    at = torch.full((len(prompts),), task.position)
    name = RESID.format(task.layer)
    found = collect_activations(bridge, name, prompts, _last(bridge), positions=at, batch_size=BATCH)
    return found[of_pair.cpu()]


def _fit(bridge: TransformerBridge, task: Task, sources: Tensor) -> Fitted:
    subspace = LearnedSubspace(*task.start.shape).to(task.start.device, task.start.dtype)
    torch.manual_seed(COMPLETION)
    subspace.proj.weight = task.start.clone()
    swap = SubspaceInterchange(subspace)

    def loss_of(items: Tensor) -> Tensor:
        return F.cross_entropy(_logits(bridge, task, sources, items, swap), task.labels[items])

    return Fitted(adam(list(subspace.parameters()), task, loss_of), subspace.basis.detach())


def _logits(bridge: TransformerBridge, task: Task, sources: Tensor, items: Tensor, swap: SubspaceInterchange) -> Tensor:
    at = torch.full((len(items),), task.position)
    name, taken = RESID.format(task.layer), sources[items.cpu()]
    return run_with_intervention(bridge, name, swap, task.base[items], taken, _last(bridge), positions=at)


def _last(bridge: TransformerBridge):
    return lambda ids: bridge(ids)[:, -1]
