"""The benchmarks of fitting DAS rotations: a step, several at once, answers under a rotation, peak memory.

Each takes an adapter (a module peers/*_das.py), the shared work and the number of rounds; the unit is always the plain
hooks with torch's parametrisation. Fits are long, so there are half as many rounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import torch

from benchmarks.agreement import agreement
from benchmarks.clock import alternate
from benchmarks.das import Fitter, Task
from benchmarks.das_agreement import curves, scores
from benchmarks.measured import Measured, summary
from benchmarks.peak import peak
from benchmarks.peers import plain_das
from benchmarks.workload import POSITIONS, Work

__all__ = ["das_evaluation", "das_memory", "das_step", "das_together"]

PLACES = {"last position": POSITIONS - 1, "mid-prompt": POSITIONS // 2}
ATTRIBUTES, LAYERS = 6, (2, 4, 6)
PAIRS, PROMPTS, SAMPLE = 10_000, 1_000, 256
MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class _Run:
    """Something to time, and how many equal parts its time is divided by."""

    metric: str
    name: str
    run: Callable[[], object]
    parts: float
    difference: float = 0.0
    note: str = ""


def das_step(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """A step of fitting a rotation of rank 128, batch 16, after layer 4 of 8: 8 steps timed, divided by 8.

    Prepared: what does not depend on the rotation is done before the clock starts. One epoch: it is counted, over the
    8 steps of one epoch; plain hooks, and pyvene as documented, have nothing to prepare.
    """
    found, plain = adapter.fitters(work), plain_das.fitters(work)[0]
    wrong = curves(adapter, work, [lambda w, p=p: [plain_das.make_task(w, position=p)] for p in PLACES.values()])
    notes, measured = scores(found, work), []
    for place, position in PLACES.items():
        task, runs = plain_das.make_task(work, position=position), []
        for fitter in found:
            about = (len(task.order), wrong[fitter.name], notes[fitter.name])
            prepared, whole = _ways(fitter, task)
            runs += [_Run(f"{place}, prepared", fitter.name, prepared, *about)]
            runs += [_Run(f"{place}, one epoch", fitter.name, whole, *about)]
        unit = _Run("", plain.name, lambda task=task: plain.fit([task], [None]), len(task.order))
        measured += _timed("das_step", runs, unit, found, rounds, work)
    return measured


def das_together(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Rotations of six attributes over the same prompts, and at three layers, at once: a step of all of them.

    Ours alone: the peers fit one after another, at six times the cost of one (or three). So do the plain hooks; of them
    one attribute is timed, times six.
    """
    (ours,) = (f for f in adapter.fitters(work) if not f.variant)
    plain = plain_das.fitters(work)[0]
    groups = [lambda w, p=p: _attributes(plain_das.make_task(w, position=p)) for p in PLACES.values()]
    difference, measured = curves(adapter, work, [*groups, _layers])[ours.name], []
    for place, group in zip(PLACES, groups, strict=True):
        tasks = group(work)
        parts = len(tasks[0].order) / ATTRIBUTES
        unit = _Run("", plain.name, lambda tasks=tasks: plain.fit(tasks[:1], [None]), parts)
        measured += _timed("das_together", _six(place, ours, tasks, difference), unit, [ours], rounds, work)
    tasks = _layers(work)
    unit = _Run("", plain.name, lambda: plain.fit(tasks, [None] * len(tasks)), len(tasks[0].order))
    return measured + _timed("das_together", _three(ours, tasks, difference), unit, [ours], rounds, work)


