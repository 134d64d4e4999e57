"""Numbers to train on: one row for each nucleus and task, standardised, with its weight in the loss.

Weights are 1, or the inverse of the variance that a number is known to: w = 1 / (u^2 + floor^2), scaled to a mean of 1
within each task, so that no task outweighs another. The floor is what a model could not tell anyway.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import DataError
from microtome.data.nuclear import Scaling, TaskTable

__all__ = ["Numbers", "numbers_of"]


@dataclass(frozen=True, eq=False)
class Numbers:
    """Rows for a regressor.

    Attributes:
        z: protons.
        n: neutrons.
        task: column of the task.
        value: standardised target.
        weight: in the loss.
    """

    z: Int[Tensor, "row"]
    n: Int[Tensor, "row"]
    task: Int[Tensor, "row"]
    value: Float[Tensor, "row"]
    weight: Float[Tensor, "row"]

    def __len__(self) -> int:
        return len(self.z)


def numbers_of(
    tasks: TaskTable,
    which: Bool[np.ndarray, "nucleus task"],
    scaling: Scaling,
    *,
    floor: float | None = None,
) -> Numbers:
    """Return some numbers of a table as rows.

    Args:
        tasks: the table.
        which: the numbers, such as `Split.train`.
        scaling: how targets are standardised: by training numbers alone.
        floor: weigh by stated uncertainties with this floor, in each task's own unit times its scale; None: all alike.

    Raises:
        DataError: no number, or an uncertainty that is asked for and not stated.

    Example:
        rows = numbers_of(found, divided.train, standardise(found, divided.train))
    """
    row, column = np.nonzero(which & tasks.present)
    if not len(row):
        raise DataError(f"No number of the tasks {', '.join(tasks.names)} was chosen; choose some that are there.")
    values = scaling.forward(tasks.values)[row, column]
    z, n, task = tasks.table.z[row], tasks.table.n[row], column
    weight = np.ones(len(row)) if floor is None else _weights(tasks, row, column, floor)
    return Numbers(
        *(torch.from_numpy(np.ascontiguousarray(x, np.int64)) for x in (z, n, task)),
        *(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (values, weight)),
    )


def _weights(
    tasks: TaskTable, row: Int[np.ndarray, "row"], column: Int[np.ndarray, "row"], floor: float
) -> Float[np.ndarray, "row"]:
    uncertainty = tasks.uncertainty[row, column]
    if not np.isfinite(uncertainty).all():
        first = int(np.argmin(np.isfinite(uncertainty)))
        raise DataError(
            f"Numbers are to be weighed by their uncertainty; {tasks.names[column[first]]} of "
            f"{tasks.table.label(row[first])} states none: train without, or cut to nuclei that state theirs."
        )
    scale = np.array([task.scale for task in tasks.tasks])[column]
    weight = 1 / (uncertainty**2 + (floor * scale) ** 2)
    totals = np.bincount(column, weight, len(tasks.tasks)) / np.maximum(
        np.bincount(column, minlength=len(tasks.tasks)), 1
    )
    return weight / totals[column]
