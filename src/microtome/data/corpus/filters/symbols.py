"""Symbols: text that is mostly not words, but digits, punctuation, bullets, broken characters.

    share = characters of a kind / characters that are not white space

The kinds are Unicode's: L and M are letters, N digits, P and S symbols, and broken are C (without tab and line ends)
and U+FFFD. Lines that are bullets or end in an ellipsis are told by their share of the lines, after Gopher's rules
(Rae et al. 2021, arXiv 2112.11446, A.1.1), in texts with enough lines to speak of one. Programming languages are kept:
their symbols are their words.
"""

import functools
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import require_shares
from microtome.data.corpus.source_code import PROGRAMMING

__all__ = ["FILTER", "Symbols"]

_BULLETS = ("•", "‣", "◦", "▪", "■", "●", "·", "* ", "- ", "– ", "— ")
_ELLIPSES = ("...", "…", "⋯", "。。。")
_KINDS = {"L": "letter", "M": "letter", "N": "digit", "P": "symbol", "S": "symbol", "Z": "space"}


@dataclass(frozen=True)
class Symbols:
    """Drop what has too few letters or too much of something else.

    Attributes:
        least_letters: share of letters and their marks.
        most_symbols: share of punctuation and symbols.
        most_digits: share of digits.
        most_broken: share of control, unassigned and replacement characters.
        most_bullets: share of lines that begin with a bullet.
        most_ellipses: share of lines that end in an ellipsis.
        least_lines: lines that a text must have for the last two to be asked.

    Raises:
        DataError: a share that is none, or fewer than 1 line.
    """

    least_letters: float = 0.5
    most_symbols: float = 0.35
    most_digits: float = 0.3
    most_broken: float = 0.01
    most_bullets: float = 0.9
    most_ellipses: float = 0.3
    least_lines: int = 4
    rank: ClassVar[int | None] = 20
    needs: ClassVar[str | None] = None

    def __post_init__(self):
        require_shares(
            self, "least_letters", "most_symbols", "most_digits", "most_broken", "most_bullets", "most_ellipses"
        )
        if self.least_lines < 1:
            raise DataError(f"Symbols was given least_lines={self.least_lines}; give 1 or more.")

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        if document.language in PROGRAMMING:
            return None
        found = _kinds(document.text)
        total = sum(found.values()) - found["space"]
        if total == 0:
            return "no characters but white space"
        for kind, most in (("broken", self.most_broken), ("digit", self.most_digits), ("symbol", self.most_symbols)):
            if found[kind] / total > most:
                return f"too many {kind}s" if kind != "broken" else "broken characters"
        if found["letter"] / total < self.least_letters:
            return "too few letters"
        return self._lines(document.text)

    def _lines(self, text: str) -> str | None:
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if len(lines) < self.least_lines:
            return None
        if sum(line.startswith(_BULLETS) for line in lines) / len(lines) > self.most_bullets:
            return "too many bullets"
        if sum(line.endswith(_ELLIPSES) for line in lines) / len(lines) > self.most_ellipses:
            return "too many ellipses"
        return None


def _kinds(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for character, count in Counter(text).items():
        found[_kind(character)] += count
    return found


@functools.lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    if character.isspace() or unicodedata.category(character) == "Cf":  # joiners and direction marks belong to text
        return "space"
    return "broken" if character == "\ufffd" else _KINDS.get(unicodedata.category(character)[0], "broken")


FILTER = Symbols
