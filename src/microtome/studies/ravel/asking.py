"""Steps that ask: what the table holds, what the model knows of it, and which pairs that leaves. Each a stage."""

from collections import Counter
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.ravel import (
    SIDES,
    Instance,
    balance,
    build_instance,
    entailment,
    keep_best,
    prompts,
)
from microtome.engine.completions import complete
from microtome.models.digest import weights_digest
from microtome.records import Missing, Stage, StageOutput, Told
from microtome.studies.ravel.subject import Subject

__all__ = ["ask", "describe", "instance_of", "pairs", "table"]


def describe(subject: Subject) -> StageOutput:
    """What is studied: sizes, type, a digest of the weights."""
    model = subject.model
    return StageOutput(
        values={
            "model_digest": weights_digest(model.module),
            "blocks": len(model.anatomy.blocks),
            "width": model.anatomy.d_model,
            "parameters": sum(p.numel() for p in model.module.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        }
    )


def table(subject: Subject) -> StageOutput:
    """The table: what it holds, what is wrong with it, and which attribute tells which."""
    found = subject.table
    told = entailment(found, seed=subject.config.seed)
    pairs = [
        {
            "swapped": e.a,
            "kept": e.b,
            "ratio": Missing("the attribute has one value") if e.ratio is None else e.ratio,
            "null": Missing("the attribute has one value") if e.null is None else e.null,
            "verdict": e.verdict,
            "differ": e.differ,
        }
        for e in told
    ]
    attributes = [
        {
            "attribute": b.attribute,
            "values": b.distinct,
            "majority": b.majority,
            "majority_share": b.share,
            "collision": told.collision[b.attribute],
            "templates": len([t for t in found.templates if t.attribute == b.attribute]),
        }
        for b in balance(found)
    ]
    counts = subject.defects.counts
    return StageOutput(
        tables={
            "entailment": pairs,
            "attributes": attributes,
            "defects": [{"defect": kind, "count": n} for kind, n in counts.items()] or [{"defect": "none", "count": 0}],
        },
        values={
            "entity_type": found.entity_type,
            "entities": len(found.entities),
            "entities_in_data": subject.entities,
            "attributes_asked": list(found.asked),
        },
    )


def ask(subject: Subject, cache: Path, told: Told) -> StageOutput:
    """Every template about every entity, what the model said, and why each was kept or not.

    Raises:
        DataError: fewer prompts are known than the study needs.
    """
    asked = list(prompts(subject.table))
    said = complete(
        subject.model,
        [p.text for p in asked],
        max_new_tokens=subject.config.asking.new_tokens,
        cache=cache,
        batch=subject.config.batch,
        progress=lambda done, total, _line: told(done / total),
    )
    rows = [
        {"template": p.template, "entity": p.entity, "completion": text} for p, text in zip(asked, said, strict=True)
    ]
    instance = _built(subject, rows)
    kept = {(v.template, v.entity): v for v in instance.verdicts}
    for row in rows:
        verdict = kept[row["template"], row["entity"]]
        row |= {"attribute": verdict.attribute, "kept": verdict.kept, "reason": verdict.reason,
                "said": verdict.said, "gold": verdict.gold}  # fmt: skip
    known = sum(r["kept"] for r in rows)
    if known < subject.config.asking.least:
        reasons = ", ".join(f"{n} {r}" for r, n in Counter(r["reason"] for r in rows).most_common())
        raise DataError(
            f"'{subject.config.model}' answers {known} of {len(rows)} prompts about '{subject.table.entity_type}' as "
            f"the table says ({reasons}); the study needs {subject.config.asking.least} (asking.least): use a model "
            "that knows these facts."
        )
    return StageOutput(tables={"answers": rows, "filter": _filtered(subject, rows)}, values={"known": known})


def instance_of(subject: Subject, asked: Stage) -> Instance:
    """Return the instance that a committed stage stands for."""
    instance = _built(subject, asked.rows("answers"))
    best = subject.config.asking
    if best.best_entities or best.best_templates:
        most = {"entities": best.best_entities or len(subject.table.entities),
                "templates": best.best_templates or len(subject.table.templates)}  # fmt: skip
        instance = keep_best(instance, **most)
    return instance


def pairs(subject: Subject) -> StageOutput:
    """The pairs of every side: how many of what kind, and what they can tell."""
    rows = []
    for name in SIDES:
        side, power = subject.side(name), subject.drawn(name).power
        for attribute in dict.fromkeys(side.asked):
            own = [p for p in side.pairs if p.groups["cell"] == attribute]
            drawings = [d for d in power.drawings if d.attribute == attribute]
            candidates, same = (sum(getattr(d, n) for d in drawings) for n in ("candidates", "coincidences"))
            rows.append(
                {
                    "side": name,
                    "attribute": attribute,
                    "pairs": len(own),
                    "entities": len({p.groups["entity"] for p in own}),
                    "templates": len({p.groups["template"] for p in own}),
                    "majority": max(Counter(p.cf_label for p in own).values()) / len(own),
                    "coincidences": same / candidates if candidates else 0.0,
                }
            )
    merged = sum(subject.side(name).merged for name in SIDES)
    if len(subject.targets) < 2:
        raise DataError(
            f"Two attributes or more that every side asks for are needed, found {len(subject.targets)} "
            f"({', '.join(subject.targets) or 'none'}) of {', '.join(subject.table.asked)}; use a model that knows "
            "more of them, or ask more prompts."
        )
    return StageOutput(tables={"pairs": rows}, values={"pairs_merged": merged, "targets": list(subject.targets)})


def _built(subject: Subject, rows: list[dict]) -> Instance:
    return build_instance(subject.table, {(r["template"], r["entity"]): r["completion"] for r in rows})


def _filtered(subject: Subject, rows: list[dict]) -> list[dict]:
    """Count by attribute and split of the template: asked, kept, and what the others failed by."""
    split = {t.text: t.split for t in subject.table.templates}
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["attribute"], split[row["template"]]), []).append(row)
    return [
        {
            "attribute": attribute,
            "wordings": name,
            "asked": len(own),
            "known": sum(r["kept"] for r in own),
            "share": sum(r["kept"] for r in own) / len(own),
            "copied": sum(r["reason"] == "exemplar" for r in own),
        }
        for (attribute, name), own in groups.items()
    ]
