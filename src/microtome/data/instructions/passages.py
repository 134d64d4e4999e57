"""Passages of a corpus from which instructions are made: short, on one line, with words that can be asked for.

Where words are written apart a passage is counted in words, else two characters count as one. Which passages are held
out is decided by their text alone, whatever the seed and the corpus around them: what is made of the one part shares no
passage with what is made of the other.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError
from microtome.data.corpus.sampling import priority
from microtome.data.corpus.scripts import word_count
from microtome.data.dedup.canonical import without_spaces

__all__ = ["PARTS", "Passage", "passages"]

PARTS = ("train", "held_out")
_SHORTEST = 6  # words
_LETTERS = 4  # of a word that is asked for
_INSIDE = "'’-\u200c\u200d"  # what may stand inside a word
_END = re.compile(r"[.!?。！？।؟…]+[\"'”’»」』)]*(?=\s|$)|[。！？]")


@dataclass(frozen=True)
class Passage:
    """A piece of text.

    Attributes:
        text: on one line.
        language: tag.
        spaced: whether its words are written apart.
        spans: where words to ask for begin and end; at least one.
    """

    text: str
    language: str
    spaced: bool
    spans: tuple[tuple[int, int], ...]

    def halves(self, rng: np.random.Generator) -> tuple[str, str]:
        """Return the passage in two, cut between words in its middle third if there is such a place."""
        size = len(self.text)
        places = [m.start() for m in re.finditer(" ", self.text)] if self.spaced else list(range(1, size))
        middle = [p for p in places if size <= 3 * p <= 2 * size] or [min(places, key=lambda p: abs(2 * p - size))]
        at = int(rng.choice(middle))
        return self.text[:at].strip(), self.text[at:].strip()

    def span(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return where one of its words begins and ends."""
        return self.spans[int(rng.integers(len(self.spans)))]


def passages(
    texts: Sequence[str], language: str, *, part: str, held_out: float, longest: int, rng: np.random.Generator
) -> Iterator[Passage]:
    """Yield passages of one part without end, in random order, each text once before any comes again.

    Args:
        texts: of the corpus; the beginning of each is used.
        language: their tag.
        part: `train` or `held_out`.
        held_out: share of passages that are held out.
        longest: words.
        rng: of the order.

    Raises:
        DataError: no text of this part that is long enough.
    """
    while True:
        found = False
        for place in rng.permutation(len(texts)):
            passage = _passage(texts[int(place)], language, longest)
            if passage is not None and (priority(0, f"held out\0{passage.text}") < held_out) == (part == "held_out"):
                found = True
                yield passage
        if not found:
            raise DataError(
                f"Instructions of part '{part}' were asked for, found no text of {_SHORTEST} words or more in the "
                f"{len(texts)} of '{language}'; give more text or leave the language out."
            )


def _passage(text: str, language: str, longest: int) -> Passage | None:
    """Return the beginning of a text, to the end of a sentence if there is one in time; None where it is too short."""
    line = " ".join(text[: 64 * longest].split())
    spaced = not without_spaces(line)
    cut = " ".join(line.split(" ")[:longest]) if spaced else line[: 2 * longest].strip()
    if len(cut) < len(line):
        ends = [m.end() for m in _END.finditer(cut) if 2 * m.end() > len(cut)]
        cut = cut[: ends[-1]] if ends else cut
    spans = tuple(_words(cut) if spaced else _pairs(cut))
    if word_count(cut) < _SHORTEST or not spans or not cut.isprintable():
        return None
    return Passage(cut, language, spaced, spans)


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Yield where words of some letters stand, without the punctuation around them."""
    for word in re.finditer(r"\S+", text):
        first, last = word.span()
        while first < last and unicodedata.category(text[first])[0] not in "LMN":
            first += 1
        while last > first and unicodedata.category(text[last - 1])[0] not in "LMN":
            last -= 1
        if _is_word(text[first:last]):
            yield first, last


def _is_word(text: str) -> bool:
    """Say whether a piece of text is all letters, and enough of them; a syllable of Hangul is two."""
    letters = sum(1 + ("\uac00" <= c <= "\ud7a3") for c in text if c.isalpha())
    return letters >= _LETTERS and all(unicodedata.category(c)[0] in "LM" or c in _INSIDE for c in text)


def _pairs(text: str) -> Iterator[tuple[int, int]]:
    """Yield where two letters stand side by side that are not of a script with spaces."""
    for first in range(len(text) - 1):
        if all(c.isalpha() and c > "\u0e00" for c in text[first : first + 2]):
            yield first, first + 2
