"""Which held-out numbers are sums of training numbers.

Every energy is one binding energy or the difference of two, up to constants that are known. Take nuclei as points, one
more point for "zero", and every training number as a line between the two points it is the difference of (a binding
energy: a line to zero). A held-out number can be computed from training numbers exactly where a path of lines joins
its two points, and the path is the computation: S_n(Z,N) = B(Z,N) - B(Z,N-1), or S_2n(Z,N) - S_n(Z,N-1). So the check
is the connected components of a graph; nothing is fitted, and nothing that is merely predictable counts as leaked.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from microtome.data.nuclear.energies import DIFFERENCES, Difference
from microtome.data.nuclear.splits import Split

__all__ = ["Leak", "Leaks", "leaks"]

Number = tuple[int, str, Difference]
Lines = Int[np.ndarray, "two lines"]

_ZERO = -1
_STRIDE = 10_000


@dataclass(frozen=True)
class Leak:
    """One held-out number and the training numbers that add up to it, signs and constants aside.

    Attributes:
        number: e.g. `sn(56Fe)`.
        from_numbers: the fewest that do.
    """

    number: str
    from_numbers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.number} from {', '.join(self.from_numbers)}"


@dataclass(frozen=True)
class Leaks:
    """What the checker found.

    Attributes:
        derivable: task -> held-out numbers that training numbers add up to.
        held: task -> held-out numbers; tasks that are no energies can not be derived and are not listed.
        examples: some, with their derivations.
    """

    derivable: dict[str, int]
    held: dict[str, int]
    examples: tuple[Leak, ...]

    @property
    def total(self) -> int:
        """Held-out numbers that can be derived."""
        return sum(self.derivable.values())

    @property
    def share(self) -> float:
        """The same as a share of the held-out energies; 0 where there are none."""
        return self.total / max(sum(self.held.values()), 1)

    def __bool__(self) -> bool:
        return self.total > 0

    def __str__(self) -> str:
        if not self:
            return f"None of {sum(self.held.values())} held-out energies follows from training numbers."
        return (
            f"{self.total} of {sum(self.held.values())} held-out energies ({self.share:.0%}) follow from training "
            f"numbers, e.g. {self.examples[0] if self.examples else ''}."
        )


def leaks(split: Split, *, examples: int = 5) -> Leaks:
    """Return which held-out energies are sums of training numbers.

    Args:
        split: the numbers, divided.
        examples: how many to derive, spread over the tasks.

    Example:
        >>> bool(leaks(split(found, "task"))), bool(leaks(split(found, "nucleus")))
        (True, False)
    """
    numbers = [(c, task.name, _rule(task.name)) for c, task in enumerate(split.tasks.tasks) if task.kind == "energy"]
    joined = _joiner(_lines(split, numbers, split.train))
    derivable, held, found = {}, {}, []
    for number in numbers:
        lines = _lines(split, [number], split.held)
        hits = np.flatnonzero(joined(lines))
        derivable[number[1]], held[number[1]] = len(hits), lines.shape[1]
        rows = np.flatnonzero(split.held[:, number[0]])
        found.append([(_name(split, number[1], rows[hit]), lines[:, hit].tolist()) for hit in hits[:examples]])
    spread = [leak for turn in zip_longest(*found) for leak in turn if leak is not None][:examples]
    near = _neighbours(split, numbers) if spread else {}
    return Leaks(derivable, held, tuple(Leak(name, _path(near, *line)) for name, line in spread))


def _joiner(trained: Lines) -> Callable[[Lines], Bool[np.ndarray, "lines"]]:
    """Return what tells, of further lines, whether the trained ones join their two points."""
    points, place = np.unique(np.append(trained.ravel(), _ZERO), return_inverse=True)
    start, end = place[:-1].reshape(2, -1)
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(len(points),) * 2)
    component = connected_components(graph, directed=False)[1]

    def joined(lines: Lines) -> Bool[np.ndarray, "lines"]:
        at = np.searchsorted(points, lines).clip(max=len(points) - 1)
        return (points[at] == lines).all(0) & (component[at[0]] == component[at[1]])

    return joined


def _name(split: Split, task: str, row: SupportsIndex) -> str:
    return f"{task}({split.tasks.table.label(row)})"


def _rule(task: str) -> Difference:
    """Residuals to a formula are binding energies less what is known."""
    return DIFFERENCES["binding" if task.startswith("binding") else task]


def _lines(split: Split, numbers: list[Number], mask: Bool[np.ndarray, "nucleus task"]) -> Lines:
    """Both points of every number in a mask, task by task, nuclei in order."""
    table, found = split.tasks.table, [np.empty((2, 0), np.int64)]
    for column, _, rule in numbers:
        rows = np.flatnonzero(mask[:, column])
        ends = [
            np.full(len(rows), _ZERO) if step is None else (table.z[rows] + step[0]) * _STRIDE + table.n[rows] + step[1]
            for step in (rule.plus, rule.minus)
        ]
        found.append(np.stack(ends))
    return np.concatenate(found, axis=1)


def _neighbours(split: Split, numbers: list[Number]) -> dict[int, dict[int, str]]:
    """Point -> points that a training number joins it to, and that number's name."""
    near: dict[int, dict[int, str]] = {}
    for number in numbers:
        rows = np.flatnonzero(split.train[:, number[0]])
        for row, (start, end) in zip(rows, _lines(split, [number], split.train).T.tolist(), strict=True):
            name = _name(split, number[1], row)
            near.setdefault(start, {})[end] = near.setdefault(end, {})[start] = name
    return near


def _path(near: dict[int, dict[int, str]], start: int, end: int) -> tuple[str, ...]:
    """Names of the lines of the shortest path, breadth first."""
    before, queue = {start: start}, deque([start])
    while end not in before:
        here = queue.popleft()
        for there in near[here]:
            if there not in before:
                before[there] = here
                queue.append(there)
    names = []
    while end != start:
        names.append(near[before[end]][end])
        end = before[end]
    return tuple(reversed(names))
