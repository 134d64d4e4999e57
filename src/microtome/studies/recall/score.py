"""Steps that score every unit and edge and hold the estimates against exact patching; each returns a stage."""

import numpy as np

from microtome.core.errors import MeasureError
from microtome.core.seeds import generator
from microtome.records import Missing, Stage, StageOutput, Told
from microtome.studies.recall.prompts import TASKS
from microtome.studies.recall.scoring import (
    METHODS,
    agreement,
    edge_rows,
    exact_scores,
    flat,
    sample_units,
    shuffled_scores,
    unit_scores,
)
from microtome.studies.recall.subject import Subject

__all__ = ["checks", "edges", "scores"]


def scores(subject: Subject, told: Told) -> StageOutput:
    """Every unit's share in both tasks by three estimates, and the same with task labels shuffled among prompts."""
    found, config = [], subject.config
    for k, (task, cases) in enumerate(subject.tasks("discovery").items()):
        rng = generator(config.seed, "shuffled labels", task)
        halves = np.arange(len(cases)) < len(cases) // 2
        subsets = np.stack([rng.permutation(halves) for _ in range(config.testing.shuffles)])
        found.append(
            unit_scores(
                subject.model,
                cases,
                subject.space,
                subject.reference,
                subsets,
                steps=config.selection.ig_steps,
                size=config.batch,
                told=lambda x, k=k: told((k + x) / len(TASKS)),
            )
        )
    arrays = {"unit_scores": np.stack([f.shares for f in found]), "shuffled_scores": shuffled_scores(*found)}
    return StageOutput(arrays={name: a.astype(np.float32) for name, a in arrays.items()})


def checks(subject: Subject, scored: Stage, told: Told) -> StageOutput:
    """Every head and a sample of neurons patched exactly: do the estimates rank units rightly?"""
    rows, points, space = [], [], subject.space
    found, rng = scored.array("unit_scores"), generator(subject.config.seed, "checked")
    every = sum(space.values())
    wanted = {"heads": sample_units(found[:, 0], space, "attn.heads", every, rng)}
    if any(s.kind == "mlp.neurons" for s in space):
        n = subject.config.selection.checked_neurons
        wanted["neurons"] = sample_units(found.reshape(-1, every), space, "mlp.neurons", n, rng)
    steps = [(task, kind) for task in TASKS for kind in wanted]
    for k, (task, kind) in enumerate(steps):
        units, cases = wanted[kind], subject.tasks("discovery")[task]
        exact = exact_scores(
            subject.model,
            cases,
            units,
            subject.reference,
            **subject.engine,
            told=lambda x, k=k: told((k + x) / len(steps)),
        )
        held = flat({s: np.isin(np.arange(n), units.at(s)) for s, n in space.items()}, space)
        estimates = found[list(TASKS).index(task)][:, held]
        rows += [{"task": task, "units": kind, **row} for row in agreement(estimates, exact, METHODS)]
        points += [
            {
                "task": task,
                "units": kind,
                "unit": f"{s}[{i}]",
                "exact": float(exact["counterfactual"][j]),
                "exact_mean": float(exact["mean"][j]),
                "atp": float(estimates[0, j]),
                "eap_ig": float(estimates[1, j]),
                "atp_mean": float(estimates[2, j]),
            }
            for j, (s, i) in enumerate(units)
        ]
    for row in rows:
        if row["spearman"] is None:
            row["spearman"] = row["pearson"] = Missing("every estimate or every exact effect is the same")
    return StageOutput(tables={"agreement": rows, "checked_units": points})


def edges(subject: Subject, told: Told) -> StageOutput:
    """Which parts hand what to which: edge attribution beside path patching, where the model has such edges."""
    selection = subject.config.selection
    rows: list[dict] = []
    values: dict[str, object] = {"edges_left_out": None}
    for k, (task, cases) in enumerate(subject.tasks("discovery").items()):
        if not selection.checked_edges:
            values["edges_left_out"] = "selection.checked_edges is 0"
            break
        try:
            rng = generator(subject.config.seed, "edges", task)
            found = edge_rows(
                subject.model,
                cases,
                steps=selection.ig_steps,
                checked=selection.checked_edges,
                size=subject.config.batch,
                rng=rng,
            )
        except MeasureError as error:  # the model normalises what its blocks write: it has no such edges
            values["edges_left_out"] = str(error)
            break
        rows += [{"task": task, **row} for row in found]
        told((k + 1) / len(TASKS))
    return StageOutput(tables={"edges": rows} if rows else {}, values=values)
