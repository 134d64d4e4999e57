"""Claims: what a paper says, with its number and place; verdicts: what came out here, with n, interval and control.

"not reproduced" is a good result, plainly reported. A verdict that rests on a measurement must say on how many items,
with what interval, and what the control gave; "not testable here" must say why, and may leave the rest out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral

from microtome.core.errors import RecordError, did_you_mean

__all__ = ["OUTCOMES", "Claim", "Verdict"]

OUTCOMES = ("reproduced", "same direction", "not reproduced", "not testable here")


@dataclass(frozen=True)
class Claim:
    """A statement of a paper that a study should bear out.

    Attributes:
        id: short name, unique in the record, e.g. ``dissociation``.
        statement: what the paper says, one sentence.
        paper: the paper, e.g. ``arXiv 2510.03366``.
        place: where in it, e.g. ``Table 2`` or ``section 4.1``.
        paper_number: the paper's number, as a number or in words; None where it gives none.
        judged: how the verdict is reached: the statistic, the threshold, the split.
    """

    id: str
    statement: str
    paper: str
    place: str
    paper_number: float | int | str | None = None
    judged: str = ""

    def __post_init__(self):
        lacks = [name for name in ("id", "statement", "paper", "place") if not getattr(self, name)]
        if lacks:
            raise RecordError(f"Claim '{self.id}' lacks {' and '.join(lacks)}; a claim carries the paper and place.")


@dataclass(frozen=True)
class Verdict:
    """What came out of testing a claim.

    Attributes:
        outcome: one of ``OUTCOMES``.
        reason: why this outcome, one sentence.
        measured: our number, in the claim's unit, or words where it is not one number.
        n: how many items stand behind it.
        interval: (low, high) of `measured`.
        control: name of each control -> what it gave.

    Raises:
        RecordError: the outcome is unknown, or n, interval or control is lacking where the claim was tested.
    """

    outcome: str
    reason: str
    measured: float | int | str | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    control: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        if self.outcome not in OUTCOMES:
            near = did_you_mean(str(self.outcome), OUTCOMES)
            raise RecordError(f"Verdict '{self.outcome}' is none of {', '.join(OUTCOMES)}; choose one.{near}")
        if not self.reason:
            raise RecordError(f"Verdict '{self.outcome}' has no reason; say in one sentence why.")
        if self.interval is not None:
            object.__setattr__(self, "interval", self._checked_interval())
        if self.outcome == "not testable here":
            return
        lacks = [k for k in ("measured", "n", "interval") if getattr(self, k) is None]
        lacks += [] if self.control else ["control"]
        if lacks:
            raise RecordError(
                f"Verdict '{self.outcome}' lacks {', '.join(lacks)}; give them, or say 'not testable here' and why."
            )
        if not isinstance(self.n, Integral) or self.n < 1:
            raise RecordError(
                f"Verdict '{self.outcome}' rests on n = {self.n!r} items; give a whole number, or say 'not testable "
                "here' and why."
            )

    def _checked_interval(self) -> tuple[float, float]:
        try:
            low, high = map(float, self.interval)
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if not -math.inf < low <= high < math.inf:
            raise RecordError(f"Verdict '{self.outcome}' has the interval {self.interval}; give finite (low, high).")
        return low, high
