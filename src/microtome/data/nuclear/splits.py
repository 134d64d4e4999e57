"""Which numbers a model is trained on and which are held out.

    nucleus  nuclei at random, all their numbers together; every Z and N keeps `keep` nuclei in training, since the
             embedding of a number that is never trained says nothing
    edge     of every element from nickel on, the `ends` lightest and heaviest isotopes: extrapolation along chains
    region   all nuclei in a box of Z and N, or those nearest to one drawn at random
    task     every number on its own, as in the code of arXiv 2405.17425: LEAKY, kept to show by how much

Separation and decay energies are differences of binding energies, so even with whole nuclei held out, S_n of a training
nucleus next to a held-out one, with the training nucleus's own binding energy, gives the held-out binding energy away.
Therefore training numbers that touch a held-out nucleus are masked: in neither part. `leakage.leaks` checks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from microtome.core.errors import ConfigError, DataError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.nuclear.energies import DIFFERENCES
from microtome.data.nuclear.table import NuclearTable
from microtome.data.nuclear.tasks import TaskTable

__all__ = ["SPLITS", "Split", "Unseen", "split", "unseen"]

_FIRST_CHAIN = 28


@dataclass(frozen=True)
class Unseen:
    """Numbers of protons and neutrons that are asked for and were never trained.

    Attributes:
        z: of protons.
        n: of neutrons.
        nuclei: how many nuclei have one of these.
    """

    z: tuple[int, ...]
    n: tuple[int, ...]
    nuclei: int

    def __bool__(self) -> bool:
        return bool(self.nuclei)

    def __str__(self) -> str:
        counts = [f"{name} = {', '.join(map(str, of))}" for name, of in (("Z", self.z), ("N", self.n)) if of]
        return f"{self.nuclei} nuclei have a number that no training nucleus has ({'; '.join(counts)})"


@dataclass(frozen=True, eq=False)
class Split:
    """A table of tasks divided; numbers in neither part are missing, masked or outside.

    Attributes:
        tasks: the numbers.
        kind: a key of `SPLITS`.
        seed: it was drawn with.
        train: numbers to train on.
        held: numbers held out.
        masked: numbers of training nuclei left out because they touch a held-out one.
        leaky: built without regard to which numbers give others away.
    """

    tasks: TaskTable
    kind: str
    seed: int
    train: Bool[np.ndarray, "nucleus task"]
    held: Bool[np.ndarray, "nucleus task"]
    masked: Bool[np.ndarray, "nucleus task"]
    leaky: bool

    @property
    def train_nuclei(self) -> Bool[np.ndarray, "nucleus"]:
        """Nuclei with a number in training."""
        return self.train.any(1)

    @property
    def held_nuclei(self) -> Bool[np.ndarray, "nucleus"]:
        """Nuclei with a number held out."""
        return self.held.any(1)

    @property
    def unseen(self) -> Unseen:
        """Numbers of protons and neutrons among the held-out nuclei that training never shows."""
        return unseen(self.tasks.table, self.train_nuclei, self.held_nuclei)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report must say about the split, one line each."""
        found = []
        if self.leaky:
            found.append(
                f"The split '{self.kind}' is leaky: numbers held out may be sums of numbers in training; count them "
                "with leaks()."
            )
        if self.unseen:
            found.append(f"Held out, {self.unseen}: predictions there rest on untrained embeddings.")
        return tuple(found)


def unseen(table: NuclearTable, train: Bool[np.ndarray, "nucleus"], asked: Bool[np.ndarray, "nucleus"]) -> Unseen:
    """Return which numbers of protons and neutrons are asked for and never trained.

    Args:
        table: the nuclei.
        train: those in training.
        asked: those to predict.
    """
    new = [~np.isin(axis, axis[train]) & asked for axis in (table.z, table.n)]
    z, n = (tuple(np.unique(axis[out]).tolist()) for axis, out in zip((table.z, table.n), new, strict=True))
    return Unseen(z, n, int((new[0] | new[1]).sum()))


@dataclass(frozen=True)
class _Plan:
    share: float
    keep: int
    ends: int
    box: tuple[int, int, int, int] | None


