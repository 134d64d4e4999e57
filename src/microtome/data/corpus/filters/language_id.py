"""Language identification: text that is not of the language it is said to be in.

py3langid (Barbaresi; 0.4 or later; after langid.py, Lui and Baldwin 2012) gives its 140 languages probabilities;
a text is dropped where its own has too little. Short texts say too little and are kept, as are languages that the model
does not know, programming languages among them. Lists of names and technical terms are taken for any language.

Measured on NTREX (18 languages, a fifth of the sentences): of those called by their own language 0.13 % are dropped at
the default, of those called by another of the 18 all but 0.02 % are.
"""

import functools
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.documents import Document
from microtome.data.corpus.filters import installed

__all__ = ["FILTER", "LanguageId"]

_JUDGED = 4096  # characters from the beginning that are looked at


@dataclass(frozen=True)
class LanguageId:
    """Drop what the identifier is sure to be of another language.

    Attributes:
        least: probability of the document's own language.
        shortest: characters that a text must have to be judged.
        languages: the only ones looked for; empty for all that the model knows.

    Raises:
        DataError: py3langid is not installed, a probability that is none, or a language that the model does not know.
    """

    least: float = 0.05
    shortest: int = 30
    languages: tuple[str, ...] = ()
    rank: ClassVar[int | None] = 40
    needs: ClassVar[str | None] = "py3langid"

    def __post_init__(self):
        if not installed(self.needs):
            raise DataError("Languages are identified by py3langid, which is not installed; pip install py3langid.")
        if not 0 <= self.least <= 1:
            raise DataError(f"LanguageId was given least={self.least!r}; it is a probability, from 0 to 1.")
        for language in self.languages:
            known = _known(())
            if language not in known:
                raise DataError(f"py3langid knows no '{language}'; leave it out.{did_you_mean(language, known)}")

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped."""
        own = re.split("[-_]", document.language.lower(), maxsplit=1)[0]
        chosen = tuple(sorted(self.languages))
        if len(document.text) < self.shortest or own not in _known(chosen):
            return None
        text = document.text[:_JUDGED]
        if _identifier(chosen).classify(text)[0] == own:
            return None
        return "another language" if dict(_identifier(chosen).rank(text))[own] < self.least else None


@functools.cache
def _identifier(languages: tuple[str, ...]) -> Any:
    """Return an identifier of our own, of some languages or (empty) all; py3langid's is the whole process's."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if languages:
        identifier.set_languages(languages)
    return identifier


@functools.cache
def _known(languages: tuple[str, ...]) -> frozenset[str]:
    return frozenset(language for language, _ in _identifier(languages).rank(""))


FILTER = LanguageId
