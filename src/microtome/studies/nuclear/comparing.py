"""Two steps beside the main line: several tasks against one under two ways of dividing, and the modular warm-up.

Separation and decay energies are differences of binding energies. If every number is divided on its own, a network can
add the held-out ones up from training ones; if nuclei are, it can not. So the claim that several tasks help each other
is tested under both, on the same table, with as many passes over the numbers in every cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from microtome.core.errors import DataError
from microtome.core.seeds import derive, generator
from microtome.data.nuclear import Split, TaskTable, leaks, split, standardise, tasks
from microtome.measures.fourier_planes import fourier_planes
from microtome.records import StageOutput, Told
from microtome.studies.nuclear.fitting import seeds_of
from microtome.studies.nuclear.subject import Subject
from microtome.training.modular_addition import fit_modular_addition
from microtome.training.regression import Schedule, fit_seeds, numbers_of

__all__ = ["modular", "multitask"]

SPLITS = {"nucleus": "whole nuclei", "task": "single numbers (leaky)"}


def multitask(subject: Subject, told: Told) -> StageOutput:
    """Held-out error of the binding energy, learnt alone and with other tasks, under both ways of dividing."""
    names = ["binding", *_there(subject, subject.config.multitask.tasks)]
    rows, errors, cells = [], {}, [(kind, several) for kind in SPLITS for several in (False, True)]
    for done, (kind, several) in enumerate(cells):
        found = _residual(tasks(subject.table, names), subject)
        options = {"share": subject.config.cuts.share, "keep": subject.config.cuts.keep}
        divided = split(found, kind, seed=derive(subject.config.seed, "outer"), **options)
        used = _only_binding(divided) if not several else divided.train
        left = _errors(subject, divided, used, lambda x, done=done: told((done + x) / len(cells)))
        errors[kind, several] = left
        leak = leaks(replace(divided, train=used))
        rows.append(
            {
                "split": SPLITS[kind],
                "tasks": "with others" if several else "alone",
                "trained_numbers": int(used.sum()),
                **_median_rms(left, generator(subject.config.seed, "multitask"), subject.config.reading.draws),
                "seeds": len(left),
                "n": left.shape[1],
                "derivable": leak.derivable.get("binding", 0) / max(leak.held.get("binding", 0), 1),
            }
        )
    gains = [{"split": SPLITS[kind], **_gain(subject, errors[kind, False], errors[kind, True])} for kind in SPLITS]
    return StageOutput(tables={"multitask": rows, "multitask_gain": gains}, values={"multitask_names": names})


def _there(subject: Subject, names: Sequence[str]) -> list[str]:
    """Return the tasks that the table has enough of."""
    found = []
    for name in names:
        try:
            if tasks(subject.table, [name]).present.sum() >= 100:
                found.append(name)
        except DataError:  # the table has none of it
            continue
    return found


def _residual(found: TaskTable, subject: Subject) -> TaskTable:
    """Return the tasks with binding energies as the residual to the formula, so that they are learnt to be useful."""
    values = found.values.copy()
    values[:, 0] -= subject.formulas[subject.residual_of].binding(subject.table.z, subject.table.n)
    return replace(found, values=values)


def _only_binding(divided: Split) -> Bool[np.ndarray, "nucleus task"]:
    return divided.train & (np.arange(divided.train.shape[1]) == 0)


def _errors(
    subject: Subject, divided: Split, used: Bool[np.ndarray, "nucleus task"], told: Told
) -> Float[np.ndarray, "seed held"]:
    """Train on the numbers used; return every seed's error of the held-out binding energies in MeV."""
    config, chosen = subject.config.multitask, subject.config.fitting
    found = divided.tasks
    scaling = standardise(found, divided.train)
    rows = numbers_of(found, used, scaling)
    schedule = Schedule(
        epochs=config.epochs,
        batch=chosen.batch,
        peak=chosen.peak,
        weight_decay=chosen.weight_decay,
        judge_every=max(1, config.epochs // 40),
    )
    shape = replace(subject.shape, tasks=len(found.tasks))
    fitted = fit_seeds(
        shape, rows, None, schedule, seeds=seeds_of(subject, config.seeds),
        progress=lambda done, total, line: told(done / total),
    )  # fmt: skip
    held = divided.held[:, 0]
    predicted = fitted.predict(found.table.z[held], found.table.n[held]) * scaling.std[0] + scaling.mean[0]
    return found.values[held, 0] - predicted


def _median_rms(left: Float[np.ndarray, "seed held"], draw: np.random.Generator, draws: int) -> dict[str, float]:
    rows = draw.integers(0, left.shape[1], (draws * 5, left.shape[1]))
    drawn = np.median(np.sqrt(np.square(left)[:, rows].mean(-1)), axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"rms": float(np.median(np.sqrt(np.square(left).mean(1)))), "low": float(low), "high": float(high)}


def _gain(
    subject: Subject, alone: Float[np.ndarray, "seed held"], others: Float[np.ndarray, "seed held"]
) -> dict[str, float]:
    """By how much the error falls, resampled over the same held-out nuclei."""
    draw = generator(subject.config.seed, "multitask gain")
    rows = draw.integers(0, alone.shape[1], (subject.config.reading.draws * 5, alone.shape[1]))
    each = [np.median(np.sqrt(np.square(x)[:, rows].mean(-1)), axis=0) for x in (alone, others)]
    low, high = np.quantile(each[0] - each[1], [0.025, 0.975])
    value = np.median(np.sqrt(np.square(alone).mean(1))) - np.median(np.sqrt(np.square(others).mean(1)))
    return {"gain": float(value), "low": float(low), "high": float(high), "n": alone.shape[1]}


def modular(subject: Subject, told: Told) -> StageOutput:
    """Addition modulo a prime: held-out accuracy, and the frequencies of the embedding before and after training."""
    config = subject.config.modular
    found = fit_modular_addition(
        config.p, seed=subject.config.seed, steps=config.steps, share=config.share,
        progress=lambda done, total: told(done / total),
    )  # fmt: skip
    rows: list[Mapping] = []
    values: dict[str, object] = {"modular_accuracy": found.accuracy, "modular_held": found.held}
    for name, table in (("untrained", found.before), ("trained", found.after)):
        rng = generator(subject.config.seed, "fourier", name)
        planes = fourier_planes(table, rng=rng, draws=max(99, subject.config.reading.draws))
        values |= {f"modular_found_{name}": list(planes.found), f"modular_chance_{name}": planes.chance}
        rows += [
            {"model": name, "frequency": k + 1, "share": float(share), "p": float(p), "roundness": float(roundness),
             "chance": planes.chance}
            for k, (share, p, roundness) in enumerate(zip(planes.share, planes.p, planes.roundness, strict=True))
        ]  # fmt: skip
        if name == "trained":
            strongest = int(planes.share.argmax()) + 1
            at = planes.plane(strongest)
            values["modular_strongest"] = strongest
            circle = [
                {"number": k, "label": str(k), "x": float(x), "y": float(y), "turn": (k * strongest) % config.p}
                for k, (x, y) in enumerate(at)
            ]
    return StageOutput(tables={"fourier": rows, "modular_circle": circle}, values=values)
