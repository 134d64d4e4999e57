"""Flagged words: text with too many words of the user's list. No list comes with the package."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import require_shares
from microtome.data.corpus.phrases import Phrases

__all__ = ["FILTER", "FlaggedWords"]


@dataclass(frozen=True)
class FlaggedWords:
    """Drop what has too many flagged words; languages without a list are kept.

    Attributes:
        words: language -> words and phrases, matched as `Phrases` does.
        most: share of the words (characters, in scripts without spaces) that may be flagged.

    Raises:
        DataError: a list that is empty or holds no words, or a share that is none.

    Example:
        FlaggedWords({"en": ["viagra", "casino online"]}, most=0.02)
    """

    words: Mapping[str, Collection[str]]
    most: float = 0.01
    rank: ClassVar[int | None] = None
    needs: ClassVar[str | None] = None
    _phrases: Phrases = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        require_shares(self, "most")
        object.__setattr__(self, "_phrases", Phrases(self.words))

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        if document.language not in self._phrases:
            return None
        return "flagged words" if self._phrases.share(document.language, document.text) > self.most else None


FILTER = FlaggedWords
