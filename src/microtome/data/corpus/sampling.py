"""Samples of a stream that depend neither on its order nor on how it is cut into shards.

Every item has a priority, a hash of (seed, key); the sample is the k items of least priority ("bottom-k", Cohen and
Kaplan, PODC 2007). It is uniform without replacement over different keys, k items are all it holds, and the bottom k of
two samples together are the bottom k of the two streams. An item met twice under one key counts once.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, TypeVar

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document

__all__ = ["Reservoir", "priority", "sample_documents"]

Item = TypeVar("Item")


def priority(seed: int, key: str) -> float:
    """Return a number in [0, 1) drawn for a key; other keys and seeds draw independently.

    Args:
        seed: of the draw, 0 or more.
        key: any text.
    """
    return (_drawn(seed, key) >> 75) / (1 << 53)


def _drawn(seed: int, key: str) -> int:
    """Return the 128 bits that are a key's priority and stand for the key."""
    salt = seed.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, salt=salt).digest())


class Reservoir(Generic[Item]):
    """The k items of least priority seen so far.

    Args:
        size: k.
        seed: of the priorities, 0 or more.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size, self.seed = size, seed
        self._heap: list[tuple[int, Item]] = []  # negative priorities: the first is the next to go
        self._held: set[int] = set()

    def add(self, key: str, item: Item) -> None:
        """Offer an item; one whose key is there already is passed over."""
        self._offer(_drawn(self.seed, key), item)

    def merge(self, other: "Reservoir[Item]") -> None:
        """Take in the sample of another stream of the same seed."""
        for negative, item in other._heap:
            self._offer(-negative, item)

    def items(self) -> list[Item]:
        """Return the sample, least priority first."""
        return [item for _, item in sorted(self._heap, key=lambda held: -held[0])]

    def _offer(self, drawn: int, item: Item) -> None:
        full = len(self._heap) >= self.size
        if not self.size or drawn in self._held or (full and drawn > -self._heap[0][0]):
            return
        self._held.add(drawn)
        if full:
            self._held.remove(-heapq.heapreplace(self._heap, (-drawn, item))[0])
        else:
            heapq.heappush(self._heap, (-drawn, item))


def sample_documents(documents: Iterable[Document], per_language: int, *, seed: int = 0) -> list[Document]:
    """Return as many documents of every language, or all where there are fewer; the same whatever the order.

    Args:
        documents: read once, streaming; the sample alone is held.
        per_language: how many of each, at least 1.
        seed: of the draw, 0 or more.

    Returns:
        The documents, by language in order.

    Raises:
        DataError: none was asked for, or there are no documents.

    Example:
        reference = sample_documents(read_corpus("corpus"), 20_000)
        chain = Chain([*default_filters(), Perplexity.fit(reference)])
    """
    if per_language < 1:
        raise DataError(f"A sample of {per_language} documents of a language was asked for; ask for at least 1.")
    held: defaultdict[str, Reservoir[Document]] = defaultdict(lambda: Reservoir(per_language, seed))
    for document in documents:
        held[document.language].add(document.key, document)
    if not held:
        raise DataError("A sample was asked of a corpus, found no documents in it; check the path and its layout.")
    return [document for language in sorted(held) for document in held[language].items()]
