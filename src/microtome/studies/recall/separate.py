"""Steps that choose the two sets and test them beside their nulls. Each returns a record's stage."""

from collections.abc import Mapping

import numpy as np

from microtome.core.seeds import derive, generator
from microtome.core.units import Units
from microtome.data.atlas import fillers
from microtome.measures.dissociation import Dissociation
from microtome.measures.intervals import Interval
from microtome.records import Stage, StageOutput, Told
from microtome.studies.recall.choosing import LEVELS, Candidate, candidates, choose, task_claims, top_units
from microtome.studies.recall.prompts import TASKS
from microtome.studies.recall.scoring import (
    METHODS,
    unflat,
)
from microtome.studies.recall.subject import Subject
from microtome.studies.recall.testing import (
    dissociations,
    drop_rows,
    growth_rows,
    neutral_kl,
    pair_drops,
    random_twins,
    sides,
)

MAIN = "heads and neurons"

__all__ = ["chosen_candidates", "growth", "main_sets", "nulls", "sets", "shuffled", "test"]


def sets(subject: Subject, scored: Stage, told: Told) -> StageOutput:
    """The recall set and the reasoning set of each level, and every candidate with what it costs on validation."""
    selection = subject.config.selection
    found = candidates(
        scored.array("unit_scores"), subject.space, METHODS, selection.head_shares, selection.neuron_shares
    )
    chosen, rows = choose(
        subject.model, found, subject.tasks("validation"), subject.reference, **subject.engine, told=told
    )
    plain = {
        level: {task: _plain(candidate) for task, candidate in by_task.items()} for level, by_task in chosen.items()
    }
    return StageOutput(
        tables={"candidates": rows, "chosen_units": _unit_rows(subject, scored, chosen)}, values={"chosen": plain}
    )


def _plain(candidate: Candidate) -> dict:
    units = {str(site): index.tolist() for site, index in candidate.units.items()}
    return {"method": candidate.method, "heads": candidate.heads, "neurons": candidate.neurons, "units": units}


def _unit_rows(subject: Subject, scored: Stage, chosen: Mapping[str, Mapping[str, Candidate]]) -> list[dict]:
    """One row per chosen unit: what it carries in both tasks and, for neurons, which tokens it writes."""
    rows = []
    for level, by_task in chosen.items():
        for task, candidate in by_task.items():
            array = scored.array("unit_scores")[:, METHODS.index(candidate.method)]
            shares = dict(zip(TASKS, (unflat(a, subject.space) for a in array), strict=True))
            said = subject.writes(candidate.units)
            rows += [
                {
                    "level": level,
                    "set": task,
                    "unit": f"{site}[{i}]",
                    "layer": site.block,
                    "kind": "head" if site.kind == "attn.heads" else "neuron",
                    **{f"{t}_share": float(shares[t][site][i]) for t in TASKS},
                    "writes": said.get((site, i)),
                }
                for site, i in candidate.units
            ]
    return rows


def chosen_candidates(stage: Stage) -> dict[str, dict[str, Candidate]]:
    """Return level -> task -> the set chosen, as the stage `sets` left them."""
    return {
        level: {
            task: Candidate(level, task, c["method"], c["heads"], c["neurons"], Units(c["units"]))
            for task, c in by_task.items()
        }
        for level, by_task in stage.value("chosen").items()
    }


def main_sets(stage: Stage) -> dict[str, Candidate]:
    """Return the sets the headline rests on: of heads and neurons, or of heads where there are no neurons."""
    found = chosen_candidates(stage)
    return found.get(MAIN, found[LEVELS[0]])


def _units(by_task: Mapping[str, Candidate]) -> dict[str, Units]:
    return {task: candidate.units for task, candidate in by_task.items()}


def nulls(subject: Subject, chosen: Stage, told: Told) -> StageOutput:
    """The dissociation index of matched random pairs of sets, on the prompts that the verdicts rest on."""
    testing, rows, drops = subject.config.testing, [], []
    norms, cases = subject.norms, subject.tasks("unseen")
    found = chosen_candidates(chosen)
    for k, (level, by_task) in enumerate(found.items()):
        n = testing.null_sets if level == MAIN or len(found) == 1 else testing.level_nulls
        rng = generator(subject.config.seed, "matched random", level)
        pairs = random_twins(_units(by_task), subject.space, norms, n, rng)
        lost = pair_drops(
            subject.model,
            pairs,
            cases,
            subject.reference,
            **subject.engine,
            told=lambda x, k=k: told((k + x) / len(found)),
        )
        rows += [{"level": level, **row} for row in _null_rows(lost)]
        drops += [
            {
                "level": level,
                "set": name,
                "task": task,
                "drop": float(v.mean()),
                "low": float(np.quantile(v, 0.025)),
                "high": float(np.quantile(v, 0.975)),
                "sets": n,
            }
            for (name, task), v in lost.items()
        ]
    return StageOutput(tables={"matched_random": rows, "matched_drops": drops})


