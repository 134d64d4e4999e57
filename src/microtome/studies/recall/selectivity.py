"""Who responds to the task: correlations, with the nulls that show how little a correlation says.

Neuron values at the last token, recall against reasoning, one skeleton per item so that rows are independent. Four
columns stand side by side: the trained model, the same with task labels shuffled within skeletons, an untrained twin,
and the authors' own criteria (arXiv 2510.03366, public code) in each. A statistic that flags units of an untrained
network detects prompts, not computation.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.data.puzzles import Cell
from microtome.engine.run import run
from microtome.measures.intervals import wilson
from microtome.measures.paper_statistics import paper_criteria
from microtome.measures.selectivity import Selectivity, beyond_null, replication, selectivity
from microtome.models.model import Model
from microtome.studies.recall.ablations import NEURONS
from microtome.studies.recall.prompts import REASONING, RECALL, Cases

__all__ = ["authors_flags", "flag_rows", "gate_values", "last_values", "one_skeleton_each", "statistics"]


def last_values(model: Model, cases: Sequence[Cases], sites: str, size: int) -> np.ndarray:
    """Return activations at the last token, [prompts, units], prompts of the cases one after another."""
    rows = []
    for chunk in (chunk for c in cases for chunk in c.chunks(size)):
        found = run(model, chunk.batch, read=sites, logits="none")
        rows.append(torch.cat([x[:, -1] for x in found.values()], 1).float().cpu())
    return torch.cat(rows).numpy()


def gate_values(model: Model, cases: Sequence[Cases], size: int) -> np.ndarray:
    """Return what the authors look at: gate values before the nonlinearity (neurons, where there is no gate)."""
    gate = Site("blocks.0.mlp.gate") in model.sites
    return last_values(model, cases, "blocks.*.mlp.gate" if gate else NEURONS, size)


def one_skeleton_each(cases: Mapping[Cell, Cases]) -> dict[Cell, Cases]:
    """Return the prompts of items answered in both tasks, each item in one skeleton, the same in both."""
    both = {(p.item, p.skeleton) for p in cases[RECALL].puzzles} & {
        (p.item, p.skeleton) for p in cases[REASONING].puzzles
    }
    chosen: dict[str, str] = {}
    for item, skeleton in sorted(both):
        chosen.setdefault(item, skeleton)
    return {
        cell: cases[cell].select([i for i, p in enumerate(cases[cell].puzzles) if chosen.get(p.item) == p.skeleton])
        for cell in (RECALL, REASONING)
    }


def statistics(
    model: Model, cases: Mapping[Cell, Cases], *, size: int, seed: int, draws: int, alpha: float, shuffled: bool = False
) -> Selectivity:
    """Return the selectivity of every neuron; label 1 is reasoning.

    Args:
        model: trained or untrained.
        cases: prompts by cell, one skeleton per item.
        size: prompts in a chunk.
        seed: of the permutations.
        draws: how many.
        alpha: level after correction.
        shuffled: shuffle the task labels within skeletons first.
    """
    both = [cases[RECALL], cases[REASONING]]
    values = last_values(model, both, NEURONS, size)
    puzzles = [p for c in both for p in c.puzzles]
    task = np.repeat([0, 1], [len(c) for c in both])
    skeletons = np.array([p.skeleton for p in puzzles])
    if shuffled:
        task = shuffle_within(task, skeletons, generator(seed, "shuffled labels"))
    return selectivity(
        values,
        task,
        rng=generator(seed, "selectivity"),
        skeletons=skeletons,
        factors={"tokens": np.array([len(p.ids) for p in puzzles], float), "relation": [p.relation for p in puzzles]},
        item=None if shuffled else [p.item for p in puzzles],
        alpha=alpha,
        draws=draws,
    )


def shuffle_within(labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return labels shuffled within groups."""
    out = labels.copy()
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        out[own] = labels[rng.permutation(own)]
    return out


def flag_rows(
    found: Mapping[str, Selectivity], held_out: Mapping[str, Selectivity], authors: Mapping[str, tuple[np.ndarray, int]]
) -> list[dict]:
    """Return one row per network and statistic: the share of neurons it flags, with its interval.

    Args:
        found: "trained", "shuffled labels", "untrained" -> selectivity on discovery prompts.
        held_out: the same on test prompts, for replication.
        authors: network -> (flagged by the authors' criteria [neurons], prompts).
    """
    rows = []
    null = found["untrained"].d
    for network, own in found.items():
        row = {"network": network, "units": len(own.z), "n": own.items}
        passed = {"held up by permutation and decomposition": own.selective, "uncorrected p <= 0.05": own.p <= 0.05}
        if network in held_out:
            again = replication(own, held_out[network])
            passed["held up again on test prompts"] = again.replicated
            if network == "trained" and np.abs(null).max() > 0:
                beyond = beyond_null(own.d, null)
                passed["and beyond the untrained network"] = again.replicated & (np.abs(own.d) > beyond.threshold)
        rows += [{**row, "statistic": name, **_share(held)} for name, held in passed.items()]
    for network, (flagged, n) in authors.items():
        rows.append(
            {"network": network, "units": len(flagged), "n": n, "statistic": "authors' criteria", **_share(flagged)}
        )
    return rows


def _share(held: np.ndarray) -> dict:
    share = wilson(int(held.sum()), len(held))
    return {"flagged": int(held.sum()), "share": share.estimate, "low": share.low, "high": share.high}


def authors_flags(values: np.ndarray, n_first: int) -> np.ndarray:
    """Return which neurons the authors' criteria flag; the first rows are recall, the others reasoning."""
    return paper_criteria(values, np.arange(len(values)) >= n_first).flagged
