"""AtP*: attribution patching without its two known kinds of false negative, and a bound on what is still missed.

    QK fix     a query or key acts through a softmax that may be flat where the corrupt run stands. So the pattern is
               computed again with the clean q (or k), and only what follows is linearised:
                   score(q) = sum over positions  (pattern(q clean, k) - pattern(q, k)) @ v  .  dm/d(head output)
    GradDrop   a direct and an indirect effect may cancel in the gradient and not in fact. So one pass for each part of
               the model, in which nothing flows back through that part's write to the stream:
                   score(u) = mean of |delta_u . dm/da_u| over the passes that do not drop u's own part
    bound      random halves of the unverified units are patched together; a unit's mean effect is the difference
               between the subsets with it and without it, and no effect exceeds the simultaneous upper limit

Source: Kramar et al. 2024, arXiv 2403.00745, section 3. Theirs: nodes are (unit, position), and GradDrop drops whole
layers. Ours: a unit is patched at all positions together, as in `sweep` (so keys are replaced all at once), and by
default attention and MLP are dropped apart. Both fixes stay first-order beyond what they fix: check a sample exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.protocols import Metric
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.engine.attention import as_heads, attention_pattern
from microtome.engine.edit import Custom, Edit, From
from microtome.engine.gradients import gradients
from microtome.engine.replay import record
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.attribution import paired_runs, per_unit
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Missed", "atp_star", "missed_at_most", "qk_fixed"]

Sites = "str | Site | Sequence[str | Site]"


def qk_fixed(model: Model, clean: Batch, corrupt: Batch, sites: Sites, metric: Metric) -> dict[Site, Tensor]:
    """Return signed scores, site -> [batch, units]: attribution patching, with the QK fix at `attn.q` and `attn.k`.

    Exact where the head's output enters the metric linearly, however saturated its softmax.

    Args:
        model: a model on sdpa attention, where q and k are asked for.
        clean: the run values are taken from; same tokens' count and padding as `corrupt`.
        corrupt: the run values are put into.
        sites: sites with a sequence axis.
        metric: one value per item.

    Raises:
        MeasureError: the two batches differ in shape.

    Example:
        >>> qk_fixed(model, clean, corrupt, ["blocks.*.attn.{q,k}", "blocks.*.mlp.neurons"], metric)
    """
    changes = _changes(model, clean, corrupt, sites)
    grads = gradients(model, corrupt, [c.at for c in changes.values()], metric).grads
    return {site: change.score(site, grads) for site, change in changes.items()}


def atp_star(
    model: Model, clean: Batch, corrupt: Batch, sites: Sites, metric: Metric, *, by_block: bool = False
) -> dict[Site, Tensor]:
    """Return AtP* (QK fix and GradDrop), site -> [batch, units], all >= 0: how much a unit may matter, not which way.

    Costs one forward and backward for each part of the model (two parts a block).

    Args:
        model: a model on sdpa attention, where q and k are asked for.
        clean: the run values are taken from; same tokens' count and padding as `corrupt`.
        corrupt: the run values are put into.
        sites: sites with a sequence axis.
        metric: one value per item.
        by_block: drop attention and MLP of a block together, as the paper does (half the cost).

    Raises:
        MeasureError: the two batches differ in shape, or every pass drops a site's own part.
    """
    changes = _changes(model, clean, corrupt, sites)
    total = {site: 0.0 for site in changes}
    passes = dict.fromkeys(changes, 0)
    for dropped in _drops(model, by_block):
        edits = [Edit(write, Custom(_NoGradient.apply)) for write in dropped]
        grads = gradients(model, corrupt, [c.at for c in changes.values()], metric, edits).grads
        for site, change in changes.items():
            if not any(_same_part(site, write) for write in dropped):
                total[site] = total[site] + change.score(site, grads).abs()
                passes[site] += 1
    alone = next((site for site, n in passes.items() if n == 0), None)
    if alone is not None:
        raise MeasureError(f"GradDrop at '{alone}': every pass drops its own part; use by_block=False, or qk_fixed.")
    return {site: total[site] / passes[site] for site in changes}


@dataclass(frozen=True, eq=False)
class _Change:
    """What patching every unit of a site changes, at the place from where on it is linearised."""

    at: Site
    delta: Tensor
    units: int

    def score(self, site: Site, grads: Mapping[Site, Tensor]) -> Tensor:
        """Return delta . gradient by unit, [batch, units]; shared keys sum over the query heads they serve."""
        return per_unit(site, self.delta * grads[self.at]).unflatten(1, (self.units, -1)).sum(2)


def _changes(model: Model, clean: Batch, corrupt: Batch, sites: Sites) -> dict[Site, _Change]:
    infos = {info.site: info for info in model.select(sites)}
    source, own = paired_runs(model, clean, corrupt, list(infos))
    calls = {}
    if any(site.kind in ("attn.q", "attn.k") for site in infos):
        calls = _attention_calls(model, corrupt)
    found = {}
    for site, info in infos.items():
        if site.kind in ("attn.q", "attn.k"):
            at = Site(f"blocks.{site.block}.attn.heads")
            found[site] = _Change(at, _head_change(calls[site.block], site.kind, source[site]), info.units)
        else:
            delta = source[site] - own[site]
            found[site] = _Change(site, delta, delta.shape[1 if site.kind == "attn.pattern" else 2])
    return found


def _attention_calls(model: Model, batch: Batch) -> dict[int, dict]:
    """Return the arguments of every block's attention call, q included."""
    queries = run(model, batch, read="blocks.*.attn.q", logits="none")
    recorded = record(model, batch, lambda: run(model, batch, logits="last").logits).attention
    return {i: {**call, "query": queries[f"blocks.{i}.attn.q"].transpose(1, 2)} for i, call in recorded.items()}


