"""Steps that correlate: who responds to the task, and the authors' statistics. Each returns a record's stage."""

from microtome.records import StageOutput, Told
from microtome.studies.recall.authors import authors_rows
from microtome.studies.recall.prompts import TASKS
from microtome.studies.recall.selectivity import (
    authors_flags,
    flag_rows,
    gate_values,
    one_skeleton_each,
    statistics,
)
from microtome.studies.recall.subject import Subject

__all__ = ["authors", "selective"]


def selective(subject: Subject, told: Told) -> StageOutput:
    """Which neurons respond to the task, in the trained network, an untrained one and under shuffled labels."""
    testing, seed = subject.config.testing, subject.config.seed
    if why := _left_out(subject):
        return StageOutput(values={"selectivity_left_out": why})
    parts = {
        part: one_skeleton_each({c: subject.cases(part, c) for c in TASKS.values()})
        for part in ("selectivity", "replication")
    }
    common = {"size": subject.config.batch, "seed": seed, "draws": testing.permutations, "alpha": testing.alpha}
    found, held_out, authors = {}, {}, {}
    networks = {"trained": subject.model, "untrained": subject.untrained}
    for k, (name, model) in enumerate(networks.items()):
        found[name] = statistics(model, parts["selectivity"], **common)
        held_out[name] = statistics(model, parts["replication"], **common)
        both = list(parts["selectivity"].values())
        gates = gate_values(model, both, subject.config.batch)
        authors[name] = (authors_flags(gates, len(both[0])), len(gates))
        told((k + 1) / 3)
    found["shuffled labels"] = statistics(subject.model, parts["selectivity"], **common, shuffled=True)
    return StageOutput(tables={"flagged": flag_rows(found, held_out, authors)}, values={"selectivity_left_out": None})


def _left_out(subject: Subject) -> str:
    """Return why there is nothing to correlate, or an empty string."""
    if not any(site.kind == "mlp.neurons" for site in subject.space):
        return "the model has no neurons outside experts"
    if not (subject.has("selectivity") and subject.has("replication")):
        return f"too few prompts with '{subject.config.prompts.transfer}' passages are answered in both tasks"
    return ""


def authors(subject: Subject) -> StageOutput:
    """The authors' own statistics on the authors' prompts, beside an untrained network."""
    rows = authors_rows(
        {"trained": subject.model, "untrained": subject.untrained},
        size=subject.config.batch,
        whole=subject.config.paper_compat,
    )
    return StageOutput(tables={"authors": rows})
