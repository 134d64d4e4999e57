"""What a model may be asked of a nucleus: a table of one row a nucleus and one column a task, gaps with their reasons.

    energies   binding, sn, sp, s2n, s2p, qa, qbm, qbm_n, qec (MeV, differences of binding energies); binding_semf and
               binding_bw2, the binding energy less a formula with its literature coefficients
    terms      volume, surface, coulomb, asymmetry, pairing: the five of the semi-empirical formula, MeV
    observed   radius (fm), half_life (log10 s), stability (1, 0), spin, parity (1, -1), abundance (per cent), isospin
    inputs     z, n: what the model is given, asked back
    control    noise, standard normal by seed: nothing to learn

`scale` is by how much a task's error is divided in a joint loss, as in the code of arXiv 2405.17425 (binding 0.1 MeV,
other energies 0.2 MeV, radius 0.02 fm, counts 1). `Scaling` standardises columns by their training numbers alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from microtome.core.errors import ConfigError, DataError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.nuclear.energies import DIFFERENCES, derive
from microtome.data.nuclear.formulas import BW2, SEMF
from microtome.data.nuclear.table import Column, NuclearTable

__all__ = ["PAPER_TASKS", "TASKS", "Scaling", "Task", "TaskTable", "standardise", "tasks"]

PAPER_TASKS = ("binding", "z", "n", "radius", "qa", "qbm", "qbm_n", "qec", "sn", "sp")
"""The ten of the paper's multi-task runs."""


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    Attributes:
        name: of its column.
        kind: `energy`, `term`, `observed`, `input` or `control`.
        unit: of its numbers; empty for none.
        scale: error that counts as one in a joint loss, in that unit.
    """

    name: str
    kind: str
    unit: str
    scale: float


def _tasks() -> dict[str, Task]:
    energies = [*DIFFERENCES, "binding_semf", "binding_bw2"]
    found = [Task(name, "energy", "MeV", 0.1 if name.startswith("binding") else 0.2) for name in energies]
    found += [Task(name, "term", "MeV", 0.1) for name in SEMF.terms.names]
    units = {"half_life": ("log10 s", 1.0), "abundance": ("per cent", 1.0), "radius": ("fm", 0.02)}
    for name in ("radius", "half_life", "stability", "spin", "parity", "abundance", "isospin"):
        found.append(Task(name, "observed", *units.get(name, ("", 1.0))))
    found += [Task(name, "input", "nucleons", 1.0) for name in ("z", "n")]
    return {task.name: task for task in [*found, Task("control", "control", "", 1.0)]}


TASKS = _tasks()
"""Every task by name."""


@dataclass(frozen=True, eq=False)
class TaskTable:
    """Tasks of the nuclei of one table.

    Attributes:
        table: the nuclei.
        tasks: one per column.
        values: NaN where missing.
        uncertainty: one standard deviation, NaN where not stated.
        reasons: task name -> why a nucleus has no value, empty where it has.
    """

    table: NuclearTable
    tasks: tuple[Task, ...]
    values: Float[np.ndarray, "nucleus task"]
    uncertainty: Float[np.ndarray, "nucleus task"]
    reasons: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(task.name for task in self.tasks)

    @property
    def present(self) -> Bool[np.ndarray, "nucleus task"]:
        """Where there is a value."""
        return np.isfinite(self.values)

    def missing(self) -> dict[str, dict[str, int]]:
        """Return, of each task, how many nuclei lack it for which reason."""
        return {name: dict(Counter(r for r in reasons if r).most_common()) for name, reasons in self.reasons.items()}

    def columns(self) -> dict[str, list]:
        """Return the table for a record: z, n, and of each task its values (None where missing) and its reasons."""
        found: dict[str, list] = {}
        for name, values in zip(self.names, self.values.T, strict=True):
            found[name] = [None if np.isnan(v) else v for v in values.tolist()]
            found[f"{name}_reason"] = list(self.reasons[name])
        return found | {"z": self.table.z.tolist(), "n": self.table.n.tolist()}


def tasks(
    table: NuclearTable,
    names: Sequence[str] = ("binding",),
    *,
    neighbours: NuclearTable | None = None,
    seed: int = 0,
) -> TaskTable:
    """Return tasks of a table's nuclei.

    Args:
        table: the nuclei.
        names: keys of `TASKS`, in the order of the columns.
        neighbours: where separation and decay energies look up the other nucleus; the table itself if None.
        seed: of the control.

    Raises:
        ConfigError: a task that is not known, or twice.
        DataError: a task that no nucleus of the table has; the message says why.

    Example:
        >>> found = tasks(table, ["binding", "sn", "radius"])
        >>> found.missing()["sn"]
    """
    _check_names(names)
    columns = {name: _column(table, TASKS[name], neighbours, seed) for name in names}
    for name, column in columns.items():
        if not np.isfinite(column.values).any():
            why = Counter(column.reasons).most_common(1)[0][0]
            raise DataError(
                f"No nucleus of '{table.provenance.source}' has a value for the task '{name}' ({why}); leave it out or "
                "give a table with it."
            )
    return TaskTable(
        table,
        tuple(TASKS[name] for name in names),
        np.stack([column.values for column in columns.values()], axis=1),
        np.stack([column.uncertainty for column in columns.values()], axis=1),
        {name: column.reasons for name, column in columns.items()},
    )


def _check_names(names: Sequence[str]) -> None:
    known = f"there are {', '.join(TASKS)}"
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"No task '{name}'; {known}: use one.{did_you_mean(name, TASKS)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"The tasks asked for are {', '.join(names) or 'none'}; {known}: name some, each once.")


def _column(table: NuclearTable, task: Task, neighbours: NuclearTable | None, seed: int) -> Column:
    if task.name in DIFFERENCES:
        return derive(table, task.name, neighbours=neighbours)
    if task.kind == "observed":
        absent = Column(*(np.full(len(table), np.nan),) * 2, (f"the table has no {task.name}",) * len(table))
        return table.observed.get(task.name, absent)
    nothing = ("",) * len(table)
    if task.kind == "energy":
        formula = SEMF if task.name == "binding_semf" else BW2
        return Column(table.binding - formula.binding(table.z, table.n), table.uncertainty, nothing)
    if task.kind == "term":
        values = SEMF.contributions(table.z, table.n)[task.name]
    elif task.kind == "input":
        values = (table.z if task.name == "z" else table.n).astype(np.float64)
    else:
        values = _noise(seed)[table.z, table.n]
    return Column(values, np.zeros(len(table)), nothing)


def _noise(seed: int) -> Float[np.ndarray, "protons neutrons"]:
    """Draw for every nucleus there could be, so that a cut does not change the noise of those that stay."""
    return generator(seed, "nuclear control").standard_normal((1000, 1000))


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and spread of each task's training numbers.

    Attributes:
        mean: in the task's unit.
        std: likewise; 1 for a task that is constant in training.
    """

    mean: Float[np.ndarray, "task"]
    std: Float[np.ndarray, "task"]

    def forward(self, values: Float[np.ndarray, "nucleus task"]) -> Float[np.ndarray, "nucleus task"]:
        """Return values with mean 0 and spread 1 over training."""
        return (values - self.mean) / self.std

    def back(self, values: Float[np.ndarray, "nucleus task"]) -> Float[np.ndarray, "nucleus task"]:
        """Return standardised values in their units."""
        return values * self.std + self.mean


def standardise(table: TaskTable, train: Bool[np.ndarray, "nucleus task"]) -> Scaling:
    """Return the scaling of each task by its training numbers, and by no others.

    Args:
        table: the tasks.
        train: which numbers are in training, as `Split.train`.

    Raises:
        DataError: a task without a training number.
    """
    used = np.where(train & table.present, table.values, np.nan)
    bare = [name for name, column in zip(table.names, used.T, strict=True) if np.isnan(column).all()]
    if bare:
        raise DataError(f"The task '{bare[0]}' has no number in training; leave it out or hold out less.")
    std = np.nanstd(used, axis=0)
    return Scaling(np.nanmean(used, axis=0), np.where(std > 0, std, 1.0))
