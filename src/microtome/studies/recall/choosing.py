"""Choosing the recall set and the reasoning set: scored on discovery prompts, sized on validation prompts.

A unit's claim to a task is what it carries there beyond what it carries in the other: a_r - max(a_q, 0). Heads and
neurons are ranked apart. The index falls into two sides, one for each set,

    DD = [drop_r(S_r) - drop_q(S_r)] + [drop_q(S_q) - drop_r(S_q)]

so each set is chosen by its own side: every estimate and every size of the grid is tried on validation prompts (other
countries), and the smallest set whose side is within 5 % of the best is taken. No test prompt is seen here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.recall.ablations import Reference, without
from microtome.studies.recall.prompts import TASKS, Cases
from microtome.studies.recall.scoring import unflat

__all__ = ["ACCURACY", "LEVELS", "Candidate", "candidates", "choose", "other_task", "task_claims", "top_units"]

LEVELS = ("heads", "neurons", "heads and neurons")
ENOUGH = 0.95
ACCURACY = 1


@dataclass(frozen=True)
class Candidate:
    """A set that might be chosen for a task.

    Attributes:
        level: what it is made of, one of `LEVELS` (the last takes any mix, also of one kind alone).
        task: whose set it is.
        method: the estimate it was ranked by.
        heads: how many heads.
        neurons: how many neurons.
        units: the set.
    """

    level: str
    task: str
    method: str
    heads: int
    neurons: int
    units: Units


def other_task(task: str) -> str:
    """Return the other of the two tasks."""
    return next(t for t in TASKS if t != task)


def task_claims(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each task what every unit carries there beyond the other task, from scores [tasks, units]."""
    recall, reasoning = scores
    return dict(zip(TASKS, (recall - np.maximum(reasoning, 0), reasoning - np.maximum(recall, 0)), strict=True))


def candidates(
    scores: np.ndarray,
    space: Mapping[Site, int],
    methods: Sequence[str],
    head_shares: Sequence[float],
    neuron_shares: Sequence[float],
) -> list[Candidate]:
    """Return every set that might be chosen.

    Args:
        scores: [tasks, methods, units].
        space: the units.
        methods: names of the second axis.
        head_shares: sizes of head sets, as shares of all heads.
        neuron_shares: the same for neurons.
    """
    grids = _grids(space, head_shares, neuron_shares)
    found = []
    for m, method in enumerate(methods):
        for task, claim in task_claims(scores[:, m]).items():
            by_site = unflat(claim, space)
            for level, grid in grids.items():
                found += [Candidate(level, task, method, h, n, top_units(by_site, h, n)) for h, n in grid]
    return found


def _grids(space: Mapping[Site, int], head_shares, neuron_shares) -> dict[str, list[tuple[int, int]]]:
    """Return level -> (heads, neurons) of its candidates."""
    total = {k: sum(n for s, n in space.items() if s.kind == k) for k in ("attn.heads", "mlp.neurons")}
    heads = sorted({max(1, round(x * total["attn.heads"])) for x in head_shares})
    grids = {"heads": [(h, 0) for h in heads]}
    if total["mlp.neurons"]:
        neurons = sorted({max(1, round(x * total["mlp.neurons"])) for x in neuron_shares})
        grids["neurons"] = [(0, n) for n in neurons]
        grids["heads and neurons"] = [(h, n) for h in (0, *heads) for n in (0, *neurons) if h + n]
    return grids


def top_units(claim: Mapping[Site, np.ndarray], heads: int, neurons: int) -> Units:
    """Return the heads and neurons with the highest claims."""
    return _top(claim, "attn.heads", heads) | _top(claim, "mlp.neurons", neurons)


def _top(claim: Mapping[Site, np.ndarray], kind: str, k: int) -> Units:
    return Units.top_k({s: v for s, v in claim.items() if s.kind == kind}, k) if k else Units()


def choose(
    model: Model,
    found: Sequence[Candidate],
    cases: Mapping[str, Cases],
    reference: Reference,
    *,
    size: int,
    budget: str,
    told: Told,
) -> tuple[dict[str, dict[str, Candidate]], list[dict]]:
    """Return (level -> task -> the set chosen, one row per candidate), by accuracy under mean ablation.

    Args:
        model: the model.
        found: the candidates.
        cases: task -> validation prompts.
        reference: mean activations.
        size: prompts in a chunk.
        budget: memory budget of a sweep.
        told: called with the share done.

    Raises:
        DataError: there is nothing to choose from.
    """
    if not found:
        raise DataError("Asked to choose sets from no candidate; give at least one size.")
    drops = _drops(model, found, cases, reference, size=size, budget=budget, told=told)
    rows, chosen = [], {}
    for i, c in enumerate(found):
        own, off = drops[c.task][i], drops[other_task(c.task)][i]
        rows.append(
            {"level": c.level, "set": c.task, "method": c.method, "heads": c.heads, "neurons": c.neurons,
             "own_drop": float(own), "other_drop": float(off), "side": float(own - off), "chosen": False}
        )  # fmt: skip
    for level, task in dict.fromkeys((c.level, c.task) for c in found):
        own = [i for i, c in enumerate(found) if (c.level, c.task) == (level, task)]
        best = max(rows[i]["side"] for i in own)
        enough = [i for i in own if rows[i]["side"] >= best - (1 - ENOUGH) * abs(best)]
        pick = min(enough, key=lambda i: (len(found[i].units), -rows[i]["side"], i))
        rows[pick]["chosen"] = True
        chosen.setdefault(level, {})[task] = found[pick]
    return chosen, rows


def _drops(model, found, cases, reference, *, size, budget, told) -> dict[str, np.ndarray]:
    """Return task -> mean drop of its accuracy without each candidate's units, [candidates]."""
    drops = {}
    for k, (task, own) in enumerate(cases.items()):
        effects, base = without(model, own, [c.units for c in found], reference, size=size, budget=budget,
                                told=lambda x, k=k: told((k + x) / len(cases)))  # fmt: skip
        drops[task] = (base[:, ACCURACY] - effects[0, :, :, ACCURACY]).mean(1)
    return drops
