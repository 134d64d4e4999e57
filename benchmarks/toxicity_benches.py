"""The benchmarks of the toxicity study: areas of many neurons, factors of a head, generation under an edit of the head.

Each takes an adapter (a module peers/*_toxicity.py), the shared work and the number of rounds. What scikit-learn, torch
and NumPy offer by themselves stands in our environment, so our adapter offers it too, as it does the plain hooks, and
it takes turns with ours in one process. Ours and NumPy's sorts use one thread, torch two: notes tell CPU time as well.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.agreement import Disagreement, agreement
from benchmarks.candidates import Candidate
from benchmarks.clock import alternate
from benchmarks.environments import OURS
from benchmarks.measured import Measured, summary
from benchmarks.peak import peak
from benchmarks.peers import plain_toxicity as plain
from benchmarks.workload import Work

__all__ = ["PROJECTED", "auroc", "edit_overhead", "head_basis", "projector_error"]

WHOLE = 835_584  # gate, up and down projections of LLaMA-2-7B
PROJECTED = f"areas of {WHOLE:,} neurons, projected"
PROJECTOR = 1e-6  # largest error of a chosen subspace
MIB, PEAKS = 1 << 20, 3


def auroc(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """AUROC of 10 000 neurons over 10 000 texts in memory, one neuron a row, float16 with ties.

    Unit: scikit-learn, a neuron after another, timed on some neurons and scaled; those are compared. `screen` is what
    the study asks for: areas over all texts and within lengths with errors, p, q and bounds, and average precision;
    scikit-learn's part of it is the areas and the precision.
    """
    found, measured = adapter.auroc(plain.screened_texts(work.size)), []
    for metric in dict.fromkeys(c.metric for c in found):
        unit, *others = (c for c in found if c.metric == metric)
        truth = unit.read(unit.run())
        wrong = [agreement(c.read(c.run()), truth) for c in others]
        measured += _timed("auroc", unit, others, wrong, _fewer(rounds), work.device)
        measured += _held("auroc", unit, others, wrong, min(rounds, PEAKS), work.device)
    return measured + [_projected(m, work.size.screened) for m in measured if m.metric == "areas"]


def head_basis(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Right singular vectors of a head W [32 000, 1 024] in float32, of condition 1e3.

    Unit: torch.linalg.svd of it. Compared is the subspace of 256 of the vectors; errors of the peers are told and not
    refused: in float32 an SVD does not reach further.
    """
    weight = plain.head_weight(work)
    chosen, truth = plain.quarter(weight.shape[1]), plain.right_vectors(weight)
    unit, *others = adapter.head_basis(weight)
    unit_error, *wrong = (_subspace_error(c, chosen, truth) for c in (unit, *others))
    unit = replace(unit, note=f"{unit.note}, projector error {unit_error:.0e}")
    measured = _timed("head_basis", unit, others, wrong, _fewer(rounds), work.device)
    return measured + _held("head_basis", unit, others, wrong, min(rounds, PEAKS), work.device)


def edit_overhead(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Greedy generation with a quarter of the head's singular vectors projected out, and with an edit that is none.

    Unit: the same model's own `generate` without a hook. Compared are the tokens.
    """
    work = plain.speaking(work)
    axes = plain.head_axes(work)
    said = {"identity edit": plain.spoken(work), "eigenshift": plain.spoken(work, axes)}
    if torch.equal(*said.values()):
        raise Disagreement("the edit changes no token; a check against it shows nothing")
    found = adapter.edit_overhead(work, axes)
    wrong = [agreement({"tokens": c.run()}, {"tokens": said[c.metric]}) for c in found]
    unit = Candidate("the same model's own generate", "", lambda: plain.spoken(work))
    return _timed("edit_overhead", unit, found, wrong, 2 * rounds, work.device)


def projector_error(axes: Tensor, truth: Tensor) -> float:
    """Return the norm of the difference of the projectors on two subspaces of one dimension: the sine of their angle.

    Args:
        axes, truth: orthonormal columns, [d, k].
    """
    axes, truth = axes.double(), truth.double()
    return float(torch.linalg.matrix_norm(axes - truth @ (truth.T @ axes), 2))


# -- the parts


def _fewer(rounds: int) -> int:
    return (rounds + 1) // 2


def _subspace_error(candidate: Candidate, chosen: Tensor, truth: Tensor) -> float:
    """Return the error of the chosen subspace.

    Raises:
        Disagreement: it is over what the candidate may have.
    """
    axes = candidate.read(candidate.run())["axes"]
    error = projector_error(axes[:, chosen], truth[:, chosen])
    if not error <= PROJECTOR + candidate.rounding:
        raise Disagreement(f"{candidate.name}: {len(chosen)} vectors span a subspace that is off by {error:.1e}")
    return error


def _timed(
    bench: str, unit: Candidate, found: Sequence[Candidate], wrong: Sequence[float], rounds: int, device: str
) -> list[Measured]:
    """Time in turn with the unit, which is an entry of every metric of ours too; notes tell the CPU time."""
    every = (unit, *found)
    spent: list[list[float]] = [[] for _ in every]
    runs = {str(i): _counting(c.run, used) for i, (c, used) in enumerate(zip(every, spent, strict=True))}
    times = alternate(runs, rounds, device)
    walls = [[t / c.share for t in times[str(i)]] for i, c in enumerate(every)]
    cpu = [statistics.median(used[1:]) / c.share for c, used in zip(every, spent, strict=True)]
    noted = [replace(c, note=_joined(c.note, f"{used:.3g} CPU s")) for c, used in zip(every, cpu, strict=True)]
    return _entries(bench, noted, walls, wrong)


def _held(
    bench: str, unit: Candidate, found: Sequence[Candidate], wrong: Sequence[float], rounds: int, device: str
) -> list[Measured]:
    """Measure by how much each lifts the process at most; all have run before. Less than 1 MiB is noise, told as 1."""
    every = [replace(c, metric=f"{c.metric}, memory") for c in (unit, *found)]
    peaks = [[max(1.0, peak(c.run, device) / MIB) for _ in range(rounds)] for c in every]
    return _entries(bench, every, peaks, wrong, "MiB")


def _entries(
    bench: str, every: Sequence[Candidate], numbers: Sequence[list[float]], wrong: Sequence[float], measure: str = "s"
) -> list[Measured]:
    (unit, *found), reference = every, numbers[0]
    metrics = dict.fromkeys(c.metric for c in found if c.name.startswith(OURS))
    entries = [(replace(unit, metric=metric), reference, 0.0) for metric in metrics]
    entries += zip(found, numbers[1:], wrong, strict=True)
    return [
        summary(bench, c.metric, c.name, own, reference, difference=w, note=c.note, measure=measure)
        for c, own, w in entries
    ]


def _counting(run: Callable[[], object], used: list[float]) -> Callable[[], object]:
    """Return the call, which writes down the CPU seconds of all its threads."""

    def counted() -> object:
        start = time.process_time()
        result = run()
        used.append(time.process_time() - start)
        return result

    return counted


def _projected(m: Measured, neurons: int) -> Measured:
    """Return what the same would take for the neurons of a large model: a product, not a measurement."""
    times = WHOLE / neurons
    note = _joined(m.note, f"projected: {neurons:,} neurons times {times:.4g}")
    return replace(m, metric=PROJECTED, seconds=m.seconds * times, reference=m.reference * times, note=note)


def _joined(*notes: str) -> str:
    return "; ".join(n for n in notes if n)
