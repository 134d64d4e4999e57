"""Stop words: text with too few of a language's most frequent words is a list or a menu, not prose, or of another one.

No list comes with the package; `data` of NLTK, spaCy or stopwords-iso have them. Short texts may lack them by chance.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import require_shares
from microtome.data.corpus.phrases import Phrases
from microtome.data.corpus.scripts import word_count

__all__ = ["FILTER", "StopWords"]


@dataclass(frozen=True)
class StopWords:
    """Drop what has too few stop words; languages without a list are kept.

    Attributes:
        words: language -> its stop words, matched as `Phrases` does.
        least: share of the words (characters, in scripts without spaces) that must be stop words.
        least_words: about how many words a text must have to be judged.

    Raises:
        DataError: a list that is empty or holds no words, a share that is none, or a negative number of words.
    """

    words: Mapping[str, Collection[str]]
    least: float = 0.05
    least_words: int = 20
    rank: ClassVar[int | None] = None
    needs: ClassVar[str | None] = None
    _phrases: Phrases = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        require_shares(self, "least")
        if self.least_words < 0:
            raise DataError(f"StopWords was given least_words={self.least_words}; give 0 or more.")
        object.__setattr__(self, "_phrases", Phrases(self.words))

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        if document.language not in self._phrases or word_count(document.text) < self.least_words:
            return None
        return "too few stop words" if self._phrases.share(document.language, document.text) < self.least else None


FILTER = StopWords
