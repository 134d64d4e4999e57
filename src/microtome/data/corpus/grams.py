"""Hashes of all windows of a sequence, of any length, each in constant time.

    c_j  codes of 64 bits        H(i, n) = sum_j c_(i+j) M^j  (mod 2^64),  M odd

From the running sums S_k = sum_(j<k) c_j M^j it is (S_(i+n) - S_i) M^(-i). Two different windows of random codes share
a hash once in 2^64; nobody is expected to craft texts against it (mod 2^64 that can be done for long windows).
"""

import functools
import hashlib
from collections.abc import Iterable

import numpy as np

__all__ = ["Windows", "unit_codes"]

_M = 0xD1342543DE82EF95
_INVERSE = pow(_M, -1, 1 << 64)
_GROWN = 1 << 12


def unit_codes(found: Iterable[str]) -> np.ndarray:
    """Return a code of 64 bits for each unit, the same in every process."""
    return np.array([_code(unit) for unit in found], dtype=np.uint64)


@functools.lru_cache(maxsize=1 << 14)
def _code(unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8).digest(), "big")


class Windows:
    """The windows of a sequence.

    Args:
        codes: uint64, one for each place.
    """

    def __init__(self, codes: np.ndarray):
        self._powers, self._inverses = _powers(_room(len(codes)))
        self._sums = np.zeros(len(codes) + 1, dtype=np.uint64)
        np.cumsum(codes * self._powers[: len(codes)], out=self._sums[1:])

    def hashes(self, length: int) -> np.ndarray:
        """Return the hash of every window of a length, by where it begins; none where the sequence is shorter."""
        if length >= len(self._sums):
            return np.zeros(0, dtype=np.uint64)
        return (self._sums[length:] - self._sums[: len(self._sums) - length]) * self._inverses[
            : len(self._sums) - length
        ]

    def at(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the hashes of windows that lie in the sequence.

        Args:
            starts: of each window.
            lengths: of each, with start + length at most the sequence's.
        """
        return (self._sums[starts + lengths] - self._sums[starts]) * self._inverses[starts]


def _room(length: int) -> int:
    """Return a size that grows by doubling, so that few sizes are ever asked for."""
    return max(_GROWN, 1 << length.bit_length())


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the powers of M and of its inverse, from 0."""
    both = []
    for base in (_M, _INVERSE):
        powers = np.full(size, base, dtype=np.uint64)
        powers[0] = 1
        both.append(np.cumprod(powers, dtype=np.uint64))
    return both[0], both[1]
