"""Plain hooks that fit rotations with a source and a base forward of the whole model a step; and the tasks.

A pair's label is what the model says with the whole source activation put in, so that a fit has something to find and
its score on other pairs means something.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from benchmarks.das import BATCH, COMPLETION, Fitted, Fitter, Task, adam
from benchmarks.workload import POSITIONS, Work

__all__ = ["LAYER", "fitters", "make_task", "shared_prompts"]

LAYER = 4
FEW = 8  # templates, and entities
SHARE = 4  # of the width's dimensions, one in so many is swapped


def make_task(
    work: Work, pairs: int = 128, *, epochs: int = 1, position: int = -1, seed: int = 2, few: bool = False
) -> Task:
    """Return pairs of random prompts, all different; or of few: 8 templates with 8 entities at the edited position."""
    draw, vocabulary = torch.Generator().manual_seed(seed), work.model.config.vocab_size
    ids = torch.randint(vocabulary, (2, pairs, POSITIONS), generator=draw)
    if few:
        ids = _from_few(pairs, vocabulary, position, draw)
    orders = [torch.randperm(pairs, generator=draw) for _ in range(epochs)]
    return _labelled(work, *ids.to(work.device), torch.cat(orders).view(-1, BATCH), position, draw)


def _from_few(pairs: int, vocabulary: int, position: int, draw: torch.Generator) -> Tensor:
    """Return bases and sources, [2, pairs, 16], of templates and entities that are the same whatever was drawn."""
    always = torch.Generator().manual_seed(0)
    templates = torch.randint(vocabulary, (FEW, POSITIONS), generator=always)
    entities = torch.randint(vocabulary, (FEW,), generator=always)
    ids = templates[torch.randint(FEW, (2, pairs), generator=draw)]
    ids[..., position] = entities[torch.randint(FEW, (2, pairs), generator=draw)]
    return ids


def shared_prompts(work: Work, pairs: int, prompts: int) -> Task:
    """Return pairs that share their prompts: each is the source of as many pairs in a row, bases are drawn."""
    draw, vocabulary = torch.Generator().manual_seed(3), work.model.config.vocab_size
    ids = torch.randint(vocabulary, (prompts, POSITIONS), generator=draw).to(work.device)
    base = ids[torch.randint(prompts, (pairs,), generator=draw)]
    source = ids.repeat_interleave(pairs // prompts, 0)
    return _labelled(work, base, source, torch.zeros(0, BATCH, dtype=torch.long), -1, draw, label=False)


def _labelled(
    work: Work, base: Tensor, source: Tensor, order: Tensor, position: int, draw: torch.Generator, label: bool = True
) -> Task:
    width = work.model.config.hidden_size
    start = torch.linalg.qr(torch.randn(width, width // SHARE, generator=draw, dtype=torch.float64)).Q
    start = start.to(work.device, work.model.dtype)
    blank = torch.zeros(len(base), dtype=torch.long, device=work.device)
    task = Task(base, source, blank, start, order, LAYER, position % POSITIONS, lr=5e-3)
    return replace(task, labels=_said(work, task, None)) if label else task


def fitters(work: Work) -> list[Fitter]:
    """Both ways of keeping the rotation orthonormal, torch's own first."""

    def fitter(name: str, rotation: type[nn.Module]) -> Fitter:
        def fit(tasks: Sequence[Task], _: Sequence) -> list[Fitted]:
            return [_fit(work, task, rotation(task.start)) for task in tasks]

        def said(task: Task, _: None, axes: Tensor) -> Tensor:
            return _said(work, task, axes)

        other = rotation is Cholesky
        return Fitter(name, lambda tasks: [None] * len(tasks), fit, said, cholesky=other, variant=other)

    return [fitter("plain hooks", Reflections), fitter("plain hooks, Cholesky", Cholesky)]


class Reflections(nn.Module):
    """R by torch's own parametrisation."""

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())
        torch.manual_seed(COMPLETION)
        orthogonal(self, "weight")

    def forward(self) -> Tensor:
        return self.weight


class Cholesky(nn.Module):
    """R = W L^-T with W'W = L L'."""

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        factor = torch.linalg.cholesky(self.weight.T @ self.weight)
        return torch.linalg.solve_triangular(factor.T, self.weight, upper=True, left=False)


def _fit(work: Work, task: Task, rotation: nn.Module) -> Fitted:
    def loss_of(items: Tensor) -> Tensor:
        return F.cross_entropy(_logits(work, task, items, rotation()), task.labels[items])

    return Fitted(adam(list(rotation.parameters()), task, loss_of), rotation().detach())


def _said(work: Work, task: Task, axes: Tensor | None) -> Tensor:
    with torch.no_grad():
        return torch.cat([_logits(work, task, items, axes).argmax(-1) for items in task.batches()])


def _logits(work: Work, task: Task, items: Tensor, axes: Tensor | None) -> Tensor:
    """Return the last logits of some pairs with the source put in along some axes (None: all of it), [n, vocab]."""
    seen: list[Tensor] = []
    with torch.no_grad(), _hooked(work, task, lambda x: seen.append(x[:, task.position])):
        work.model.model(task.source[items])

    def put(x: Tensor) -> Tensor:
        own = x[:, task.position]
        new = seen[0] if axes is None else own + (seen[0] - own) @ axes @ axes.T
        return x.index_copy(1, torch.tensor([task.position], device=x.device), new[:, None])

    with _hooked(work, task, put):
        return work.model(task.base[items], logits_to_keep=1).logits[:, -1]


@contextmanager
def _hooked(work: Work, task: Task, change: Callable[[Tensor], Tensor | None]):
    handle = work.layers[task.layer].register_forward_hook(lambda m, a, out: change(out))
    try:
        yield
    finally:
        handle.remove()
