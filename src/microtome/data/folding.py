"""Folding: a text as matching sees it, and from where in the text each folded letter comes.

Compatibility forms, case and accents do not count (full-width `ａ`, `Ä` and `a` are one letter); zero-width and control
characters vanish; any white space is one space. Marks that tell letters apart in Indic scripts and kana stay. Letters
of other scripts that only look alike (Cyrillic `а`) are not taken for Latin ones.
"""

import functools
import unicodedata

__all__ = ["fold", "fold_character", "folded"]

_FIRST_ACCENT = 10  # combining classes below it: nukta, kana voicing, virama


@functools.lru_cache(maxsize=65536)
def fold_character(character: str) -> str:
    """Return what is left of one character: none, one or several letters, or a space."""
    if character.isspace():
        return " "
    if unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in parts if unicodedata.combining(c) < _FIRST_ACCENT)
    return unicodedata.normalize("NFC", plain).casefold()


def fold(text: str) -> str:
    """Return a text folded."""
    return "".join(map(fold_character, text))


def folded(text: str) -> tuple[str, list[int]]:
    """Return a text folded, and for each letter the index of the character it comes from."""
    parts = [fold_character(c) for c in text]
    return "".join(parts), [at for at, part in enumerate(parts) for _ in part]
