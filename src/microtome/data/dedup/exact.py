"""Exact duplicates: texts whose canonical forms have one digest.

The digest is BLAKE2b of 128 bits, held as two 64-bit numbers; two different texts share one by accident in no corpus.
What is the same text is said in `canonical`: case, spacing and the like do not count, punctuation does.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from microtome.data.dedup.canonical import canonical
from microtome.data.dedup.clusters import Clusters

__all__ = ["digests", "exact_duplicates", "same_digests"]


def digests(texts: Iterable[str]) -> np.ndarray:
    """Return the digests of texts, [texts, 2] uint64."""
    data = b"".join(
        hashlib.blake2b(canonical(text).encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts
    )
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def exact_duplicates(texts: Iterable[str]) -> Clusters:
    """Return the clusters of equal texts; only digests are held, 16 bytes a text.

    Args:
        texts: read once.

    Example:
        >>> exact_duplicates(["One, two", "three", "one,  TWO"]).kept.tolist()
        [0, 1]
    """
    return same_digests(digests(texts))


def same_digests(found: np.ndarray) -> Clusters:
    """Return the clusters of equal digests, [texts, 2]."""
    order = np.lexsort((np.arange(len(found)), found[:, 1], found[:, 0]))
    new = np.ones(len(found), bool)
    new[1:] = (found[order[1:]] != found[order[:-1]]).any(1)
    first = np.empty(len(found), np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1] if len(found) else 0
    return Clusters(first)
