"""What counts as the same text when duplicates are looked for, and which scripts are written without spaces.

Case, compatibility forms, white space, control and zero-width characters do not count, nor do the marks that writers of
Arabic and Hebrew may leave out (vowel points, tatweel). All other accents do: Vietnamese `ma`, `má` and `mà` are three
words, so `data.folding`, made to find names however they are spelt, would here throw texts away that are no duplicates.
"""

import re
import unicodedata

__all__ = ["bare_words", "canonical", "without_spaces"]

_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
)
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aaf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Tai Tham, kana and Han."""


class _Table(dict):
    """What `str.translate` makes of each character, filled as characters are met; `bare` has no punctuation."""

    def __init__(self, bare: bool):
        super().__init__()
        self.dropped = "PS" if bare else ""

    def __missing__(self, code: int) -> str | None:
        character, kind = chr(code), unicodedata.category(chr(code))
        if character.isspace() or kind[0] in self.dropped:
            self[code] = " "
        elif kind in ("Cc", "Cf") or _OPTIONAL.match(character):
            self[code] = None
        else:
            self[code] = character
        return self[code]


_FOLDED, _BARE = _Table(bare=False), _Table(bare=True)


def canonical(text: str) -> str:
    """Return a text as comparison sees it: words with single spaces between them, punctuation kept.

    Args:
        text: any text, lone surrogates and all.

    Example:
        >>> canonical("  Ｔｅｎ\u00a0 CAFÉS\u200b! ")
        'ten cafés!'
    """
    return _translated(text, _FOLDED)


def bare_words(text: str) -> str:
    """Return a text's words with single spaces between them; empty where there is nothing but punctuation."""
    return _translated(text, _BARE)


def without_spaces(text: str) -> bool:
    """Say whether most of a text is in scripts that put no spaces between words."""
    if text.isascii():
        return False
    return 2 * len(_UNSPACED.findall(text)) > len("".join(text.split()))


def _translated(text: str, table: _Table) -> str:
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(whole.translate(table).split())
