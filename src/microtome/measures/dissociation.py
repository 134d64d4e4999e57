"""Double dissociation: does removing one set of units hurt its own task more than the other, both ways round?

    drop_t(S)  = mean over items of task t of (outcome intact - outcome without S)
    DD         = [drop_r(S_r) - drop_q(S_r)] + [drop_q(S_q) - drop_r(S_q)]

Outcomes are accuracies (DD then runs from -2 to 2, and is 2 minus both chance rates when each set is all its task has)
or a continuous metric on one scale for both tasks. The intact outcome cancels in DD but not in its two brackets, the
single dissociations. DD can be large with one of them alone, so `both` asks that both brackets' intervals lie above 0.
The sets must have been chosen on other items; the null is the DD of random sets matched to both. Spec B3; the argument:
Teuber 1955, Shallice 1988 chapter 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights, cluster_count, matched_random_p, weighted_means

__all__ = ["Dissociation", "Outcomes", "dissociation_index", "double_dissociation"]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the items of one task came to.

    Args:
        intact: outcome per item, [items].
        without_own: outcome without the set chosen for this task, [items] ([sets, items] for random twins).
        without_other: outcome without the set chosen for the other task, same shape.
        clusters: clusterings of the items (item, skeleton); labels are shared between tasks. () resamples items.
    """

    intact: Any
    without_own: Any
    without_other: Any
    clusters: Sequence[Any] = ()

    def drops(self) -> np.ndarray:
        """Return the drops by item, [2, ..., items]: own set first, the other's second.

        Raises:
            MeasureError: shapes that do not fit, or missing values.
        """
        intact = numbers(self.intact, "Intact outcomes", ndim=1)
        own, other = numbers(self.without_own, "Ablated outcomes"), numbers(self.without_other, "Ablated outcomes")
        if own.shape != other.shape or own.shape[-1:] != intact.shape:
            raise MeasureError(
                f"Outcomes without the own set {own.shape} and without the other's {other.shape} do not fit "
                f"{len(intact)} intact items; give one per item."
            )
        return np.stack([intact - own, intact - other])


@dataclass(frozen=True)
class Dissociation:
    """A double dissociation with its intervals and its null.

    Args:
        index: DD.
        r_own: drop of task r without its own set.
        q_other: drop of task q without r's set.
        q_own: drop of task q without its own set.
        r_other: drop of task r without q's set.
        r_side: r_own - q_other, the single dissociation by r's set.
        q_side: q_own - r_other, the single dissociation by q's set.
        p: p-value against matched random sets (None where none were given).
        null: median and 95th percentile of the random sets' DD.
        null_sets: how many random sets there were.
    """

    index: Interval
    r_own: Interval
    q_other: Interval
    q_own: Interval
    r_other: Interval
    r_side: Interval
    q_side: Interval
    p: float | None = None
    null: tuple[float, float] | None = None
    null_sets: int = 0

    @property
    def both(self) -> bool:
        """Whether both single dissociations lie above 0 with their whole interval."""
        return self.r_side.low > 0 and self.q_side.low > 0


def dissociation_index(r: Outcomes, q: Outcomes) -> np.ndarray:
    """Return DD; for outcomes [sets, items], one per set, [sets].

    Args:
        r: outcomes of the first task.
        q: outcomes of the second task.

    Raises:
        MeasureError: shapes that do not fit, or missing values.
    """
    (r_own, r_other), (q_own, q_other) = r.drops().mean(-1), q.drops().mean(-1)
    return (r_own - q_other) + (q_own - r_other)


def double_dissociation(
    r: Outcomes,
    q: Outcomes,
    *,
    rng: np.random.Generator,
    null: Any = None,
    draws: int = 2000,
    level: float = 0.95,
) -> Dissociation:
    """Return the double dissociation with clustered bootstrap intervals and its p-value against random sets.

    Clusters are resampled once for both tasks, so that a skeleton both use counts as one.

    Args:
        r: outcomes of the first task.
        q: outcomes of the second task; the same number of clusterings.
        rng: random generator.
        null: DD of matched random sets, [sets] (see `dissociation_index`).
        draws: bootstrap resamples.
        level: confidence level.

    Raises:
        MeasureError: shapes that do not fit, missing values, or too few clusters.
    """
    drops_r, drops_q = r.drops(), q.drops()
    if drops_r.ndim != 2 or drops_q.ndim != 2:
        raise MeasureError(
            f"A dissociation takes one set per task, found outcomes of shape {drops_r.shape[1:]}; use "
            "dissociation_index for many sets."
        )
    n_r, n_q = drops_r.shape[1], drops_q.shape[1]
    clusters = _joined(r.clusters, q.clusters, n_r, n_q)
    tasks = (slice(n_r), slice(n_r, None))
    weights = bootstrap_weights(clusters, n_r + n_q, draws=draws, rng=rng, parts=tasks)
    drawn = np.hstack([weighted_means(weights[:, :n_r], drops_r.T), weighted_means(weights[:, n_r:], drops_q.T)])
    point = np.concatenate([drops_r.mean(1), drops_q.mean(1)])
    names = {
        "index": (1, -1, 1, -1),
        "r_own": (1, 0, 0, 0),
        "r_other": (0, 1, 0, 0),
        "q_own": (0, 0, 1, 0),
        "q_other": (0, 0, 0, 1),
        "r_side": (1, 0, 0, -1),
        "q_side": (0, -1, 1, 0),
    }
    count = cluster_count(clusters, n_r + n_q)
    found = {k: percentile_interval(point @ c, drawn @ np.array(c), count, level=level) for k, c in names.items()}
    return Dissociation(**found, **_against(found["index"].estimate, null))


def _joined(r: Sequence[Any], q: Sequence[Any], n_r: int, n_q: int) -> list[np.ndarray]:
    """Clusterings over the items of both tasks; without any, every item is its own."""
    if len(r) != len(q):
        raise MeasureError(f"Task r has {len(r)} clusterings and task q {len(q)}; cluster both the same way.")
    for a, b in zip(r, q, strict=True):
        group_codes(a, n_r, "Clusters"), group_codes(b, n_q, "Clusters")
    return [np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(r, q, strict=True)]


def _against(index: float, null: Any) -> dict[str, Any]:
    if null is None:
        return {}
    null = numbers(null, "DD of random sets", ndim=1)
    middle, high = np.quantile(null, [0.5, 0.95])
    return {"p": matched_random_p(index, null), "null": (float(middle), float(high)), "null_sets": len(null)}
