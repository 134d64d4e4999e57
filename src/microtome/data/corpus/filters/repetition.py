"""Repetition: text that says the same again and again, by characters, words and lines.

    repeated = 1 - different n-grams / n-grams        mean over windows of 4,096 characters

Over a whole document the share grows with its length, for any text; over windows it does not, so one threshold serves
a sentence and a book. Word n-grams of scripts without spaces hold as many characters as about make the words
(`scripts`); runs of white space count as one. ROOTS (Laurençon et al. 2022) and Gopher (Rae et al. 2021, arXiv
2112.11446, Table A1) ask the same three things with other formulas; thresholds are ours. Programming languages repeat
lines and turns of phrase by nature: they are asked for words only.
"""

import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import require_shares
from microtome.data.corpus.scripts import gram_length, units
from microtome.data.corpus.source_code import PROGRAMMING

__all__ = ["FILTER", "Repetition", "repeated"]

_WINDOW = 4096


@dataclass(frozen=True)
class Repetition:
    """Drop what repeats itself.

    Attributes:
        most_characters: repeated share of n-grams of characters.
        most_words: repeated share of n-grams of words.
        most_lines: repeated share of lines.
        characters: n of the first.
        words: n of the second.
        least_lines: lines that a text must have for them to be asked.

    Raises:
        DataError: a share that is none, or an n below 1.
    """

    most_characters: float = 0.3
    most_words: float = 0.2
    most_lines: float = 0.3
    characters: int = 10
    words: int = 5
    least_lines: int = 4
    rank: ClassVar[int | None] = 30
    needs: ClassVar[str | None] = None

    def __post_init__(self):
        require_shares(self, "most_characters", "most_words", "most_lines")
        if min(self.characters, self.words, self.least_lines) < 1:
            raise DataError(
                f"Repetition was given n-grams of {self.characters} characters and {self.words} words and "
                f"{self.least_lines} lines; give 1 or more."
            )

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        windows = _windows(document.text)
        if document.language not in PROGRAMMING:
            lines = [line for line in map(str.strip, document.text.split("\n")) if line]
            if len(lines) >= self.least_lines and repeated(lines, 1) > self.most_lines:
                return "repeated lines"
            if _mean(repeated(window, self.characters) for window in windows) > self.most_characters:
                return "repeated characters"
        return "repeated words" if _mean(_repeated_words(w, self.words) for w in windows) > self.most_words else None


def repeated(sequence: Sequence[Hashable], n: int) -> float:
    """Return the share of n-grams that were there before; 0 where there are none.

    Args:
        sequence: a string or a tuple (a list where n is 1).
        n: length of a gram.

    Example:
        repeated("abababab", 2)     # 7 bigrams, ab and ba: 5/7
    """
    total = len(sequence) - n + 1
    if total < 1:
        return 0.0
    grams = sequence if n == 1 else (sequence[at : at + n] for at in range(total))
    return 1 - len(set(grams)) / total


def _windows(text: str) -> list[str]:
    even = " ".join(text.split())
    return [even[start : start + _WINDOW] for start in range(0, len(even), _WINDOW)]


def _repeated_words(window: str, words: int) -> float:
    found = units(window)
    return repeated(found, gram_length(window, words)) if found else 0.0


def _mean(shares: Iterable[float]) -> float:
    return statistics.fmean(found) if (found := list(shares)) else 0.0


FILTER = Repetition
