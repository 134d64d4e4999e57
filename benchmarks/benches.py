"""The benchmarks: what a tool's numbers are compared with, and in which unit its time is given.

Each takes an adapter (a module of peers/), the shared work and the number of rounds, and returns measurements.
"""

from collections.abc import Callable, Mapping
from types import ModuleType

from torch import Tensor

from benchmarks.agreement import agreement
from benchmarks.candidates import Candidate
from benchmarks.clock import alternate
from benchmarks.das_benches import das_evaluation, das_memory, das_step, das_together
from benchmarks.grids import measure_grids
from benchmarks.measured import Measured, summary
from benchmarks.multilingual_benches import corpus_memory, importance, minhash, pretraining
from benchmarks.nuclear_benches import helix, regressors
from benchmarks.peers import plain
from benchmarks.toxicity_benches import auroc, edit_overhead, head_basis
from benchmarks.workload import Work

__all__ = [
    "attribution",
    "auroc",
    "capture",
    "corpus_memory",
    "das_evaluation",
    "das_memory",
    "das_step",
    "das_together",
    "edit_overhead",
    "head_basis",
    "head_sweep",
    "helix",
    "importance",
    "minhash",
    "pretraining",
    "regressors",
    "residual_sweep",
]

MORE = 2  # rounds of the attributions are short, so there are more of them


def capture(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """All neurons and residuals over 64 x 128 tokens, kept in memory or streamed to disk, with the logits or without.

    Unit: the bare HF forward with logits over the same tokens. 1.00 means that capture is free, less that work was
    left out.
    """
    truth = plain.joined(plain.keep(work, work.model))
    found = adapter.capture(work)
    return _measure("capture", found, lambda: plain.bare(work), truth, rounds, work.device)


def residual_sweep(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """The residual entering each of 8 layers at each of 16 positions (128 cells), 16 prompt pairs.

    Unit: the plain loop of one full forward a cell. Effects are logit differences at the last position.
    """
    (reference,) = plain.residual_sweep(work)
    return measure_grids("residual_sweep", adapter.residual_sweep(work), reference, rounds=rounds, device=work.device)


def head_sweep(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """z of each of 8 heads of each of 8 layers at all positions (64 cells), 16 prompt pairs; unit as above."""
    (reference,) = plain.head_sweep(work)
    return measure_grids("head_sweep", adapter.head_sweep(work), reference, rounds=rounds, device=work.device)


def attribution(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """All 12 288 neurons, 16 prompt pairs: at each of 16 positions, summed over positions, and EAP-IG.

    Unit: one bare HF forward over the 16 corrupt prompts.
    """
    found, measured = adapter.attribution(work), []
    for reference in plain.attribution(work):
        here = [c for c in found if c.metric == reference.metric]
        if here:
            truth, unit = reference.run(), lambda: plain.bare_pairs(work)
            measured += _measure("attribution", here, unit, truth, MORE * rounds, work.device)
    return measured


def _measure(
    bench: str,
    candidates: list[Candidate],
    unit: Callable[[], object],
    truth: Mapping[str, Tensor],
    rounds: int,
    device: str,
) -> list[Measured]:
    """Check every candidate against `truth`, then time them in turn with the unit; a shared `run` is timed once.

    Raises:
        Disagreement: a candidate's numbers are wrong; nothing is timed then.
    """
    wrong = [agreement(c.read(c.run()), truth, c.rounding) for c in candidates]
    times = alternate({"unit": unit} | {str(id(c.run)): c.run for c in candidates}, rounds, device)
    return [
        summary(bench, c.metric, c.name, times[str(id(c.run))], times["unit"], difference=w, note=c.note)
        for c, w in zip(candidates, wrong, strict=True)
    ]
