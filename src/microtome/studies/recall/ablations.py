"""Sets of units taken out in five ways, and what that does to every prompt.

    zero             the unit is silent
    mean             its mean over discovery prompts of all four cells: it says nothing about this prompt or task
    positional mean  the same at each distance from the end
    resample         its value on another prompt of the same cell
    counterfactual   its value on the minimal counterfactual: only what tells the two entities apart is lost

`mean` is what sets are chosen and tested by; the others show how far the answer depends on that choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import SiteError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits import ablate, patch, resample
from microtome.engine.edit import Constant, Edit, From
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.recall.prompts import Cases

__all__ = [
    "ABLATIONS",
    "HEADS",
    "NEURONS",
    "Reference",
    "ablation_edits",
    "reference_of",
    "swept",
    "unit_space",
    "without",
]

ABLATIONS = ("zero", "mean", "positional mean", "resample", "counterfactual")
HEADS, NEURONS = "blocks.*.attn.heads", "blocks.*.mlp.neurons"


def unit_space(model: Model) -> dict[Site, int]:
    """Return the units of the study: every head, and every neuron where the model has neurons (not inside experts)."""
    space = model.space(HEADS)
    try:
        space |= model.space(NEURONS)
    except SiteError:
        return space
    return space


@dataclass(frozen=True, eq=False)
class Reference:
    """Mean activations over discovery prompts.

    Attributes:
        mean: site -> mean over prompts and tokens, [units] or [heads, d_head].
        by_place: site -> mean at each distance from the end, [1, seq, units(, d_head)], aligned at the end.
    """

    mean: Mapping[Site, Tensor]
    by_place: Mapping[Site, Tensor] = field(repr=False)

    def placed(self, site: Site, seq: int) -> Tensor:
        """Return the positional mean for sequences of another length; places never seen get the overall mean."""
        found = self.by_place[site][:, -seq:]
        front = self.mean[site].expand(1, seq - found.shape[1], *self.mean[site].shape)
        return torch.cat([front, found], 1)


def reference_of(model: Model, cases: Sequence[Cases], sites: Sequence[Site], size: int) -> Reference:
    """Return the mean activations of some prompts, in float64 sums, a chunk at a time."""
    longest = max(c.batch.seq for c in cases)
    total: dict[Site, Tensor] = {}
    count = torch.zeros(longest, dtype=torch.float64, device=model.device)
    for chunk in (chunk for c in cases for chunk in c.chunks(size)):
        mask = chunk.batch.mask.double()
        count[longest - chunk.batch.seq :] += mask.sum(0)
        for site, x in run(model, chunk.batch, read=sites, logits="none").items():
            summed = torch.einsum("bs,bs...->s...", mask, x.double())
            if site not in total:
                total[site] = torch.zeros(longest, *summed.shape[1:], dtype=torch.float64, device=model.device)
            total[site][longest - chunk.batch.seq :] += summed
    mean = {s: (x.sum(0) / count.sum()).to(model.dtype) for s, x in total.items()}
    places = {
        s: (x / count.clamp(min=1).reshape(-1, *[1] * (x.ndim - 1)))[None].to(model.dtype) for s, x in total.items()
    }
    return Reference(mean, places)


def ablation_edits(
    kind: str, units: Units, cases: Cases, reference: Reference, runs: Mapping[str, Mapping[Site, Tensor]], seed: int
) -> list[Edit]:
    """Return the edits that take a set out, for one chunk of prompts.

    Args:
        kind: one of `ABLATIONS`.
        units: the set.
        cases: the prompts.
        reference: mean activations.
        runs: "own" and "counterfactual" activations of these prompts, where the kind needs them.
        seed: of the resampling.
    """
    if kind == "zero":
        return ablate(units)
    if kind == "resample":
        return resample(units, runs["own"], seed)
    if kind == "counterfactual":
        return patch(units, runs["counterfactual"])
    values = {
        "mean": lambda s: Constant(reference.mean[s]),
        "positional mean": lambda s: From(reference.placed(s, cases.batch.seq)),
    }[kind]
    return [Edit(s, values(s), units=torch.from_numpy(i.copy())) for s, i in units.items()]


def swept(
    model: Model,
    cases: Cases,
    make: Callable[[Cases], Sequence[Sequence[Edit] | Edit]],
    *,
    size: int,
    budget: str,
    told: Told | None = None,
    counterfactual: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (metric under every cell's edits [cells, prompts, 2], metric without [prompts, 2]), chunk by chunk.

    Args:
        model: the model.
        cases: the prompts.
        make: the cells for a chunk of prompts.
        size: prompts in a chunk.
        budget: memory budget of a sweep.
        told: called with the share done.
        counterfactual: edit the counterfactual runs instead (the metric keeps the prompts' answers).
    """
    effects, base = [], []
    chunks = list(cases.chunks(size))
    for k, chunk in enumerate(chunks):
        batch = chunk.counterfactual if counterfactual else chunk.batch
        progress = _share(told, k, len(chunks))
        found = sweep(model, batch, make(chunk), chunk.metric, memory_budget=budget, progress=progress)
        effects.append(found.effects.double().cpu().numpy())
        base.append(found.base.double().cpu().numpy())
    return np.concatenate(effects, 1), np.concatenate(base)


def _share(told: Told | None, k: int, chunks: int):
    return None if told is None else lambda done, total, message: told((k + done / total) / chunks)


def without(
    model: Model,
    cases: Cases,
    sets: Sequence[Units],
    reference: Reference,
    *,
    kinds: Sequence[str] = ("mean",),
    size: int,
    budget: str,
    seed: int = 0,
    told: Told | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (metric without each set [kinds, sets, prompts, 2], metric with everything [prompts, 2])."""
    sites = sorted({s for units in sets for s in units.sites})

    def make(chunk: Cases) -> list[list[Edit]]:
        runs: dict[str, Mapping[Site, Tensor]] = {}
        if "resample" in kinds:
            runs["own"] = run(model, chunk.batch, read=sites, logits="none")
        if "counterfactual" in kinds:
            runs["counterfactual"] = run(model, chunk.counterfactual, read=sites, logits="none")
        return [ablation_edits(kind, units, chunk, reference, runs, seed) for kind in kinds for units in sets]

    effects, base = swept(model, cases, make, size=size, budget=budget, told=told)
    return effects.reshape(len(kinds), len(sets), *effects.shape[1:]), base
