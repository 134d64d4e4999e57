"""Attribution: estimate every unit's patching effect from gradients, a few passes for all units at once.

Metric m, corrupt run, clean run; delta = clean - corrupt activation of a unit. The effect of patching it in
(denoising) is m(corrupt with the unit's clean value) - m(corrupt), and its estimates are

    AtP      delta * dm/da at the corrupt run                       (Nanda 2023; Kramar et al. 2024, arXiv 2403.00745)
    IG       delta * mean over a path of dm/da                      (Sundararajan et al. 2017)
             the path blends the *embeddings* of the two runs (EAP-IG "inputs", Hanna et al. 2024, arXiv 2403.17806)
    EAP      for an edge sender -> reader: delta_sender * dm/d(reader's input)      (Syed et al. 2023, arXiv 2310.10348)

Exact for units that enter the metric linearly. Every approximate score needs its check against `sweep` on a sample.
Scores are summed over positions and the width of a head, and kept per item: [batch, units].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.protocols import Metric
from microtome.core.site import Site
from microtome.engine.edit import Edit, From
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = [
    "Edges",
    "attribution_patching",
    "edge_attribution",
    "integrated_gradients",
    "paired_runs",
    "per_unit",
]


def attribution_patching(
    model: Model, clean: Batch, corrupt: Batch, sites: "str | Site | Sequence[str | Site]", metric: Metric
) -> dict[Site, Tensor]:
    """Return delta * gradient at the corrupt run for every unit, site -> [batch, units].

    Args:
        model: the model.
        clean: the run values are taken from; same tokens' count and padding as `corrupt`.
        corrupt: the run values are put into.
        sites: sites with a sequence axis.
        metric: one value per item.

    Raises:
        MeasureError: the two batches differ in shape.
    """
    return integrated_gradients(model, clean, corrupt, sites, metric, steps=1)


def integrated_gradients(
    model: Model,
    clean: Batch,
    corrupt: Batch,
    sites: "str | Site | Sequence[str | Site]",
    metric: Metric,
    *,
    steps: int = 5,
    points_per_pass: int | None = None,
) -> dict[Site, Tensor]:
    """Return delta * mean gradient along the path of embeddings from corrupt to clean, site -> [batch, units].

    Points lie at k / steps, k = 0 .. steps - 1 (so one step is attribution patching); they are packed into the batch
    axis. At the site `embed` the scores of an item sum to m(clean) - m(corrupt) as the steps grow (completeness).

    Args:
        model: the model.
        clean: the run values are taken from.
        corrupt: the run values are put into, token by token.
        sites: sites with a sequence axis.
        metric: one value per item.
        steps: points on the path.
        points_per_pass: points packed into one pass (None: all of them).

    Raises:
        MeasureError: the two batches differ in shape.
    """
    _refuse_unpaired(clean, corrupt)
    source = run(model, clean, read=sites, logits="none")
    ends = [run(model, b, read="embed", logits="none")["embed"] for b in (corrupt, clean)] if steps > 1 else None
    points = torch.arange(steps, dtype=torch.float64) / steps
    own: dict[Site, Tensor] = {}
    total: dict[Site, Tensor] = {}
    n = len(corrupt)
    for part in points.split(points_per_pass or steps):
        k = len(part)
        batch, edits = corrupt.repeat(k), []
        if ends is not None:
            blend = torch.cat([ends[0] + float(a) * (ends[1] - ends[0]) for a in part])
            edits = [Edit("embed", From(blend))]
        found = gradients(model, batch, sites, _Repeated(metric, k, n), edits)
        own = own or {site: x[:n] for site, x in found.values.items()}  # the first point is the corrupt run itself
        for site, g in found.grads.items():
            total[site] = total.get(site, 0) + g.unflatten(0, (k, n)).sum(0)
    return {s: per_unit(s, (source[s] - own[s]) * total[s] / steps) for s in own}


@dataclass(frozen=True)
class _Repeated:
    """A metric for `times` copies of a batch of n items."""

    metric: Metric
    times: int
    n: int

    @property
    def positions(self):
        own = self.metric.positions
        return own if isinstance(own, str) else own.repeat(self.times, *[1] * (own.ndim - 1))

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        return self.metric(logits, rows % self.n)


def paired_runs(
    model: Model, clean: Batch, corrupt: Batch, sites: "str | Site | Sequence[str | Site]"
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Return the activations of both runs at some sites.

    Raises:
        MeasureError: the two batches differ in shape or padding.
    """
    _refuse_unpaired(clean, corrupt)
    return tuple(dict(run(model, b, read=sites, logits="none").activations) for b in (clean, corrupt))


def _refuse_unpaired(clean: Batch, corrupt: Batch) -> None:
    if clean.mask.shape != corrupt.mask.shape or not torch.equal(clean.mask, corrupt.mask):
        raise MeasureError(
            f"Clean and corrupt prompts must pair token by token: found {tuple(clean.mask.shape)} and "
            f"{tuple(corrupt.mask.shape)}, or other padding; use pairs of equal token length."
        )


