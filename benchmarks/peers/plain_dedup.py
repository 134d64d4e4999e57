"""Documents with planted near-duplicates, and MinHash as it stands in the books: a text after another, in NumPy.

Documents are the phrasebook's, which is data and needs NumPy alone, so that every environment reads it from our source;
nothing else of ours is imported here. Of some documents a near-duplicate is planted: half of them lose their last two
words, the others have one word in the middle replaced (a Jaccard similarity of words by fives of about .95 and .8).
"""

import hashlib
import importlib
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

__all__ = ["BANDS", "ROWS", "WORDS", "Planted", "near_duplicates", "phrasebook", "planted"]

SOURCE = Path(__file__).parents[2] / "src"
BANDS, ROWS, WORDS = 14, 8, 5
LEAST = 30  # words of a document that has a near-duplicate


@dataclass(frozen=True, eq=False)
class Planted:
    """Documents, some of them near-duplicates of others.

    Attributes:
        texts: in random order.
        pairs: numbers of each planted pair, [pairs, 2].
    """

    texts: Sequence[str]
    pairs: np.ndarray

    def recall(self, first: np.ndarray) -> float:
        """Return the share of the planted pairs that are in one cluster.

        Args:
            first: the first text of each one's cluster, [texts].
        """
        return float((first[self.pairs[:, 0]] == first[self.pairs[:, 1]]).mean())

    def others(self, first: np.ndarray) -> int:
        """Return how many texts were removed that are of no planted pair."""
        alone = np.setdiff1d(np.arange(len(self.texts)), self.pairs)
        return int((first[alone] != alone).sum())


def phrasebook() -> ModuleType:
    """Return the phrasebook, installed or not."""
    if str(SOURCE) not in sys.path:
        sys.path.append(str(SOURCE))
    return importlib.import_module("microtome.data.phrasebook")


def planted(count: int, twice: int) -> Planted:
    """Return English documents, and near-duplicates of some of them.

    Args:
        count: documents, without the near-duplicates.
        twice: how many have one; no more than there are of 30 words or more.
    """
    rng = random.Random(0)
    texts = [document.text for document in phrasebook().documents("en", count)]
    long = [number for number, text in enumerate(texts) if text.count(" ") >= LEAST]
    chosen = rng.sample(long, twice)
    texts += [_changed(texts[number], rng, bool(k % 2)) for k, number in enumerate(chosen)]
    place = np.array(rng.sample(range(len(texts)), len(texts)))
    pairs = np.stack([place[chosen], place[count:]], 1)
    order = np.argsort(place)
    return Planted([texts[i] for i in order], pairs)


def _changed(text: str, rng: random.Random, cut: bool) -> str:
    words = text.split(" ")
    if cut:
        return " ".join(words[:-2])
    words[rng.randrange(WORDS, len(words) - WORDS)] = "perhaps"
    return " ".join(words)


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """Return the first text of each one's cluster, [texts]."""
    a, b = np.random.default_rng(0).integers(0, 1 << 64, (2, BANDS * ROWS), np.uint64)
    first = list(range(len(texts)))
    seen: dict[tuple[int, bytes], int] = {}
    for number, text in enumerate(texts):
        hashes = _shingles(text)
        signature = ((hashes[:, None] * (a | np.uint64(1)) + b) >> np.uint64(32)).min(0)
        for band, key in enumerate(signature.reshape(BANDS, ROWS)):
            _unite(first, seen.setdefault((band, key.tobytes()), number), number)
    return np.array([_root(first, number) for number in range(len(texts))])


def _shingles(text: str) -> np.ndarray:
    words = re.findall(r"\w+", text.lower())
    runs = {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
    digests = [hashlib.blake2b(run.encode(), digest_size=8).digest() for run in runs]
    return np.frombuffer(b"".join(digests), np.uint64)


def _root(first: list[int], number: int) -> int:
    while first[number] != number:
        first[number] = number = first[first[number]]
    return number


def _unite(first: list[int], a: int, b: int) -> None:
    a, b = _root(first, a), _root(first, b)
    first[max(a, b)] = min(a, b)
