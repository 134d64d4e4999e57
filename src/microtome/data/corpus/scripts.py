"""A text cut into units, whatever its script: words where they are written apart, else characters.

    "Das Haus, 2008"  ->  das haus 2008        "我在北京"  ->  我 在 北 京

Units are folded (`data.folding`); punctuation and symbols part them and vanish; marks stay, so that Indic words are
whole. Han, kana, Thai, Lao, Khmer and Myanmar characters are units each, also inside a text of another script. What is
asked in words (a least length, a 13-gram) is asked of these scripts in characters: about 2 Han or kana and about 4 of
the others make a word. That is a rule of thumb, not segmentation. Tibetan, which parts its syllables, counts these as
words; Hangul and Vietnamese are written in words or syllables apart.
"""

import functools
import unicodedata

from microtome.data.folding import fold_character

__all__ = ["gram_length", "units", "word_count"]

_IDEOGRAPHS = ((0x3005, 0x3007), (0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
               (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
_LETTERS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F))
_CHARACTERS_PER_WORD = {"ideograph": 2, "letter": 4}
_FIRST = "\u0e00"  # no script without spaces lies below it


@functools.lru_cache(maxsize=2)  # filters ask one document after the other for the same text
def units(text: str) -> tuple[str, ...]:
    """Return the units of a text."""
    return tuple(text.translate(_UNITS).split())


def word_count(text: str) -> float:
    """Return about how many words a text has."""
    found = units(text)
    if not found or max(text) < _FIRST:
        return float(len(found))
    kinds = list(map(_kind, found))
    inside = {kind: kinds.count(kind) for kind in _CHARACTERS_PER_WORD}
    apart = len(kinds) - sum(inside.values())
    return apart + sum(count / _CHARACTERS_PER_WORD[kind] for kind, count in inside.items())


def gram_length(text: str, words: int) -> int:
    """Return how many units of a text hold a number of words.

    Args:
        text: with at least one unit.
        words: how many words an n-gram is to have.

    Example:
        gram_length("eine Zeile Text", 13)      # 13
        gram_length("我在北京", 13)              # 26
    """
    return round(words * len(units(text)) / word_count(text))


@functools.lru_cache(maxsize=1 << 16)
def _kind(unit: str) -> str:
    at = ord(unit[0])
    if any(a <= at <= b for a, b in _IDEOGRAPHS):
        return "ideograph"
    return "letter" if any(a <= at <= b for a, b in _LETTERS) else "word"


class _Units(dict):
    """A translation table filled as characters are met: folded, parted by a space where a unit ends."""

    def __missing__(self, code: int) -> str:
        kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in fold_character(chr(code)))
        self[code] = "".join(f" {c} " if c != " " and _kind(c) != "word" else c for c in kept)
        return self[code]


_UNITS = _Units()
