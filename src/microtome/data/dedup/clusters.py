"""Clusters of duplicates: texts that meet in a band are joined, and the first of each cluster is kept.

    band by band: sort the keys, join neighbours of equal key (union-find)            O(bands x texts log texts)

Joining is transitive, so that a chain of near-duplicates is one cluster although its ends may be unlike; what comes out
does not depend on the order of the texts, but for which is the first. With verification a pair is joined only where the
exact Jaccard similarity of its shingles reaches a threshold: all pairs of a bucket are held against each other, and in
buckets of more than 64 texts each text against the bucket's first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError
from microtome.data.dedup.minhash import MinHash, batches
from microtome.data.dedup.shingles import Shingling, jaccard

__all__ = ["Clusters", "Similar", "join", "near_duplicates", "similar_texts"]

Similar = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Says of pairs (first texts, second texts) whether each is to be joined."""

_BUCKET = 64
_PAIRS = 512  # verified at once; their texts may be long


@dataclass(frozen=True, eq=False)
class Clusters:
    """What is a duplicate of what.

    Attributes:
        first: for every text the first one of its cluster, itself where it is kept, [texts].
    """

    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the texts that are kept, ascending."""
        return np.flatnonzero(self.first == np.arange(len(self.first)))

    @property
    def removed(self) -> int:
        """How many are not."""
        return len(self.first) - len(self.kept)

    @property
    def share(self) -> float:
        """Share of the texts that are not kept; 0 where there are none."""
        return self.removed / max(1, len(self.first))

    def groups(self) -> Iterator[np.ndarray]:
        """Yield the clusters of two or more, each as ascending numbers."""
        order = np.argsort(self.first, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.first[order])) + 1)
        return (part for part in parts if len(part) > 1)


def near_duplicates(texts: Sequence[str], minhash: MinHash | None = None, *, verify: float | None = None) -> Clusters:
    """Return the clusters of near-duplicates among texts.

    Args:
        texts: the texts; none and one are no duplicates.
        minhash: bands, rows and shingles; None for the defaults.
        verify: least exact Jaccard similarity of a pair that is joined; None takes the bands' word.

    Raises:
        DataError: `verify` is no similarity.

    Example:
        kept = [texts[i] for i in near_duplicates(texts, verify=0.8).kept]
    """
    minhash = minhash or MinHash()
    similar = None if verify is None else similar_texts(texts, minhash.shingling, verify)
    return join(minhash.keys(texts).T, len(texts), similar)


def similar_texts(texts: Sequence[str], shingling: Shingling, least: float) -> Similar:
    """Return what says whether pairs of texts are as alike as `least`, by exact Jaccard of their shingles.

    Args:
        texts: anything that gives the text of a number; it may read from disk.
        shingling: how they are cut.
        least: in (0, 1].

    Raises:
        DataError: `least` is no similarity.
    """
    if not 0 < least <= 1:
        raise DataError(f"A least similarity of {least} was asked for; give a Jaccard similarity in (0, 1], e.g. 0.8.")

    def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        own, place = np.unique(np.concatenate([a, b]), return_inverse=True)
        sets = [s for batch in batches(texts[i] for i in own.tolist()) for s in shingling.cut(batch).sets()]
        pairs = place.reshape(2, -1).T.tolist()
        return np.array([jaccard(sets[i], sets[j]) >= least for i, j in pairs], bool)

    return similar


def join(columns: Iterable[np.ndarray], count: int, similar: Similar | None = None) -> Clusters:
    """Return the clusters of texts that share a key in some column.

    Args:
        columns: one key for every text, for each band; only one column need be in memory at a time.
        count: how many texts.
        similar: verification; None joins all that meet.
    """
    first = np.arange(count)
    for keys in columns:
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        if similar is None:
            _unite(first, order[:-1][same], order[1:][same])
        else:
            _unite_verified(first, order, same, similar)
    return Clusters(_roots(first, first))


def _roots(first: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the first text of the cluster of each."""
    while True:
        above = first[texts]
        if np.array_equal(above, texts):
            return texts
        texts = above


def _unite(first: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Join pairs: the later root is hung under the earlier one, until each pair has one root."""
    while len(a):
        a, b = _roots(first, a), _roots(first, b)
        apart = a != b
        a, b = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(first, b, a)  # a root hung under several keeps the earliest; the others' turn comes again
    first[:] = _roots(first, first)


def _unite_verified(first: np.ndarray, order: np.ndarray, same: np.ndarray, similar: Similar) -> None:
    """Join the pairs of each bucket that verification takes; pairs already in one cluster are not asked for."""
    for early, late in _bucket_pairs(order, same):
        for i in range(0, len(early), _PAIRS):
            a, b = early[i : i + _PAIRS], late[i : i + _PAIRS]
            apart = _roots(first, a) != _roots(first, b)
            a, b = a[apart], b[apart]
            if len(a):
                alike = similar(a, b)
                _unite(first, a[alike], b[alike])


def _bucket_pairs(order: np.ndarray, same: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs within runs of `order` whose neighbours are the same; of long runs those with the first."""
    run = np.concatenate([[0], np.cumsum(~same)])[: len(order)]
    sizes = np.bincount(run)
    small, starts = sizes[run] <= _BUCKET, np.cumsum(sizes) - sizes
    yield order[starts[run]][~small], order[~small]
    for lag in range(1, _BUCKET):
        pairs = np.flatnonzero((run[lag:] == run[:-lag]) & small[lag:])
        if not len(pairs):
            return
        yield order[pairs], order[pairs + lag]
