"""Shingles: a text as the set of its n-grams, each a 64-bit number, made for many texts at once.

    h(w_i ... w_{i+n-1}) = mix( sum_j c_j * h(w_{i+j}) )    h(word) = mix( sum_j p^j * mix(character_j) )    modulo 2^64

n words, or n characters in scripts without spaces, where words cannot be had by looking for spaces. Two texts are as
alike as their sets: |A and B| / |A or B| (Jaccard 1901; Broder 1997). A text shorter than n is one shingle, its whole.
Words are hashed character by character in numpy, so that no Python runs for a word: the price is that a collision of
two of a corpus' shingles, 1 in 2^64 a pair, is not looked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.data.dedup.canonical import bare_words, canonical, without_spaces
from microtome.data.hashing import mix64, odd_constants

__all__ = ["Shingles", "Shingling", "jaccard"]

_BY = ("auto", "words", "characters")
_STEP = np.uint64(0x100000001B3)  # odd, so that every power of it is too
_SPACE = 32


class Shingles(NamedTuple):
    """Shingles of several texts one after another; one that recurs in a text is there as often as it recurs.

    Attributes:
        hashes: [shingles] uint64.
        counts: how many are each text's, at least 1, [texts].
    """

    hashes: np.ndarray
    counts: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each text's shingles begin, [texts]."""
        return np.cumsum(self.counts) - self.counts

    def sets(self) -> list[np.ndarray]:
        """Return each text's shingles once each, ascending."""
        return [np.unique(part) for part in np.split(self.hashes, np.cumsum(self.counts)[:-1])]


@dataclass(frozen=True)
class Shingling:
    """How texts are cut.

    Attributes:
        words: words in a shingle.
        characters: characters in a shingle where a script has no spaces; 8 hold about as much as 5 words of Chinese.
        by: `auto` looks at each text's script; `words` or `characters` for all.

    Raises:
        DataError: another way, or a length below 1.
    """

    words: int = 5
    characters: int = 8
    by: str = "auto"

    def __post_init__(self):
        if self.by not in _BY:
            raise DataError(f"No shingles by '{self.by}'; choose {', '.join(_BY)}.{did_you_mean(self.by, _BY)}")
        if min(self.words, self.characters) < 1:
            raise DataError(
                f"Shingles of {self.words} words or {self.characters} characters were asked for; give 1 or more."
            )

    def cut(self, texts: Sequence[str]) -> Shingles:
        """Return the shingles of texts.

        Args:
            texts: at least one; a text of punctuation alone is cut as it stands, blank ones are all alike.
        """
        prepared = [bare_words(text) or canonical(text) or "\0" for text in texts]
        dense = [self.by == "characters" or (self.by == "auto" and without_spaces(text)) for text in prepared]
        spelt = [" ".join(t.replace(" ", "")) if d else t for t, d in zip(prepared, dense, strict=True)]
        sizes = np.where(dense, self.characters, self.words)
        counts = np.array([text.count(" ") + 1 for text in spelt])
        return _windows(_words(" ".join(spelt)), counts, sizes)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets of shingles, each ascending and without repeats (`Shingles.sets`)."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _words(text: str) -> np.ndarray:
    """Hash every word of a text whose words have one space between them."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    spaces = np.flatnonzero(codes == _SPACE)
    starts = np.concatenate([[0], spaces + 1])
    lengths = np.diff(np.append(starts, len(codes) + 1))
    place = np.arange(len(codes)) - np.repeat(starts, lengths)[: len(codes)]
    powers = np.multiply.accumulate(np.full(lengths.max(), _STEP))
    values = mix64(codes) * powers[place]
    values[spaces] = 0
    return mix64(np.add.reduceat(values, starts))


def _windows(words: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> Shingles:
    """Combine every run of `sizes` words that lies within a text; fewer words make one run."""
    size = np.minimum(sizes, counts)
    held = counts - size + 1
    first = np.cumsum(counts) - counts - (np.cumsum(held) - held)
    begins = np.arange(held.sum()) + np.repeat(first, held)
    own = np.repeat(size, held)
    total = np.zeros(len(begins), np.uint64)
    for j, constant in enumerate(odd_constants(int(size.max()))):
        inside = np.flatnonzero(own > j) if j >= size.min() else slice(None)
        total[inside] += words[begins[inside] + j] * constant
    return Shingles(mix64(total), held)
