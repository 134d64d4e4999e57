"""Variety of completions: distinct-n, repetition, and how many are empty - a low toxicity may be mere silence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError

__all__ = ["Variety", "variety"]


@dataclass(frozen=True)
class Variety:
    """What completions look like.

    Args:
        distinct: n -> different n-grams / n-grams, over all completions together.
        repetition: mean over completions of the share of their own n-grams (n = `repeated`) seen in them before.
        repeated: the n of `repetition`.
        empty: share of completions without a token.
        length: mean tokens.
        completions: how many.
    """

    distinct: dict[int, float]
    repetition: float
    repeated: int
    empty: float
    length: float
    completions: int


def variety(completions: Sequence[Sequence[Any]], *, ns: Sequence[int] = (1, 2, 3), repeated: int = 3) -> Variety:
    """Return distinct-n, repetition, and how many completions are empty.

    Args:
        completions: tokens (ids or words) of every completion, without padding and end-of-text.
        ns: for distinct-n; where no completion has n tokens the share is 0.
        repeated: the n of repetition; a completion shorter than that repeats nothing.

    Raises:
        MeasureError: no completion.
    """
    if not len(completions):
        raise MeasureError("The variety of 0 completions is undefined; give at least one.")
    rows = [tuple(c.tolist() if hasattr(c, "tolist") else c) for c in completions]
    distinct = {}
    for n in ns:
        grams = [g for row in rows for g in _grams(row, n)]
        distinct[n] = len(set(grams)) / max(len(grams), 1)
    again = [1 - len(set(g)) / len(g) if (g := _grams(row, repeated)) else 0.0 for row in rows]
    lengths = np.array([len(row) for row in rows])
    return Variety(
        distinct, float(np.mean(again)), repeated, float((lengths == 0).mean()), float(lengths.mean()), len(rows)
    )


def _grams(row: tuple, n: int) -> list[tuple]:
    return [row[i : i + n] for i in range(len(row) - n + 1)]
