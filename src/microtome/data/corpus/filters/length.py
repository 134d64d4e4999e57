"""Length: documents of too few characters or words, or of too many characters.

The defaults suit corpora of a sentence a line; for web pages, 200 characters and 50 words are usual. Words of scripts
without spaces are counted from characters (`scripts`): two words are four Han characters.
"""

from dataclasses import dataclass
from typing import ClassVar

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document
from microtome.data.corpus.scripts import word_count

__all__ = ["FILTER", "Length"]


@dataclass(frozen=True)
class Length:
    """Drop what is too short or too long.

    Attributes:
        least_characters: of the text without white space around it.
        most_characters: likewise.
        least_words: about, in scripts without spaces.

    Raises:
        DataError: a negative threshold, or a least above the most.
    """

    least_characters: int = 6
    most_characters: int = 1_000_000
    least_words: float = 2
    rank: ClassVar[int | None] = 10
    needs: ClassVar[str | None] = None

    def __post_init__(self):
        if not (0 <= self.least_characters <= self.most_characters and self.least_words >= 0):
            raise DataError(
                f"Length was given {self.least_characters} to {self.most_characters} characters and {self.least_words} "
                "words; give none below 0 and a least at most the most."
            )

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        size = len(document.text.strip())
        if size < self.least_characters:
            return "too few characters"
        if size > self.most_characters:
            return "too many characters"
        return "too few words" if word_count(document.text) < self.least_words else None


FILTER = Length
