"""A score for every unit and task, by three estimates, and how far each can be trusted.

Every score is a share of the task's mean logit difference that goes when the unit is changed (noising), from gradients
at the prompt's run:

    AtP              change to the counterfactual's value, one gradient        (arXiv 2403.00745)
    EAP-IG           the same, gradients averaged along a path of embeddings   (arXiv 2403.17806)
    AtP to the mean  change to the mean over prompts: also finds what handles both entities alike

Exact values stand beside them: every head, and a sample of neurons and edges, half of it the best-scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits import patch, path_patch
from microtome.engine.edit import Constant, Edit
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.measures.attribution import edge_attribution, integrated_gradients
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.recall.ablations import Reference, swept
from microtome.studies.recall.prompts import Cases

__all__ = [
    "METHODS",
    "Scored",
    "agreement",
    "edge_rows",
    "exact_scores",
    "flat",
    "sample_units",
    "shuffled_scores",
    "unflat",
    "unit_scores",
]

METHODS = ("AtP", "EAP-IG", "AtP to the mean")


def flat(scores: Mapping[Site, np.ndarray], space: Mapping[Site, int]) -> np.ndarray:
    """Return scores by site as one vector, sites in the order of the space."""
    return np.concatenate([np.asarray(scores[site]) for site in space])


def unflat(vector: np.ndarray, space: Mapping[Site, int]) -> dict[Site, np.ndarray]:
    """Return one vector as scores by site."""
    ends = np.cumsum(list(space.values()))[:-1]
    return dict(zip(space, np.split(vector, ends), strict=True))


@dataclass(frozen=True, eq=False)
class Scored:
    """Sums of scores over prompts, and what they are shares of.

    Attributes:
        total: score of every unit summed over prompts, [methods, units].
        mixed: the same over each subset of prompts, [subsets, methods, units].
        difference: logit difference of every prompt, [prompts].
        subsets: which prompts, [subsets, prompts].
    """

    total: np.ndarray
    mixed: np.ndarray
    difference: np.ndarray
    subsets: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Share of the task's mean logit difference that each unit carries, [methods, units]."""
        return self.total / self.difference.sum()


def unit_scores(
    model: Model,
    cases: Cases,
    space: Mapping[Site, int],
    reference: Reference,
    subsets: np.ndarray,
    *,
    steps: int,
    size: int,
    told: Told,
) -> Scored:
    """Return every unit's scores by each of `METHODS`.

    Args:
        model: the model.
        cases: the prompts.
        space: the units.
        reference: means over discovery prompts.
        subsets: subsets of the prompts to sum over besides, as booleans [subsets, prompts].
        steps: points of EAP-IG.
        size: prompts in a chunk.
        told: called with the share done.
    """
    sites = list(space)
    makers: dict[str, Callable[[Cases], Mapping[Site, torch.Tensor]]] = {
        "AtP": lambda c: _to_counterfactual(model, c, sites, 1),
        "EAP-IG": lambda c: _to_counterfactual(model, c, sites, steps),
        "AtP to the mean": lambda c: _to_mean(model, c, sites, reference),
    }
    total = np.zeros((len(METHODS), sum(space.values())))
    mixed = np.zeros((len(subsets), *total.shape))
    done = 0
    for chunk in cases.chunks(size):
        own = subsets[:, done : done + len(chunk)].astype(np.float64)
        for m, name in enumerate(METHODS):
            scores = makers[name](chunk)
            by_prompt = torch.cat([scores[site] for site in sites], 1).double().cpu().numpy()
            total[m] -= by_prompt.sum(0)
            mixed[:, m] -= own @ by_prompt
            told((done + len(chunk) * (m + 1) / len(METHODS)) / len(cases))
        done += len(chunk)
    return Scored(total, mixed, cases.intact(model, size)[:, 0], subsets)


def shuffled_scores(recall: Scored, reasoning: Scored) -> np.ndarray:
    """Return what the scores would be with task labels shuffled among prompts, [subsets, tasks, methods, units].

    A subset holds half of either task's prompts: it plays the first task, the prompts left over the second.
    """
    first = recall.mixed + reasoning.mixed
    both = (recall.total + reasoning.total)[None]
    weight = recall.subsets @ recall.difference + reasoning.subsets @ reasoning.difference
    whole = recall.difference.sum() + reasoning.difference.sum()
    return np.stack([first / weight[:, None, None], (both - first) / (whole - weight)[:, None, None]], 1)


def _to_counterfactual(model: Model, cases: Cases, sites, steps: int) -> Mapping[Site, torch.Tensor]:
    return integrated_gradients(model, cases.counterfactual, cases.batch, sites, cases.difference, steps=steps)


def _to_mean(model: Model, cases: Cases, sites, reference: Reference) -> dict[Site, torch.Tensor]:
    found = gradients(model, cases.batch, sites, cases.difference)
    mask = cases.batch.mask
    scores = {}
    for site in found.grads:
        product = (reference.mean[site] - found.values[site]) * found.grads[site]
        product = product * mask.reshape(*mask.shape, *[1] * (product.ndim - 2))
        scores[site] = product.flatten(3).sum((1, 3)) if product.ndim > 3 else product.sum(1)
    return scores


