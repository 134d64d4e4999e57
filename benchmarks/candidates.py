"""What an adapter offers to a benchmark: things to run, and how to read their results.

An adapter module (peers/*.py) may define `capture`, `residual_sweep`, `head_sweep`, `attribution`; each takes the
shared `Work` and returns candidates. The conversion to the common form (`read`) is not timed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Candidate", "Grid"]


def _as_is(result: dict[str, Tensor]) -> dict[str, Tensor]:
    return result


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to do the whole work.

    Attributes:
        name: the tool and the way, e.g. "nnsight".
        metric: which column of the benchmark it is an entry of.
        run: does the work; timed.
        read: turns run's result into name -> tensor, to compare with the plain reference; not timed.
        rounding: relative error allowed beside the common tolerance (a bf16 store rounds).
        note: what a reader of the row must know.
        share: of the whole work that `run` does; its time is divided by that.
    """

    name: str
    metric: str
    run: Callable[[], object]
    read: Callable[[object], dict[str, Tensor]] = _as_is
    rounding: float = 0.0
    note: str = ""
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Grid:
    """One way to fill a patching grid, a layer (row) at a time.

    Attributes:
        name: the tool and the way.
        prepare: the clean run, shared by all rows; timed, counted once.
        row: effects of one layer, [cells, pairs], given what `prepare` returned; timed for one layer and scaled.
        note: what a reader of the row must know.
    """

    name: str
    prepare: Callable[[], object]
    row: Callable[[object, int], Tensor]
    note: str = ""
