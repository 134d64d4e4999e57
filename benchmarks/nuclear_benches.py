"""The benchmarks of the nuclear study: several seeds of an embedding regressor in one fit, and the fit of a helix.

Each takes an adapter (a module peers/*_nuclear.py), the shared work and the number of rounds. The plain loop stands in
our environment, so our adapter offers it too; both start from the same weights and see rows in the same order.
"""

import statistics
from dataclasses import replace
from types import ModuleType

import torch

from benchmarks.agreement import agreement
from benchmarks.candidates import Candidate
from benchmarks.clock import alternate
from benchmarks.environments import OURS
from benchmarks.measured import Measured, summary
from benchmarks.peers.plain_nuclear import EPOCHS, made_helix
from benchmarks.peers.plain_nuclear import helix as plain_helix
from benchmarks.workload import Work

__all__ = ["SEEDS", "helix", "regressors"]

SEEDS = 8
ROWS, STARTS = 170, 24  # of a helix


def regressors(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """Epochs of the quick preset's network over 2 200 rows: one seed, and eight together.

    Unit: a plain PyTorch loop of one seed. Compared are the training losses of every epoch and seed.
    """
    unit, *found = adapter.regressors(work, SEEDS)
    truth = next(c for c in found if not c.name.startswith(OURS)).run()["losses"]
    wrong = [agreement(c.run(), {"losses": truth[: _seeds(c.metric)]}, c.rounding) for c in found]
    runs = {str(k): c.run for k, c in enumerate((unit, *found))}
    times = alternate(runs, rounds, work.device)
    reference = times["0"]
    noted = [replace(c, note=_speed(c.metric, times[str(k + 1)])) for k, c in enumerate(found)]
    entries = [(replace(unit, metric=m), reference, 0.0) for m in dict.fromkeys(c.metric for c in found)]
    entries += [(c, times[str(k + 1)], wrong[k]) for k, c in enumerate(noted)]
    return [summary("regressors", c.metric, c.name, own, reference, difference=w, note=c.note) for c, own, w in entries]


def helix(adapter: ModuleType, work: Work, rounds: int) -> list[Measured]:
    """A helix that grows through 170 rows of three components: 19 parameters.

    Unit: SciPy's least squares over all parameters, from 24 periods. Compared are the fitted curves.
    """
    n, x = made_helix(ROWS)
    unit = Candidate(f"SciPy from {STARTS} periods", "fit", lambda: plain_helix(n, x, STARTS))
    ours = adapter.helix(n, x)
    wrong = agreement(ours.run(), {"curve": torch.from_numpy(unit.run())}, 1e-4)
    times = alternate({"unit": unit.run, "ours": ours.run}, rounds, work.device)
    entries = ((unit, "unit", 0.0), (ours, "ours", wrong))
    return [summary("helix", "fit", c.name, times[k], times["unit"], difference=w) for c, k, w in entries]


def _seeds(metric: str) -> int:
    return 1 if metric == "one seed" else SEEDS


def _speed(metric: str, seconds: list[float]) -> str:
    return f"{EPOCHS * _seeds(metric) / statistics.median(seconds):.1f} epochs of a seed a second"
