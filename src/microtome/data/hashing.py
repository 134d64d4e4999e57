"""Hashing of whole arrays: the 64-bit finaliser of SplitMix, on which shingles and permutations are built.

    x ^= x >> 30;  x *= c1;  x ^= x >> 27;  x *= c2;  x ^= x >> 31        (Steele, Lea & Flood 2014)

A bijection of the 64-bit integers in which every input bit changes every output bit about half the time. It is the same
on every machine and in every process, unlike Python's `hash`, and is no protection against somebody who wants texts
to collide.
"""

import numpy as np

__all__ = ["GOLDEN", "mix64", "odd_constants"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Steps of this size visit all 64-bit integers evenly."""

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix64(x: np.ndarray) -> np.ndarray:
    """Return every entry scrambled, as uint64.

    Args:
        x: whole numbers; taken modulo 2^64.
    """
    x = np.array(x, dtype=np.uint64, ndmin=1)  # one axis at least: numpy warns of scalars that wrap
    x ^= x >> np.uint64(30)
    x *= _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x


def odd_constants(count: int) -> np.ndarray:
    """Return as many fixed odd 64-bit numbers: multipliers that lose nothing."""
    return mix64(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
