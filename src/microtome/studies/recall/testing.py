"""The test: what each chosen set costs each cell on countries and wording never used before, against its nulls.

    drop_t(S) = accuracy of task t intact - without S
    DD        = [drop_r(S_r) - drop_q(S_r)] + [drop_q(S_q) - drop_r(S_q)]

Nulls: pairs of random sets matched in site, count and write norm; sets chosen the same way with shuffled task labels;
a no-op (every unit set to its own value). Intervals are bootstraps clustered by pair of countries and by skeleton.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.engine.run import run
from microtome.measures.dissociation import Dissociation, Outcomes, double_dissociation
from microtome.measures.outputs import KL
from microtome.measures.resampling import bootstrap_mean
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.recall.ablations import ABLATIONS, Reference, ablation_edits, without
from microtome.studies.recall.choosing import ACCURACY, other_task
from microtome.studies.recall.prompts import TASKS, Cases

__all__ = ["dissociations", "drop_rows", "growth_rows", "neutral_kl", "pair_drops", "random_twins", "sides"]

DIFFERENCE = 0


def random_twins(
    sets: Mapping[str, Units], space: Mapping[Site, int], norms: Mapping[Site, np.ndarray], n: int, rng
) -> list[dict[str, Units]]:
    """Return n pairs of disjoint random sets like the chosen pair: same count at every site, write norms alike.

    None of the chosen units is drawn, but at sites where the chosen ones leave too few others: there any unit may be,
    which makes the null harder to beat.
    """
    return [_twin_pair(sets, space, norms, rng) for _ in range(n)]


def _twin_pair(sets: Mapping[str, Units], space, norms, rng) -> dict[str, Units]:
    drawn: dict[str, dict[Site, np.ndarray]] = {task: {} for task in sets}
    for site in sorted({s for units in sets.values() for s in units.sites}):
        chosen = np.concatenate([units.at(site) for units in sets.values()])
        roomy = space[site] - len(chosen) >= len(chosen)
        used = chosen if roomy else chosen[:0]
        for task, units in sets.items():
            own = units.at(site)
            if roomy and len(own):
                twin = Units({site: own}).matched_random(space, rng, exclude=Units({site: used}), norms=norms).at(site)
            else:
                twin = rng.choice(np.setdiff1d(np.arange(space[site]), used), len(own), replace=False)
            drawn[task][site] = twin
            used = np.concatenate([used, twin])
    return {task: Units(by_site) for task, by_site in drawn.items()}


def dissociations(
    model: Model,
    sets: Mapping[str, Units],
    cases: Mapping[str, Cases],
    reference: Reference,
    null: np.ndarray | None,
    *,
    size: int,
    budget: str,
    seed: int,
    draws: int,
) -> dict[str, Dissociation]:
    """Return the double dissociation under mean ablation by accuracy and by logit difference.

    The logit difference of each task is divided by its intact mean, so that both tasks are on one scale.

    Args:
        model: the model.
        sets: task -> units.
        cases: task -> prompts.
        reference: mean activations.
        null: index, by accuracy, of matched random pairs of sets.
        size: prompts in a chunk.
        budget: memory budget of a sweep.
        seed: of the bootstrap.
        draws: bootstrap resamples.
    """
    found = {}
    for task, own in cases.items():
        both = [sets[task], sets[other_task(task)]]
        effects, base = without(model, own, both, reference, size=size, budget=budget)
        found[task] = (base, effects[0], own.clusters)
    results = {}
    for outcome, column in (("accuracy", ACCURACY), ("logit difference", DIFFERENCE)):
        outcomes = []
        for base, (without_own, without_other), clusters in found.values():
            scale = 1.0 if column == ACCURACY else base[:, column].mean()
            values = (x[:, column] / scale for x in (base, without_own, without_other))
            outcomes.append(Outcomes(*values, clusters))
        rng = generator(seed, "bootstrap", outcome)
        at = null if column == ACCURACY else None
        results[outcome] = double_dissociation(*outcomes, rng=rng, null=at, draws=draws)
    return results


def pair_drops(
    model: Model,
    pairs: Sequence[Mapping[str, Units]],
    cases: Mapping[str, Cases],
    reference: Reference,
    *,
    size: int,
    budget: str,
    told: Told,
) -> dict[tuple[str, str], np.ndarray]:
    """Return (whose set, task asked) -> mean drop of accuracy without the set, for each pair of sets, [pairs]."""
    drops = {}
    for k, (task, own) in enumerate(cases.items()):
        sets = [pair[name] for name in TASKS for pair in pairs]
        effects, base = without(
            model, own, sets, reference, size=size, budget=budget, told=lambda x, k=k: told((k + x) / len(cases))
        )
        lost = (base[:, ACCURACY] - effects[0, :, :, ACCURACY]).mean(1).reshape(len(TASKS), len(pairs))
        drops |= {(name, task): x for name, x in zip(TASKS, lost, strict=True)}
    return drops


def sides(drops: Mapping[tuple[str, str], np.ndarray]) -> dict[str, np.ndarray]:
    """Return for each set what it costs its own task beyond the other, [pairs]; their sum is the index."""
    return {task: drops[task, task] - drops[task, other_task(task)] for task in TASKS}


def drop_rows(
    model: Model,
    sets: Mapping[str, Units],
    cases: Mapping[str, Cases],
    reference: Reference,
    *,
    size: int,
    budget: str,
    seed: int,
    draws: int,
    told: Told,
) -> list[dict]:
    """Return what each set costs each cell under each ablation: drops of accuracy and of logit difference.

    A no-op arm runs beside: every unit of the set takes the value it has; its drop is exactly 0 or the engine is wrong.
    """
    rows = []
    for k, (cell, own) in enumerate(cases.items()):
        effects, base = without(
            model,
            own,
            list(sets.values()),
            reference,
            kinds=ABLATIONS,
            size=size,
            budget=budget,
            seed=seed,
            told=lambda x, k=k: told((k + x) / len(cases)),
        )
        table = {kind: effects[i] for i, kind in enumerate(ABLATIONS)}
        table["no-op"] = _untouched(model, own, list(sets.values()), size, base)
        for kind, found in table.items():
            for name, values in zip(sets, found, strict=True):
                rows.append(_drop_row(name, cell, kind, base, values, own, seed, draws))
    return rows


def _untouched(model: Model, cases: Cases, sets: Sequence[Units], size: int, base: np.ndarray) -> np.ndarray:
    """Return the metric with every unit of each set replaced by its own value, [sets, prompts, 2]."""
    found = []
    for units in sets:
        parts = []
        for chunk in cases.chunks(size):
            own = run(model, chunk.batch, read=units.sites, logits="none")
            edits = ablation_edits("counterfactual", units, chunk, None, {"counterfactual": own}, 0)
            logits = run(model, chunk.batch, edits=edits, logits="last").logits
            parts.append(chunk.metric(logits, torch.arange(len(chunk), device=logits.device)))
        found.append(torch.cat(parts).double().cpu().numpy())
    # Both sides by whole forwards: a no-op is exact there, while a sweep's base differs from them by rounding.
    return base + np.stack(found) - cases.intact(model, size)


def _drop_row(name, cell, kind, base, values, cases: Cases, seed: int, draws: int) -> dict:
    rng = generator(seed, "drops", name, cell, kind)
    accuracy = bootstrap_mean(base[:, ACCURACY] - values[:, ACCURACY], rng=rng, clusters=cases.clusters, draws=draws)
    scale = base[:, DIFFERENCE].mean()
    logit = bootstrap_mean((base - values)[:, DIFFERENCE] / scale, rng=rng, clusters=cases.clusters, draws=draws)
    return {
        "set": name,
        "cell": cell,
        "ablation": kind,
        "drop": accuracy.estimate,
        "low": accuracy.low,
        "high": accuracy.high,
        "logit_drop": logit.estimate,
        "logit_low": logit.low,
        "logit_high": logit.high,
        "n": len(cases),
    }


def growth_rows(
    model: Model,
    claims: Mapping[str, Mapping[Site, np.ndarray]],
    sizes: Sequence[int],
    twins: Callable[[Mapping[str, Units]], list[dict[str, Units]]],
    cases: Mapping[str, Cases],
    reference: Reference,
    *,
    size: int,
    budget: str,
    seed: int,
    draws: int,
    told: Told,
) -> list[dict]:
    """Return how the drops grow with the number of neurons taken out, with a band of matched random sets.

    Args:
        model: the model.
        claims: task -> site -> score, the order in which neurons join the task's set.
        sizes: how many neurons.
        twins: matched random sets for a pair of sets.
        cases: task -> prompts.
        reference: mean activations.
        size: prompts in a chunk.
        budget: memory budget of a sweep.
        seed: of the bootstrap.
        draws: bootstrap resamples.
        told: called with the share done.
    """
    pairs = [{task: Units.top_k(claim, k) for task, claim in claims.items()} for k in sizes]
    random = [twins(pair) for pair in pairs]
    rows = []
    for i, (task, own) in enumerate(cases.items()):
        sets = [(name, k, units) for k, pair in zip(sizes, pairs, strict=True) for name, units in pair.items()]
        drawn = [(name, k, twin[name]) for k, each in zip(sizes, random, strict=True) for twin in each for name in twin]
        effects, base = without(
            model,
            own,
            [u for *_, u in (*sets, *drawn)],
            reference,
            size=size,
            budget=budget,
            told=lambda x, i=i: told((i + x) / len(cases)),
        )
        drops = base[:, ACCURACY] - effects[0, :, :, ACCURACY]
        for j, (name, k, _) in enumerate(sets):
            null = [drops[len(sets) + m].mean() for m, (n, kk, _) in enumerate(drawn) if (n, kk) == (name, k)]
            mean = bootstrap_mean(
                drops[j], rng=generator(seed, "growth", name, task, k), clusters=own.clusters, draws=draws
            )
            low, middle, high = np.quantile(null, [0.025, 0.5, 0.975])
            rows.append(
                {
                    "set": name,
                    "task": task,
                    "neurons": k,
                    "drop": mean.estimate,
                    "low": mean.low,
                    "high": mean.high,
                    "null": float(middle),
                    "null_low": float(low),
                    "null_high": float(high),
                    "null_sets": len(null),
                    "n": len(own),
                }
            )
    return rows


def neutral_kl(model: Model, texts: Sequence[str], named: Mapping[str, Units], reference: Reference) -> list[dict]:
    """Return how far taking a set out moves the model on neutral text: KL(intact || without), nats per token.

    Args:
        model: the model.
        texts: sentences that concern neither task.
        named: name -> units.
        reference: mean activations.
    """
    batch = model.batch(texts)
    tokens = int(batch.mask.sum())
    intact = run(model, batch).logits
    rows = []
    for name, units in named.items():
        cell = ablation_edits("mean", units, None, reference, {}, 0)
        now = run(model, batch, edits=cell).logits
        tokens_apart = [x.reshape(-1, 1, x.shape[-1]) for x in (intact, now)]  # every token is an item of its own
        found = KL(tokens_apart[0])(tokens_apart[1], torch.arange(batch.mask.numel(), device=now.device))
        kept = found[batch.mask.reshape(-1)].double().cpu().numpy()
        rows.append({"set": name, "kl": float(kept.mean()), "high": float(np.quantile(kept, 0.95)), "tokens": tokens})
    return rows