def _null_rows(lost: Mapping[tuple[str, str], np.ndarray]) -> list[dict]:
    """One row per pair of sets: its index and the side of each set."""
    by_set = sides(lost)
    columns = {"index": sum(by_set.values()), **{f"{task}_side": v for task, v in by_set.items()}}
    n = len(columns["index"])
    return [{"draw": i, **{name: float(v[i]) for name, v in columns.items()}} for i in range(n)]


def test(subject: Subject, chosen: Stage, nulls: Stage, told: Told) -> StageOutput:
    """The double dissociation of each level on test prompts, every drop behind it, and the cost on neutral text."""
    testing, rows, found = subject.config.testing, [], chosen_candidates(chosen)
    parts = [p for p in ("unseen", "test", "transfer") if subject.has(p)]
    steps = [(level, part) for level in found for part in parts]
    for k, (level, part) in enumerate(steps):
        draws = np.array([r["index"] for r in nulls.rows("matched_random") if r["level"] == level])
        results = dissociations(
            subject.model,
            _units(found[level]),
            subject.tasks(part),
            subject.reference,
            draws if part == "unseen" else None,
            **subject.engine,
            seed=derive(subject.config.seed, "dissociation", level, part),
            draws=testing.draws,
        )
        prompts = sum(len(cases) for cases in subject.tasks(part).values())
        named = {"level": level, "part": part, "prompts": prompts}
        rows += [{**named, "outcome": outcome, **_flat_result(result)} for outcome, result in results.items()]
        told(0.5 * (k + 1) / len(steps))
    main = _units(main_sets(chosen))
    cells = {str(c): subject.cases("unseen", c) for c in subject.cells("unseen")}
    drops = drop_rows(
        subject.model,
        main,
        cases=cells,
        reference=subject.reference,
        **subject.engine,
        seed=derive(subject.config.seed, "ablation"),
        draws=testing.draws,
        told=lambda x: told(0.5 + 0.5 * x),
    )
    twin = random_twins(
        main,
        subject.space,
        subject.norms,
        1,
        generator(subject.config.seed, "neutral"),
    )[0]
    named = {**main, **{f"random twin of {t}": u for t, u in twin.items()}}
    kl = neutral_kl(subject.model, fillers()[:64], named, subject.reference)
    return StageOutput(tables={"dissociation": rows, "drops": drops, "neutral": kl})


def _flat_result(result: Dissociation) -> dict:
    """One row: every interval as three columns, the number of clusters once."""
    row: dict[str, object] = {
        "clusters": result.index.n,
        "both": result.both,
        "p": result.p,
        "null_sets": result.null_sets,
    }
    if result.null is not None:
        row |= {"null_median": result.null[0], "null_95": result.null[1]}
    for name in ("index", "r_own", "q_other", "q_own", "r_other", "r_side", "q_side"):
        interval: Interval = getattr(result, name)
        row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def growth(subject: Subject, scored: Stage, chosen: Stage, told: Told) -> StageOutput:
    """How the drops grow with the number of neurons taken out, with a band of random sets."""
    found = chosen_candidates(chosen)
    neurons = {s: n for s, n in subject.space.items() if s.kind == "mlp.neurons"}
    if "neurons" not in found:
        return StageOutput(values={"growth_left_out": "the model has no neurons outside experts"})
    claims = {}
    for task, candidate in found["neurons"].items():
        array = scored.array("unit_scores")[:, METHODS.index(candidate.method)]
        by_site = unflat(task_claims(array)[task], subject.space)
        claims[task] = {site: by_site[site] for site in neurons}
    total = sum(neurons.values())
    sizes = sorted({max(1, round(total * x)) for x in (0.0005, 0.003, 0.01, 0.03, 0.1)})
    norms, rng = subject.norms, generator(subject.config.seed, "growth")
    rows = growth_rows(
        subject.model,
        claims,
        sizes,
        lambda pair: random_twins(pair, neurons, norms, 10, rng),
        subject.tasks("unseen"),
        subject.reference,
        **subject.engine,
        seed=subject.config.seed,
        draws=subject.config.testing.draws,
        told=told,
    )
    return StageOutput(tables={"growth": rows}, values={"growth_left_out": None})


def shuffled(subject: Subject, scored: Stage, chosen: Stage, told: Told) -> StageOutput:
    """Sets of the same size, chosen the same way from prompts with shuffled task labels, and tested the same way."""
    pairs = []
    for mixed in scored.array("shuffled_scores"):
        sets = {}
        for task, c in main_sets(chosen).items():
            claim = task_claims(mixed[:, METHODS.index(c.method)])[task]
            sets[task] = top_units(unflat(claim, subject.space), c.heads, c.neurons)
        pairs.append(sets)
    lost = pair_drops(subject.model, pairs, subject.tasks("unseen"), subject.reference, **subject.engine, told=told)
    return StageOutput(tables={"shuffled_sets": _null_rows(lost)})