def das_evaluation(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """What is said after each of 10 000 bases under one rotation, preparation counted; time of a pair.

    Pairs share 1 000 prompts, as RAVEL's do, each the source of ten in a row. Ours answers all pairs; the plain hooks
    and the peers, whose pairs all cost the same, answer the first 256.
    """
    found, plain = [f for f in adapter.fitters(work) if not f.variant], plain_das.fitters(work)[0]
    task = plain_das.shared_prompts(work, PAIRS, PROMPTS)
    sample, axes = task.first(SAMPLE), task.start
    truth, runs = {"said": plain.said(sample, None, axes).float()}, []
    for fitter in found:
        part = task if fitter.at_once else sample

        def answer(fitter: Fitter = fitter, part: Task = part) -> torch.Tensor:
            return fitter.said(part, fitter.prepare([part])[0], axes)

        difference = agreement({"said": answer()[:SAMPLE].float()}, truth)
        note = f"{len(part.base)} of {PAIRS} pairs timed, the first {SAMPLE} compared"
        runs.append(_Run("a pair", fitter.name, answer, len(part.base), difference, note))
    unit = _Run("", plain.name, lambda: plain.said(sample, None, axes), SAMPLE)
    return _timed("das_evaluation", runs, unit, found, rounds, work)


def das_memory(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """By how much an epoch's fit lifts the process at most, preparation counted."""
    found, plain = [f for f in adapter.fitters(work) if not f.variant], plain_das.fitters(work)[0]
    tasks = [plain_das.make_task(work)]
    wrong = curves(adapter, work, [lambda w: [plain_das.make_task(w)]])
    runs = [lambda f=f: f.prepared_fit(tasks) for f in (plain, *found)]
    for run in runs:
        run()
    reference, *peaks = [[peak(run, work.device) / MIB for _ in range(_fewer(rounds))] for run in runs]
    measured = [
        summary("das_memory", "one epoch", f.name, mib, reference, difference=wrong[f.name], measure="MiB")
        for f, mib in zip(found, peaks, strict=True)
    ]
    return measured + _plain("das_memory", measured, plain.name, reference, found, "MiB")


# -- the parts


def _fewer(rounds: int) -> int:
    return (rounds + 1) // 2


def _attributes(task: Task) -> list[Task]:
    """Return the task with six first rotations, which is what tells the attributes' fits apart."""
    return [replace(task, start=task.start.roll(k, 0)) for k in range(ATTRIBUTES)]


def _layers(work: Work) -> list[Task]:
    return [replace(plain_das.make_task(work), layer=layer) for layer in LAYERS]


def _ways(fitter: Fitter, task: Task) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the fit after preparation, and with it; the same call where there is nothing to prepare."""
    items = fitter.prepare([task])

    def prepared() -> object:
        return fitter.fit([task], items)

    return prepared, prepared if items == [None] else lambda: fitter.prepared_fit([task])


def _six(place: str, fitter: Fitter, tasks: list[Task], difference: float) -> list[_Run]:
    """Return what to time of the attributes."""
    items, about = fitter.prepare(tasks), (len(tasks[0].order), difference)

    def apart() -> list:
        return [fitter.fit([task], [item]) for task, item in zip(tasks, items, strict=True)]

    return [
        _Run(f"{place}, six, prepared", fitter.name, lambda: fitter.fit(tasks, items), *about),
        _Run(f"{place}, six, prepared", "the same one after another", apart, *about),
        _Run(f"{place}, six, one epoch", fitter.name, lambda: fitter.prepared_fit(tasks), *about),
    ]


def _three(fitter: Fitter, tasks: list[Task], difference: float) -> list[_Run]:
    """Return what to time of the layers."""
    metric, about = "three layers, one epoch", (len(tasks[0].order), difference)
    return [
        _Run(metric, fitter.name, lambda: fitter.prepared_fit(tasks), *about),
        _Run(metric, "the same, each layer by itself", lambda: [fitter.prepared_fit([t]) for t in tasks], *about),
    ]


def _timed(
    bench: str, runs: list[_Run], unit: _Run, found: Sequence[Fitter], rounds: int, work: Work
) -> list[Measured]:
    """Time in turn with the unit; a shared `run` is timed once."""
    times = alternate({"unit": unit.run} | {str(id(r.run)): r.run for r in runs}, _fewer(rounds), work.device)
    reference = [t / unit.parts for t in times["unit"]]
    measured = []
    for r in runs:
        own = [t / r.parts for t in times[str(id(r.run))]]
        measured.append(summary(bench, r.metric, r.name, own, reference, difference=r.difference, note=r.note))
    return measured + _plain(bench, measured, unit.name, reference, found)


def _plain(
    bench: str, measured: list[Measured], name: str, reference: list[float], found: Sequence[Fitter], measure: str = "s"
) -> list[Measured]:
    """Return the unit as an entry of every metric, once: in the process that runs our own tool."""
    if not any(f.at_once for f in found):
        return []
    metrics = dict.fromkeys(m.metric for m in measured)
    return [summary(bench, metric, name, reference, reference, measure=measure) for metric in metrics]
