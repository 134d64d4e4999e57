"""What the two patching benchmarks share: check a grid, time it whole or by one row, divide by the plain loop.

The plain loop and the peers run one full forward a cell, so every row of their grid costs the same: the middle row is
timed, multiplied by the number of rows, and the clean run is added once. The plain reference is treated in the same
way in the same rounds. A tool that does the whole grid at once is timed whole, against the plain loop timed whole.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.agreement import agreement
from benchmarks.candidates import Candidate, Grid
from benchmarks.clock import Times, alternate
from benchmarks.measured import Measured, summary
from benchmarks.workload import BLOCKS

__all__ = ["measure_grids"]

ALL = range(BLOCKS)
TIMED = BLOCKS // 2
CHECKED = (0, TIMED, BLOCKS - 1)
SCALED = f"row {TIMED} of {BLOCKS} timed and scaled, clean run counted once; rows {CHECKED} compared"
WHOLE = "whole grid timed and compared"
METRIC = "grid"


def measure_grids(
    bench: str, entries: list[Grid | Candidate], plain: Grid, *, rounds: int, device: str
) -> list[Measured]:
    """Return the measurements of the grids.

    Raises:
        Disagreement: an entry's effects are not the plain loop's.
    """
    by_row = [e for e in entries if isinstance(e, Grid)]
    at_once = [e for e in entries if isinstance(e, Candidate)]
    measured = _by_row(bench, by_row, plain, rounds, device) if by_row else []
    return measured + (_at_once(bench, at_once, plain, rounds, device) if at_once else [])


def _rows(grid: Grid, layers: range | tuple[int, ...]) -> Tensor:
    clean = grid.prepare()
    return torch.stack([grid.row(clean, layer) for layer in layers])


def _by_row(bench: str, grids: list[Grid], plain: Grid, rounds: int, device: str) -> list[Measured]:
    """Compare some rows; time the clean run and one row of each grid, in turn with the plain loop's."""
    truth = {"effects": _rows(plain, CHECKED)}
    wrong = [agreement({"effects": _rows(g, CHECKED)}, truth) for g in grids]
    runs: dict[str, Callable[[], object]] = {}
    for name, grid in {"reference": plain, **{g.name: g for g in grids}}.items():
        clean = grid.prepare()
        runs[f"{name} prepare"] = grid.prepare
        runs[f"{name} row"] = lambda grid=grid, clean=clean: grid.row(clean, TIMED)
    times = alternate(runs, rounds, device)
    reference = _scaled(times, "reference")
    return [
        summary(bench, METRIC, g.name, _scaled(times, g.name), reference, difference=w, note=_joined(g.note, SCALED))
        for g, w in zip(grids, wrong, strict=True)
    ]


def _at_once(bench: str, entries: list[Candidate], plain: Grid, rounds: int, device: str) -> list[Measured]:
    """Compare and time whole grids, in turn with the whole plain loop, which is reported too."""
    truth = {"effects": _rows(plain, ALL)}
    wrong = [agreement(e.read(e.run()), truth) for e in entries]
    runs = {"reference": lambda: _rows(plain, ALL)} | {e.name: e.run for e in entries}
    times = alternate(runs, rounds, device)
    reference = times["reference"]
    own = summary(bench, METRIC, plain.name, reference, reference, note="one full forward a cell")
    return [own] + [
        summary(bench, METRIC, e.name, times[e.name], reference, difference=w, note=_joined(e.note, WHOLE))
        for e, w in zip(entries, wrong, strict=True)
    ]


def _scaled(times: Times, name: str) -> list[float]:
    return [p + BLOCKS * r for p, r in zip(times[f"{name} prepare"], times[f"{name} row"], strict=True)]


def _joined(*notes: str) -> str:
    return "; ".join(n for n in notes if n)
