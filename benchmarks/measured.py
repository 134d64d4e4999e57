"""What a worker process hands back: a candidate's time beside the reference timed in the same rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Measured", "amount", "summary"]


@dataclass(frozen=True)
class Measured:
    """One candidate's time beside the reference of the same process.

    Attributes:
        bench, metric: which cell of the tables.
        name: the tool and the way.
        seconds, reference: medians over the rounds.
        relative: median over rounds of seconds / reference (drift of the machine cancels).
        difference: largest difference from the plain hooks' numbers, relative to their scale.
        rounds: how many.
        note: what a reader of the row must know.
        measure: what `seconds` and `reference` are in, if not seconds: MiB.
    """

    bench: str
    metric: str
    name: str
    seconds: float
    reference: float
    relative: float
    difference: float
    rounds: int
    note: str
    measure: str = "s"


def summary(
    bench: str,
    metric: str,
    name: str,
    times: Sequence[float],
    reference: Sequence[float],
    *,
    difference: float = 0.0,
    note: str = "",
    measure: str = "s",
) -> Measured:
    """Return the medians of the rounds."""
    relative = statistics.median(a / b for a, b in zip(times, reference, strict=True))
    seconds, base = statistics.median(times), statistics.median(reference)
    return Measured(bench, metric, name, seconds, base, relative, difference, len(times), note, measure)


def amount(number: float, measure: str = "s") -> str:
    """Return a time or a size in words, e.g. "34.1 ms"."""
    if measure != "s":
        return f"{number:.0f} {measure}"
    return f"{number:.3f} s" if number >= 1 else f"{1000 * number:.1f} ms"
