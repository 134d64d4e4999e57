"""Where pieces of work run: a back end maps a function over shards and gives the results back in order.

That is the whole seam. `local.py` is the back end of one process; a cluster (Ray: put the function in its object store
once, yield the results in order) is one more file in this folder, or another package's entry point in the group
`microtome.backends`, that assigns `BACKEND`. What is mapped is a picklable value, not a closure. Cells of a sweep do
not touch each other, so a sweep shards over cells: each shard records the base run and fills its rows of the effects.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from microtome.core.discovery import discover, pick
from microtome.core.errors import EditError
from microtome.core.protocols import Metric
from microtome.engine.edit import Edit
from microtome.engine.sweep import SweepResult, plan, sweep
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Backend", "backend", "sweep_in_shards"]

Cells = Sequence["Edit | Sequence[Edit]"]


class Backend(Protocol):
    """Runs pieces of work somewhere."""

    def map(self, function: Callable, shards: Iterable) -> Iterator:
        """Yield function(shard) for every shard, in the order of the shards, whatever the order they finish in."""
        ...


def backend(name: str = "local") -> Backend:
    """Return the back end of that name.

    Raises:
        ConfigError: there is none.
    """
    return pick(discover("microtome.engine", "BACKEND", "microtome.backends"), name, "back end")


@dataclass(frozen=True, eq=False)
class _SweepShard:
    """Sweeps the cells it is called with."""

    model: Model
    batch: Batch
    metric: Metric
    memory_budget: int | str

    def __call__(self, cells: Cells) -> SweepResult:
        return sweep(self.model, self.batch, cells, self.metric, memory_budget=self.memory_budget)


def sweep_in_shards(
    model: Model,
    batch: Batch,
    cells: Cells,
    metric: Metric,
    *,
    shards: int,
    on: Backend | None = None,
    memory_budget: int | str = "2GiB",
) -> SweepResult:
    """Return what `sweep` returns, its cells divided among shards; the plan is that of the sweep as a whole.

    Args:
        model: the model.
        batch: the items.
        cells: each an edit, or several made together.
        metric: what to read at the output.
        shards: into how many pieces to divide the cells.
        on: where the pieces run; None means this process.
        memory_budget: bytes of activations for each piece.

    Raises:
        EditError: fewer than one shard, or as for `sweep`.
    """
    if shards < 1:
        raise EditError(f"A sweep of {len(cells)} cells in {shards} shards was asked for; give at least 1.")
    whole = plan(model, batch, cells, metric, memory_budget=memory_budget)
    size = -(-len(cells) // shards)
    parts = [cells[i : i + size] for i in range(0, len(cells), size)]
    found = list((on or backend()).map(_SweepShard(model, batch, metric, memory_budget), parts))
    return SweepResult(torch.cat([r.effects for r in found]), found[0].base, whole)