def per_unit(site: Site, x: Tensor) -> Tensor:
    """Return [batch, units]: [batch, seq, units(, d_head)] or [batch, head, query, key] summed over the other axes."""
    x = x.transpose(1, 2).sum(1) if site.kind == "attn.pattern" else x.sum(1)
    return x.flatten(2).sum(2) if x.ndim > 2 else x


@dataclass(frozen=True, eq=False)
class Edges:
    """Edge scores.

    Attributes:
        senders: (site, unit) of each sender: every head, every MLP output, the embedding.
        readers: name of each reader: `blocks.i.attn`, `blocks.i.mlp`, `final_norm`.
        scores: [batch, senders, readers]; NaN-free, zero where the sender comes after the reader.
        possible: [senders, readers], whether the edge exists.
    """

    senders: tuple[tuple[Site, int], ...]
    readers: tuple[str, ...]
    scores: Tensor
    possible: Tensor


def edge_attribution(model: Model, clean: Batch, corrupt: Batch, metric: Metric, *, steps: int = 1) -> Edges:
    """Return EAP scores (EAP-IG for steps > 1) of every edge from a head, MLP or embedding to a reader of the stream.

    The readers are each block's attention and MLP and the final norm. A sender's scores over its readers sum to its
    node attribution, because what it writes reaches the metric only through them.

    Args:
        model: a decoder whose writes are the projections' outputs (no norm between).
        clean: the run values are taken from.
        corrupt: the run values are put into, token by token.
        metric: one value per item.
        steps: points on the path of embeddings.

    Raises:
        MeasureError: the model normalises its writes or its readers are not separate modules.
    """
    readers = _readers(model)
    senders = [
        "embed",
        *(f"blocks.{i}.{s}" for i in range(len(model.anatomy.blocks)) for s in ("attn.heads", "mlp.out")),
    ]
    source, own = paired_runs(model, clean, corrupt, senders)
    grads = _reader_gradients(model, clean, corrupt, readers, metric, steps)
    names, columns, possible = [], [], []
    for sender in map(Site, senders):
        delta = source[sender] - own[sender]
        rows = []
        for name, (_, block, after) in readers.items():
            reached = _reaches(sender, block, after)
            rows.append(_edge(model, sender, delta, grads[name]) if reached else None)
        units = delta.shape[2] if sender.kind == "attn.heads" else 1
        for u in range(units):
            names.append((sender, u))
            zero = torch.zeros(len(corrupt), dtype=delta.dtype, device=delta.device)
            columns.append(torch.stack([zero if r is None else r[:, u] for r in rows], 1))
            possible.append(torch.tensor([r is not None for r in rows]))
    return Edges(tuple(names), tuple(readers), torch.stack(columns, 1), torch.stack(possible))


def _readers(model: Model) -> dict[str, tuple[str, int, bool]]:
    """Return reader name -> (module path, block, whether it reads after the block's attention has written)."""
    a = model.anatomy
    found: dict[str, tuple[str, int, bool]] = {}
    for i, b in enumerate(a.blocks):
        if b.reader is None or not b.mlp_path or b.post_norm or b.attn_write != b.o or b.mlp_write != b.mlp_out:
            raise MeasureError(
                f"Edges of '{model.name}' are not defined here: block {i} normalises what it writes or does not read "
                "the stream through one module; use attribution_patching."
            )
        found[f"blocks.{i}.attn"] = (b.reader, i, False)
        if b.mlp_path[0] != b.reader:
            found[f"blocks.{i}.mlp"] = (b.mlp_path[0], i, not b.parallel)
    found["final_norm"] = (a.final_norm, len(a.blocks), True)
    return found


def _reaches(sender: Site, block: int, after: bool) -> bool:
    if sender.block is None:
        return True
    return sender.block < block or (sender.block == block and after and sender.kind == "attn.heads")


def _reader_gradients(model, clean, corrupt, readers, metric, steps) -> dict[str, Tensor]:
    """Mean gradient at every reader's input along the path of embeddings, [batch, seq, d_model]."""
    paths = {name: f"{path}.input" for name, (path, _, _) in readers.items()}
    if steps == 1:
        batch, edits = corrupt, []
    else:
        ends = [run(model, b, read="embed", logits="none")["embed"] for b in (corrupt, clean)]
        blend = torch.cat([ends[0] + k / steps * (ends[1] - ends[0]) for k in range(steps)])
        batch, edits = corrupt.repeat(steps), [Edit("embed", From(blend))]
    n = len(corrupt)
    found = gradients(model, batch, list(paths.values()), _Repeated(metric, steps, n), edits).grads
    return {name: found[Site(path)].unflatten(0, (steps, n)).mean(0) for name, path in paths.items()}


def _edge(model: Model, sender: Site, delta: Tensor, grad: Tensor) -> Tensor:
    """Effect of a sender's change on one reader, [batch, units]."""
    if sender.kind != "attn.heads":
        return (delta * grad).sum((1, 2))[:, None]
    projection = model.module.get_submodule(model.anatomy.blocks[sender.block].o)
    with torch.inference_mode(False), torch.enable_grad():  # through the module itself: its weight may be offloaded
        heads = torch.zeros_like(delta.flatten(2)).requires_grad_()
        pulled = torch.autograd.grad(projection(heads), heads, grad.clone())[0]
    return (delta * pulled.view_as(delta)).sum((1, 3))
