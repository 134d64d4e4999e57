"""Damp or set single neurons that tell a concept: AurA, Det-0, Damp, and self-conditioning's induce.

    AurA (Suau et al. 2024, arXiv 2407.12824):  x_m -> alpha_m x_m,   alpha_m = min(1, 2 (1 - AUROC_m))

Det-0 sets the neurons above a threshold to 0, Damp scales them by one factor, induce (Suau et al. 2022, arXiv
2110.02802) sets them to their mean where the concept is present. How many neurons is the knob of the last three: by the
released code's default all above 0.5, which ruins a model; `tune_k` chooses.

Where a neuron is scaled matters. `pre`: what the gate and up projections write, before the nonlinearity (AurA's own
choice, which also takes the down projection's outputs); towards 0 there is not off. `post`: what the down projection
reads, the neuron's value itself. `value`: its column of the down projection; that is `post` baked (`baking.bake`).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import EditError, MeasureError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits.make import ablate
from microtome.engine.edit import Constant, Edit, Scale
from microtome.models.model import Model

__all__ = ["aura", "aura_factor", "damp", "det_zero", "experts", "induce", "neuron_sites", "tune_k"]

_CHANCE = 0.5


def neuron_sites(model: Model, at: str = "post") -> list[Site]:
    """Return the sites of all MLP neurons: `post`, or `pre` (gate and up, or up alone).

    Raises:
        EditError: another place was asked for, or the model has none.
    """
    kinds = {"post": ("mlp.neurons",), "pre": ("mlp.gate", "mlp.up")}
    if at not in kinds:
        raise EditError(f"Neurons at '{at}' were asked for; choose pre or post (value is post, baked).")
    found = [s for s in model.sites if s.block is not None and s.kind in kinds[at]]
    if not found:
        why = model.anatomy.missing.get("mlp.neurons", "its blocks show none")
        raise EditError(
            f"Neurons of '{model.name}' were asked for at '{at}', found none ({why}); edit mlp.out instead."
        )
    return found


def aura_factor(auroc: np.ndarray) -> np.ndarray:
    """Return min(1, 2 (1 - AUROC)): 1 up to chance, falling to 0 for a perfect expert.

    Raises:
        MeasureError: a value is not within [0, 1].
    """
    auroc = np.asarray(auroc, dtype=np.float64)
    if not ((auroc >= 0) & (auroc <= 1)).all():
        raise MeasureError(
            f"AurA over {auroc.size} areas was asked for, found some outside 0-1; score the neurons first."
        )
    return np.minimum(1.0, 2 * (1 - auroc))


def aura(auroc: Mapping[Site | str, np.ndarray]) -> list[Edit]:
    """Return AurA's edits: each neuron above chance is scaled by twice its distance from being a perfect expert.

    Args:
        auroc: for each site the area of each neuron.

    Raises:
        MeasureError: an area is not within [0, 1].
    """
    return [Edit(site, Scale(torch.from_numpy(aura_factor(areas)))) for site, areas in auroc.items()]


def experts(scores: Mapping[Site | str, np.ndarray], k: int | None = None, *, threshold: float = _CHANCE) -> Units:
    """Return the k best neurons over all sites, or all above a threshold.

    Args:
        scores: for each site one score a neuron (AUROC, average precision).
        k: how many; None takes all above the threshold, strictly.
        threshold: see k.

    Raises:
        UnitsError: k is more than there are, or a score is NaN.
    """
    if k is not None:
        return Units.top_k(scores, k)
    return Units({site: np.flatnonzero(np.asarray(s) > threshold) for site, s in scores.items()})


def det_zero(units: Units) -> list[Edit]:
    """Return the edits that set neurons to 0."""
    return ablate(units)


def damp(units: Units, factor: float = 0.5) -> list[Edit]:
    """Return the edits that scale neurons by one factor."""
    return ablate(units, value=Scale(factor))


def induce(units: Units, means: Mapping[Site | str, Tensor]) -> list[Edit]:
    """Return the edits that set neurons to their means over sentences with the concept.

    Args:
        units: which neurons.
        means: for each site the mean of every neuron there, [units].

    Raises:
        EditError: a site of the units has no means.
    """
    known = {Site.parse(s): m for s, m in means.items()}
    absent = [str(s) for s in units.sites if s not in known]
    if absent:
        raise EditError(f"Inducing units at '{absent[0]}' was asked for, found no means of it; take them first.")
    return [Edit(s, Constant(known[s]), units=torch.from_numpy(i.copy())) for s, i in units.items()]


def tune_k(
    scores: Mapping[Site | str, np.ndarray],
    ks: Sequence[int],
    make: Callable[[Units], list[Edit]],
    loss: Callable[[list[Edit]], float],
) -> tuple[int, dict[int, float]]:
    """Return the k whose edits have the least loss (the smallest of equals), and the loss of each.

    Args:
        scores: for each site one score a neuron.
        ks: numbers of neurons to try; 0 is no edit at all and belongs among them.
        make: from units to edits, e.g. `det_zero`.
        loss: what the edits do, on validation data that no test uses.

    Raises:
        EditError: there is no k to try.
    """
    if len(ks) == 0:
        raise EditError("A number of experts was to be tuned, found no k to try; give some, with 0 among them.")
    losses = {k: float(loss(make(experts(scores, k)) if k else [])) for k in sorted(set(ks))}
    return min(losses, key=losses.get), losses