def sample_units(scores: np.ndarray, space: Mapping[Site, int], kind: str, n: int, rng) -> Units:
    """Return units of a kind to check exactly: half the best by any of the score rows, half drawn from the rest."""
    own = np.concatenate([np.full(k, site.kind == kind) for site, k in space.items()])
    index = np.flatnonzero(own)
    n = min(n, len(index))
    best = index[np.argsort(-np.abs(scores[:, index]).max(0), kind="stable")[: n // 2]]
    rest = rng.choice(np.setdiff1d(index, best), n - len(best), replace=False)
    chosen = np.zeros(len(own), bool)
    chosen[np.concatenate([best, rest])] = True
    return Units({site: np.flatnonzero(part) for site, part in unflat(chosen, space).items() if part.any()})


def exact_scores(
    model: Model, cases: Cases, units: Units, reference: Reference, *, size: int, budget: str, told: Told
) -> dict[str, np.ndarray]:
    """Return the exact shares, [units], of each unit changed to its counterfactual's value and to its mean."""
    single = [Units({site: [index]}) for site, index in units]

    def make(chunk: Cases) -> list:
        taken = run(model, chunk.counterfactual, read=units.sites, logits="none")
        to_mean = [Edit(s, Constant(reference.mean[s]), units=[i]) for s, i in units]
        return [*(patch(u, taken) for u in single), *to_mean]

    effects, base = swept(model, cases, make, size=size, budget=budget, told=told)
    shares = (base[:, 0] - effects[..., 0]).sum(1) / base[:, 0].sum()
    return {"counterfactual": shares[: len(single)], "mean": shares[len(single) :]}


def agreement(estimates: np.ndarray, exact: Mapping[str, np.ndarray], methods: Sequence[str]) -> list[dict]:
    """Return, for each method, the rank and linear correlation with the exact effect it estimates.

    Args:
        estimates: [methods, units].
        exact: as `exact_scores` returns it, for the same units.
        methods: names of the rows.
    """
    rows = []
    for name, values in zip(methods, estimates, strict=True):
        truth = exact["mean" if name == "AtP to the mean" else "counterfactual"]
        flat_side = np.ptp(values) == 0 or np.ptp(truth) == 0
        rank = None if flat_side else float(spearmanr(values, truth).statistic)
        line = None if flat_side else float(np.corrcoef(values, truth)[0, 1])
        rows.append(
            {
                "method": name,
                "spearman": rank,
                "pearson": line,
                "n": len(truth),
                "mean_error": float(np.abs(values - truth).mean()),
            }
        )
    return rows


def edge_rows(model: Model, cases: Cases, *, steps: int, checked: int, size: int, rng) -> list[dict]:
    """Return edges with their EAP and EAP-IG scores and, for a sample, the exact effect of path patching.

    Args:
        model: a model whose writes are its projections' outputs (`measures.attribution.edge_attribution`).
        cases: the prompts.
        steps: points of EAP-IG.
        checked: how many edges are path-patched, half of them the best-scored.
        size: prompts in a chunk.
        rng: random generator.
    """
    found = [
        [edge_attribution(model, c.counterfactual, c.batch, c.difference, steps=k) for k in (1, steps)]
        for c in cases.chunks(size)
    ]
    scale = cases.intact(model, size)[:, 0].sum()
    eap, ig = (-sum(part[k].scores.double().sum(0) for part in found).cpu().numpy() / scale for k in (0, 1))
    first = found[0][0]
    keys = [(i, j) for i, j in np.argwhere(first.possible.cpu().numpy())]
    size_of = [max(abs(eap[k]), abs(ig[k])) for k in keys]
    order = np.argsort(-np.array(size_of), kind="stable")
    best = order[: checked // 2]
    rest = rng.choice(order[len(best) :], min(checked - len(best), len(order) - len(best)), replace=False)
    chosen = [keys[i] for i in [*best, *rest]]
    exact = dict(zip(chosen, _path_effects(model, cases, first, chosen, size), strict=True))
    rows = []
    for i, j in keys:
        site, unit = first.senders[i]
        rows.append(
            {
                "sender": f"{site}[{unit}]",
                "reader": first.readers[j],
                "eap": float(eap[i, j]),
                "eap_ig": float(ig[i, j]),
                "exact": exact.get((i, j)),
            }
        )
    return rows


def _path_effects(model: Model, cases: Cases, edges, chosen, size: int) -> list[float]:
    """Return the exact share of each edge: the reader alone sees the sender as in the counterfactual run."""
    total, scale = np.zeros(len(chosen)), 0.0
    senders = sorted({edges.senders[i][0] for i, _ in chosen})
    for chunk in cases.chunks(size):
        own, other = (run(model, b, read=senders, logits="none") for b in (chunk.batch, chunk.counterfactual))
        base = chunk.intact(model, size)[:, 0]
        scale += base.sum()
        for k, (i, j) in enumerate(chosen):
            site, unit = edges.senders[i]
            cell = path_patch(model, Units({site: [unit]}), [edges.readers[j]], other, own)
            logits = run(model, chunk.batch, edits=cell, logits="last").logits
            rows = torch.arange(len(chunk), device=logits.device)
            total[k] += (base - chunk.difference(logits, rows).double().cpu().numpy()).sum()
    return list(total / scale)
