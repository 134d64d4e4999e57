"""Lists of words by language, and how much of a text they make.

Words and phrases are matched as units (`scripts`): whole words where words are written apart, so that `ass` is not
found in `class`; runs of characters elsewhere, where a run may also be parts of two neighbouring words.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from microtome.core.errors import DataError
from microtome.data.corpus.scripts import units

__all__ = ["Phrases"]


@dataclass(frozen=True)
class Phrases:
    """Words and phrases of languages, ready to be found.

    Attributes:
        words: language -> its words and phrases.

    Raises:
        DataError: no language, a list that is empty or one string, or a word without letters or digits.
    """

    words: Mapping[str, Collection[str]]
    _by_first: Mapping[str, Mapping[str, tuple[tuple[str, ...], ...]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if not self.words:
            raise DataError("Word lists were asked for, found none; give a mapping of language -> words.")
        object.__setattr__(self, "_by_first", {language: _indexed(language, w) for language, w in self.words.items()})

    def __contains__(self, language: str) -> bool:
        return language in self._by_first

    def share(self, language: str, text: str) -> float:
        """Return the share of a text's units that belong to words of the list; 0 where it has no units.

        Args:
            language: one of those with a list.
            text: any text.
        """
        found, by_first = units(text), self._by_first[language]
        at = covered = 0
        while at < len(found):
            length = next((len(p) for p in by_first.get(found[at], ()) if found[at : at + len(p)] == p), 0)
            covered += length
            at += length or 1
        return covered / len(found) if found else 0.0


def _indexed(language: str, words: Collection[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return first unit -> the phrases that begin with it, longest first."""
    if isinstance(words, str) or not words:
        raise DataError(f"The words of '{language}' are {words!r}; give a collection of one word or more.")
    by_first: dict[str, set[tuple[str, ...]]] = {}
    for word in words:
        phrase = units(word)
        if not phrase:
            raise DataError(f"The words of '{language}' hold {word!r}, which has no letter or digit; leave it out.")
        by_first.setdefault(phrase[0], set()).add(phrase)
    return {first: tuple(sorted(phrases, key=lambda p: (-len(p), p))) for first, phrases in by_first.items()}
