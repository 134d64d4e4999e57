"""A lexicon as a scorer: which of the user's words stand in a text, and where, to the character.

Words and text are folded alike (`data.folding`), so case, accents, full-width forms and zero-width characters do not
hide a word. Two rules:

    boundaries   a word must not go on before or after, in scripts that put spaces between words; Chinese, Japanese,
                 Thai, Lao, Khmer and Burmese have none, so there a term is found anywhere
    leet         `4` and `@` may stand for a, `8` for b, `3` for e, `9` for g, `1` `!` `|` for i and l, `0` for o,
                 `5` `$` for s, `7` `+` for t, as long as one letter stands as it is (`505` is not `sos`)

No lexicon comes with the package. Inflected forms, spaced-out letters and letters repeated are found only if listed.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError, MeasureError
from microtome.data.folding import fold, folded
from microtome.data.labelled.files import read_text

__all__ = ["UNSPACED", "Flag", "Lexicon"]

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts without spaces between words, as inside of a regular expression's brackets."""

_LEET = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!|", "l": "1|!", "o": "0", "s": "5$", "t": "7+"}
_WORD = f"[^\\W{UNSPACED}]"


class Flag(NamedTuple):
    """A word found: characters from `start` to one past the last, and the term it is."""

    start: int
    end: int
    term: str


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Terms with weights; a text's score is the largest weight of a term in it, 0 where there is none.

    Attributes:
        weights: term -> weight, above 0 and at most 1; terms are folded, several words with one space between.
        leet: whether digits and signs may stand for letters.

    Raises:
        DataError: no terms, a blank one, or a weight out of range.

    Example:
        lexicon = Lexicon.of(["grubnak"])
        lexicon.spans("You GRÜBN4K!")       # [(4, 11)]
    """

    weights: Mapping[str, float]
    leet: bool = True
    family: str = field(default="lexicon", init=False)

    def __post_init__(self):
        terms = {" ".join(fold(term).split()): float(weight) for term, weight in self.weights.items()}
        bad = [t for t, w in terms.items() if not t or not 0 < w <= 1]
        if not terms or bad:
            found = f"'{bad[0]}' of weight {terms[bad[0]]}" if bad else "none"
            raise DataError(f"A lexicon needs terms with weights above 0 and at most 1, found {found}; mend the list.")
        object.__setattr__(self, "weights", terms)

    @classmethod
    def of(cls, terms: Iterable[str], *, leet: bool = True) -> "Lexicon":
        """Return the lexicon of some terms, each of weight 1."""
        return cls(dict.fromkeys(terms, 1.0), leet)

    @classmethod
    def read(cls, path: Path | str, *, leet: bool = True, encoding: str = "utf-8-sig") -> "Lexicon":
        """Return the lexicon in a file: JSON (a list, or an object whose keys are the terms), else a term a line.

        Args:
            path: the file; in text files blank lines and those that begin with # are passed over.
            leet: whether digits and signs may stand for letters.
            encoding: of the file.

        Raises:
            DataError: no such file, wrong encoding, or no terms in it.
        """
        text = read_text(path, encoding)
        if Path(path).suffix != ".json":
            lines = (line.strip() for line in text.splitlines())
            return cls.of((line for line in lines if line and not line.startswith("#")), leet=leet)
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"'{path}' is not JSON ({error}); give a list of terms.") from error
        if not isinstance(content, list | dict) or not all(isinstance(term, str) for term in content):
            raise DataError(f"'{path}' should hold a list of terms, found {type(content).__name__}; mend it.")
        return cls.of(content, leet=leet)

    @functools.cached_property
    def origin(self) -> str:
        """A digest of terms and rules."""
        content = json.dumps([sorted(self.weights.items()), self.leet]).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def flags(self, text: str) -> list[Flag]:
        """Return the words found, from left to right, none overlapping, the longest where several begin together."""
        letters, places = folded(text)
        found = []
        for match in self._pattern.finditer(letters):
            said = " ".join(match.group().split())
            if said in self.weights or any(c.isalpha() for c in said):
                term = said if said in self.weights else self._by_shape[_shape(said)]
                found.append(Flag(places[match.start()], places[match.end() - 1] + 1, term))
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where words were found, in characters."""
        return [(flag.start, flag.end) for flag in self.flags(text)]

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the largest weight found in each text, [texts].

        Raises:
            MeasureError: one text instead of a list.
        """
        if isinstance(texts, str):
            raise MeasureError("scores takes a list of texts, found one string; write [text].")
        return np.array([max((self.weights[f.term] for f in self.flags(t)), default=0.0) for t in texts])

    @functools.cached_property
    def _by_shape(self) -> dict[str, str]:
        return {_shape(term): term for term in sorted(self.weights, reverse=True)}

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        tree: dict = {}
        for term in sorted(self.weights):
            node = tree
            for letter in term:
                node = node.setdefault(letter, {})
            node[""] = _after(term[-1])
        heads = [_before(c) + _letter(c, self.leet) + _branches(tree[c], self.leet) for c in sorted(tree)]
        return re.compile("|".join(heads))


def _shape(term: str) -> str:
    """Return a word with all that may stand for one another made one."""
    return term.translate(_SHAPES)


_SHAPES = str.maketrans({sign: letter for letter, signs in _LEET.items() for sign in signs} | {"i": "l"})


def _letter(letter: str, leet: bool) -> str:
    if letter == " ":
        return " +"
    return f"[{re.escape(letter + _LEET[letter])}]" if leet and letter in _LEET else re.escape(letter)


def _before(letter: str) -> str:
    return f"(?<!{_WORD})" if re.match(_WORD, letter) else ""


def _after(letter: str) -> str:
    return f"(?!{_WORD})" if re.match(_WORD, letter) else ""


def _branches(node: dict, leet: bool) -> str:
    """Return the pattern of what may follow, longer ways first."""
    ways = [_letter(c, leet) + _branches(below, leet) for c, below in node.items() if c]
    if "" in node:
        ways.append(node[""])
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"