def split(
    tasks: TaskTable,
    kind: str = "nucleus",
    *,
    seed: int = 0,
    share: float = 0.1,
    keep: int = 3,
    ends: int = 1,
    box: tuple[int, int, int, int] | None = None,
    mask: bool = True,
    within: Bool[np.ndarray, "nucleus task"] | None = None,
) -> Split:
    """Return the numbers of a table divided into training and held out.

    Args:
        tasks: the numbers.
        kind: `nucleus`, `edge`, `region` or `task`.
        seed: of the draw; `edge`, and `region` with a box, draw nothing.
        share: of the nuclei (`task`: of the numbers) to hold out; `nucleus` holds out fewer where `keep` asks it.
        keep: nuclei of every Z and N to leave in training (`nucleus`), isotopes to leave of a chain (`edge`).
        ends: isotopes to hold out at each end of a chain (`edge`).
        box: least and most Z, least and most N to hold out (`region`); nearest to a nucleus drawn if None.
        mask: leave out training numbers that touch a held-out nucleus; without, the split is leaky.
        within: divide these numbers only, e.g. the training part of another split, to have a validation part of it.

    Raises:
        ConfigError: unknown kind, or a share outside 0..1.
        DataError: nothing to hold out, or nothing left to train on.

    Example:
        outer = split(tasks(table, ["binding", "sn"]), "nucleus", seed=1)
        inner = split(outer.tasks, "nucleus", seed=2, within=outer.train)
    """
    if kind not in SPLITS:
        raise ConfigError(f"No split '{kind}'; there are {', '.join(SPLITS)}: use one.{did_you_mean(kind, SPLITS)}")
    if not 0 < share < 1:
        raise ConfigError(f"A share of {share:g} is to be held out; give one between 0 and 1.")
    numbers = tasks.present if within is None else tasks.present & within
    draw = generator(seed, "nuclear split", kind)
    if kind == "task":
        held = numbers & (draw.random(numbers.shape) < share)
        masked = np.zeros_like(held)
    else:
        nuclei = _CHOOSERS[kind](tasks.table, numbers.any(1), _Plan(share, keep, ends, box), draw)
        held = numbers & nuclei[:, None]
        masked = numbers & ~held & _touching(tasks, nuclei) & mask
    leaky = kind == "task" or (not mask and bool((numbers & ~held & _touching(tasks, held.any(1))).any()))
    found = Split(tasks, kind, seed, numbers & ~held & ~masked, held, masked, leaky)
    if not found.held.any() or not found.train.any():
        lack = "held out" if found.train.any() else "left in training"
        raise DataError(
            f"The split '{kind}' of {int(numbers.any(1).sum())} nuclei leaves no number {lack}; change share, keep, "
            "ends or box, or give more nuclei."
        )
    return found


def _touching(tasks: TaskTable, held: Bool[np.ndarray, "nucleus"]) -> Bool[np.ndarray, "nucleus task"]:
    """Numbers that are differences with the binding energy of a held-out nucleus."""
    found = np.zeros(tasks.values.shape, bool)
    for column, task in enumerate(tasks.tasks):
        rule = DIFFERENCES.get(task.name)
        for step in (rule.plus, rule.minus) if rule else ():
            if step not in (None, (0, 0)):
                rows = tasks.table.rows_of(tasks.table.z + step[0], tasks.table.n + step[1])
                found[:, column] |= (rows >= 0) & held[rows]
    return found


Chooser = Callable[[NuclearTable, Bool[np.ndarray, "nucleus"], _Plan, np.random.Generator], Bool[np.ndarray, "nucleus"]]


def _by_nucleus(
    table: NuclearTable, there: Bool[np.ndarray, "nucleus"], plan: _Plan, draw: np.random.Generator
) -> Bool[np.ndarray, "nucleus"]:
    held, wanted = np.zeros(len(table), bool), round(plan.share * there.sum())
    left = [np.bincount(axis[there], minlength=axis.max() + 1) for axis in (table.z, table.n)]
    for row in draw.permutation(np.flatnonzero(there)):
        if wanted == 0:
            break
        z, n = table.z[row], table.n[row]
        if min(left[0][z], left[1][n]) > plan.keep:
            held[row] = True
            left[0][z] -= 1
            left[1][n] -= 1
            wanted -= 1
    return held


def _by_edge(
    table: NuclearTable, there: Bool[np.ndarray, "nucleus"], plan: _Plan, draw: np.random.Generator
) -> Bool[np.ndarray, "nucleus"]:
    held = np.zeros(len(table), bool)
    for z in np.unique(table.z[there & (table.z >= _FIRST_CHAIN)]):
        chain = np.flatnonzero(there & (table.z == z))
        chain = chain[np.argsort(table.n[chain])]
        if len(chain) >= 2 * plan.ends + plan.keep:
            held[chain[: plan.ends]] = True
            held[chain[len(chain) - plan.ends :]] = True
    return held


def _by_region(
    table: NuclearTable, there: Bool[np.ndarray, "nucleus"], plan: _Plan, draw: np.random.Generator
) -> Bool[np.ndarray, "nucleus"]:
    if plan.box is not None:
        least_z, most_z, least_n, most_n = plan.box
        inside = (table.z >= least_z) & (table.z <= most_z) & (table.n >= least_n) & (table.n <= most_n)
        return there & inside
    centre = draw.choice(np.flatnonzero(there))
    distance = np.hypot(table.z - table.z[centre], table.n - table.n[centre])
    rows = np.flatnonzero(there)
    held = np.zeros(len(table), bool)
    held[rows[np.argsort(distance[rows], kind="stable")[: round(plan.share * len(rows))]]] = True
    return held


_CHOOSERS: dict[str, Chooser] = {"nucleus": _by_nucleus, "edge": _by_edge, "region": _by_region}

SPLITS = (*_CHOOSERS, "task")
"""Kinds of splits; the last holds out numbers, the others nuclei."""