def _head_change(call: dict, kind: str, source: Tensor) -> Tensor:
    """Return how the heads' outputs change when all queries (or keys) are the source's, [batch, seq, head, d_head]."""
    name = {"attn.q": "query", "attn.k": "key"}[kind]
    patched = {**call, name: as_heads(source.transpose(1, 2), call[name].shape[1])}
    change = attention_pattern(patched) - attention_pattern(call)
    return (change @ as_heads(call["value"], change.shape[1])).transpose(1, 2)


class _NoGradient(torch.autograd.Function):
    """The identity, through which nothing flows back (a zero, so that what lies behind stays in the graph)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


def _drops(model: Model, by_block: bool) -> Iterator[list[Site]]:
    """Yield the writes dropped in each pass."""
    for i in range(len(model.anatomy.blocks)):
        writes = []
        for part in ("attn", "mlp"):
            named = [Site(f"blocks.{i}.{part}.{place}") for place in ("write", "out")]
            writes += [s for s in named if s in model.sites][:1]
        yield from [writes] if by_block else [[write] for write in writes]


def _same_part(site: Site, write: Site) -> bool:
    return site.block == write.block and site.kind.split(".")[0] == write.kind.split(".")[0]


@dataclass(frozen=True, eq=False)
class Missed:
    """What subset sampling says of units that were not patched one by one.

    Attributes:
        effects: site -> mean effect of each unit over random backgrounds (units in the order of the set).
        error: standard error of each effect, same shape.
        bound: with the confidence asked for, no unit's mean effect is larger in magnitude.
    """

    effects: dict[Site, np.ndarray]
    error: dict[Site, np.ndarray]
    bound: float


def missed_at_most(
    model: Model,
    clean: Batch,
    corrupt: Batch,
    units: Units,
    metric: Metric,
    *,
    rng: np.random.Generator,
    subsets: int = 64,
    level: float = 0.95,
) -> Missed:
    """Bound the effect of any unit that was not verified, by patching random halves of them together.

    Every unit is in exactly half of the subsets. Its effect is the difference of means with and without it (Welch);
    the bound is simultaneous over units (Bonferroni) and takes subset means as normal. It tightens as 1 / sqrt(subsets)
    and widens with what all the others do together.

    Args:
        model: the model.
        clean: the run values are taken from.
        corrupt: the run values are put into.
        units: the units not verified.
        metric: one value per item; its mean over items is the effect.
        rng: random generator.
        subsets: how many subsets, even, at least 4.
        level: confidence level.

    Raises:
        MeasureError: no units, or a bad number of subsets.
    """
    if len(units) == 0 or subsets < 4 or subsets % 2:
        raise MeasureError(
            f"Bounding {len(units)} units by {subsets} subsets: give one unit or more, and an even number >= 4."
        )
    from scipy.stats import t

    source, _ = paired_runs(model, clean, corrupt, units.sites)
    inside = rng.permuted(np.tile(np.arange(subsets) % 2 == 0, (len(units), 1)), axis=1).T
    owner = np.repeat(np.arange(len(units.sites)), [index.size for _, index in units.items()])
    cells = [
        [
            Edit(site, From(source[site]), units=torch.from_numpy(index[row[owner == i]]))
            for i, (site, index) in enumerate(units.items())
        ]
        for row in inside
    ]
    result = sweep(model, corrupt, cells, metric)
    y = (result.effects - result.base).double().mean(1).cpu().numpy()
    half = subsets // 2
    a, b = (np.stack([y[mask] for mask in side.T]) for side in (inside, ~inside))
    effect = a.mean(1) - b.mean(1)
    error = np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / half)
    reach = t.ppf(1 - (1 - level) / (2 * len(units)), half - 1)
    by_site = {site: owner == i for i, site in enumerate(units.sites)}
    return Missed(
        {s: effect[m] for s, m in by_site.items()},
        {s: error[m] for s, m in by_site.items()},
        float((np.abs(effect) + reach * error).max()),
    )
