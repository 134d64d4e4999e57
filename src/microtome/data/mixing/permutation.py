"""A permutation of 0 .. n-1 that is computed, not held: where entry i goes needs no list of n indices.

    Feistel network on 2h bits, 2^(2h) >= n:  (left, right) -> (right, left ^ F(right, key, round)), six rounds
    cycle walking: apply it again until the result is below n                 (Black & Rogaway 2002, "Ciphers with
                                                                               arbitrary finite domains", method 2)

Each step is a bijection, so the whole is one, whatever F is; six rounds of a mixing F look random to any statistic that
a sampler needs, and are no cipher. It works on arrays in which every entry has its own n and key.
"""

import numpy as np

from microtome.data.hashing import GOLDEN, mix64

__all__ = ["permuted"]

_ROUNDS = 6
_LEAST = 2  # bits of a half: fewer leave too few permutations


def permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return where each place goes, [places] int64.

    Args:
        places: numbers from 0 to below their size.
        sizes: of the set that is permuted, below 2^53.
        keys: which permutation, uint64.
    """
    places, sizes, keys = (np.asarray(x).astype(np.uint64).ravel() for x in np.broadcast_arrays(places, sizes, keys))
    bits = np.frexp((sizes - np.uint64(1)).astype(np.float64))[1]
    half = np.maximum(_LEAST, (bits + 1) // 2).astype(np.uint64)
    found, walking = places.copy(), np.arange(len(places))
    while len(walking):
        found[walking] = _feistel(found[walking], half[walking], keys[walking])
        walking = walking[found[walking] >= sizes[walking]]
    return found.astype(np.int64)


def _feistel(x: np.ndarray, half: np.ndarray, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for step in np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None] * GOLDEN:
        left, right = right, left ^ (mix64(right + mix64(keys + step)) & mask)
    return (left << half) | right
