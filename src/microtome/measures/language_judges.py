"""Judges of language: what language each of some lines is in.

A `Judge` answers with one of its languages, or with None where it cannot tell. `Identifier` asks py3langid (Barbaresi;
after langid.py, Lui and Baldwin 2012) among the languages given, so a language that is not among them passes for the
nearest of them. Measured on the beginnings of NTREX sentences, 300 of each of 12 languages: right for 92 % at two
words, 97 % at three, 99.2 % at five, 99.8 % at eight; worst at five are Japanese and Turkish, 98 %. Other identifiers
(fastText's, of the Language Confusion Benchmark) are other judges.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from microtome.core.errors import MeasureError, did_you_mean

__all__ = ["UNKNOWN", "Identifier", "Judge"]

UNKNOWN = "unknown"
"""What a judged line is counted as that is in no language the judge is sure of; it is an error, as in LCB."""


class Judge(Protocol):
    """Says what languages lines are in.

    Attributes:
        languages: the tags it can answer with.
    """

    languages: tuple[str, ...]

    def __call__(self, lines: Sequence[str]) -> Sequence[str | None]:
        """Return the language of each line, None where it cannot tell."""
        ...


@dataclass(frozen=True)
class Identifier:
    """py3langid, choosing among some languages.

    Attributes:
        languages: tags, two or more.
        least: probability among them below which a line is of no known language.

    Raises:
        MeasureError: py3langid is not installed or does not know a language, fewer than two, or no probability.
    """

    languages: tuple[str, ...]
    least: float = 0.3

    def __post_init__(self):
        if len(set(self.languages)) < 2 or not 0 <= self.least <= 1:
            raise MeasureError(
                f"Languages are told apart among {len(set(self.languages))} with probabilities from {self.least}; give "
                "two or more and a number from 0 to 1."
            )
        known = [name for name, _ in _py3langid(()).rank("")]
        unknown = next((name for name in self.languages if name not in known), None)
        if unknown is not None:
            raise MeasureError(f"py3langid knows no '{unknown}'; leave it out.{did_you_mean(unknown, known)}")

    def __call__(self, lines: Sequence[str]) -> list[str | None]:
        """Return the language of each line, None where the most likely one is not likely enough."""
        found = (_py3langid(tuple(sorted(set(self.languages)))).classify(line) for line in lines)
        return [language if probability >= self.least else None for language, probability in found]


@functools.cache
def _py3langid(languages: tuple[str, ...]) -> Any:
    """Return an identifier of our own, of some languages or (empty) all; py3langid's is the whole process's."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MeasureError(
            f"Languages are told apart by py3langid, found none ({error}); pip install py3langid."
        ) from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if languages:
        identifier.set_languages(languages)
    return identifier
