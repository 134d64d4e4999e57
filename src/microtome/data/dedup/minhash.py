r"""MinHash: how alike two texts are, from a few numbers of each; and the bands that let likely pairs meet.

    signature_k(A) = min over shingles x of A of (a_k x + b_k mod 2^64) >> 32        P(equal) = Jaccard(A, B)
    two texts meet when all rows of a band are equal                P(some band) = 1 - (1 - s^rows)^bands

Broder 1997; banding as in Leskovec, Rajaraman & Ullman, chapter 3; 14 bands of 8 rows are datatrove's, with which texts
of similarity .8 meet with probability .924 and of .5 with .053. FuxiTranyu (arXiv 2408.06273, section 3.2) deduplicates
by MinHash and states no numbers of its own. Texts that meet may still differ: `clusters` can verify.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.data.dedup.shingles import Shingles, Shingling
from microtome.data.hashing import mix64, odd_constants

__all__ = ["BANDS", "ROWS", "MinHash", "batches", "recall"]

BANDS, ROWS = 14, 8
_TEXTS, _CHARACTERS = 1024, 1 << 20  # most at once: tens of MB while they are cut
_SHINGLES = 1 << 14  # hashed at once: they stay in the processor's cache while all permutations pass over them


def recall(similarity: float | np.ndarray, bands: int = BANDS, rows: int = ROWS) -> float | np.ndarray:
    """Return the probability that two texts of a Jaccard similarity meet in some band.

    Args:
        similarity: in [0, 1].
        bands: number of bands.
        rows: rows of each.
    """
    return 1 - (1 - similarity**rows) ** bands


@dataclass(frozen=True)
class MinHash:
    """Signatures of texts, and their bands' keys.

    Attributes:
        bands: number of bands.
        rows: rows of each; bands x rows permutations in all.
        shingling: how texts are cut.
        seed: of the permutations.

    Raises:
        DataError: a number below 1.

    Example:
        minhash = MinHash(shingling=Shingling(words=3))
        keys = minhash.keys(texts)                       # [texts, 14]
    """

    bands: int = BANDS
    rows: int = ROWS
    shingling: Shingling = field(default_factory=Shingling)
    seed: int = 0

    def __post_init__(self):
        if self.bands < 1 or self.rows < 1:
            raise DataError(f"MinHash was asked for {self.bands} bands of {self.rows} rows; give 1 or more of each.")

    def signatures(self, texts: Sequence[str]) -> np.ndarray:
        """Return the signatures, [texts, bands x rows] uint32; the share of equal entries estimates Jaccard."""
        found = [self._minima(self.shingling.cut(batch)) for batch in batches(texts)]
        return np.concatenate([np.empty((0, self.bands * self.rows), np.uint32), *found])

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        """Return one number for every band, [texts, bands] uint64: equal where all rows of the band are."""
        found = [self.band(self.signatures(batch)) for batch in batches(texts)]
        return np.concatenate([np.empty((0, self.bands), np.uint64), *found])

    def band(self, signatures: np.ndarray) -> np.ndarray:
        """Return the keys of signatures."""
        rows = mix64(signatures).reshape(-1, self.bands, self.rows)
        return mix64((rows * odd_constants(self.rows)).sum(-1, dtype=np.uint64))

    def _minima(self, shingles: Shingles) -> np.ndarray:
        drawn = generator(self.seed, "minhash").integers(0, 1 << 64, (2, self.bands * self.rows), np.uint64)
        found = np.empty((len(shingles.counts), self.bands * self.rows), np.uint64)
        scaled = np.empty(int(shingles.counts.max()) + _SHINGLES, np.uint64)
        for texts in _runs(shingles):
            start = int(shingles.starts[texts.start])
            hashes = shingles.hashes[start : start + int(shingles.counts[texts].sum())]
            own, begins = scaled[: len(hashes)], shingles.starts[texts] - start
            for k, (a, b) in enumerate(zip(drawn[0] | np.uint64(1), drawn[1], strict=True)):
                np.multiply(hashes, a, out=own)
                own += b
                np.minimum.reduceat(own, begins, out=found[texts, k])
        return (found >> np.uint64(32)).astype(np.uint32)  # the least number has the least upper half


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts some at a time, so many that numpy is worth its calls and so few that memory stays small.

    Args:
        texts: read once.
    """
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if len(held) == _TEXTS or size >= _CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _runs(shingles: Shingles) -> Iterator[slice]:
    """Yield runs of texts, each of about as many shingles as stay in the cache, or of one text."""
    held = np.cumsum(shingles.counts)
    start = 0
    while start < len(held):
        before = held[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(held, before + _SHINGLES, side="right")))
        yield slice(start, stop)
        start = stop
