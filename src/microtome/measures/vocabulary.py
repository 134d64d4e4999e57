"""What the tokens of a vocabulary are: their bytes, whether they are a lone byte of a character, and their script.

Three kinds of tokenizer spell their tokens in three ways: byte-level BPE writes each byte as a printable character
(GPT-2's table, rebuilt here from its rule), SentencePiece writes text with `▁` for a space and `<0xE4>` for a byte it
has no piece for, and WordPiece writes `##` before what does not begin a word. The script of a token is that of most of
its letters, by the first word of their Unicode names (Han is called CJK there).
"""

import functools
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np

__all__ = ["Vocabulary", "script_of"]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MARKUP = re.compile(r"<\|[^|]*\|>")
_RENAMED = {"CJK": "Han", "IDEOGRAPHIC": "Han"}


class Vocabulary:
    """The tokens of a tokenizer.

    Args:
        tokenizer: anything with transformers' interface.

    Attributes:
        size: number of ids, special ones and holes included.
        pieces: bytes of each token, by id; None where it is special, looks like markup (`<|...|>`) or is a hole.
        lone: [size] whether a token is a single byte that is no character of its own.
    """

    def __init__(self, tokenizer: Any):
        found = tokenizer.get_vocab()
        self.size = 1 + max(found.values(), default=-1)
        kind, special = _kind(tokenizer, found), set(tokenizer.all_special_ids)
        self.pieces: list[bytes | None] = [None] * self.size
        for token, number in found.items():
            if number not in special and not _MARKUP.fullmatch(token):
                self.pieces[number] = _bytes(token, kind)
        self.lone = np.array([p is not None and len(p) == 1 and p[0] >= 0x80 for p in self.pieces], bool)

    def scripts(self) -> dict[str, float]:
        """Return the share of tokens by script, largest first.

        Tokens without letters are `digits` or `other`; those that are no whole characters are `part of a character`.
        """
        counts = Counter(_script(piece) for piece in self.pieces if piece is not None)
        return {script: n / counts.total() for script, n in counts.most_common()}


@functools.lru_cache(maxsize=65_536)
def script_of(character: str) -> str | None:
    """Return the script of a letter or mark, None for anything else; marks that any script may take are None too."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    plain = unicodedata.normalize("NFKC", character)[:1]
    first = re.split("[ -]", unicodedata.name(plain, "UNKNOWN"), maxsplit=1)[0]
    return None if first in ("COMBINING", "MODIFIER", "VARIATION") else _RENAMED.get(first, first.capitalize())


def _script(piece: bytes) -> str:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "part of a character"
    scripts = Counter(script for script in map(script_of, text) if script)
    if scripts:
        return scripts.most_common(1)[0][0]
    return "digits" if any(c.isnumeric() for c in text) else "other"


def _kind(tokenizer: Any, vocabulary: dict[str, int]) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spelt = f"{getattr(backend, 'pre_tokenizer', '')} {getattr(backend, 'decoder', '')}"
    if "ByteLevel" in spelt:
        return "bytes"
    return "pieces" if any(token.startswith("▁") for token in vocabulary) or "<0x00>" in vocabulary else "words"


def _bytes(token: str, kind: str) -> bytes:
    if kind == "bytes":
        table = _table()
        whole = all(c in table for c in token)
        return bytes(table[c] for c in token) if whole else token.encode("utf-8", "surrogatepass")
    if kind == "pieces":
        byte = _BYTE.fullmatch(token)
        token = token.replace("▁", " ")
        return bytes([int(byte[1], 16)]) if byte else token.encode("utf-8", "surrogatepass")
    return token.removeprefix("##").encode("utf-8", "surrogatepass")


@functools.cache
def _table() -> dict[str, int]:
    """Printable bytes of Latin-1 stand for themselves; the others, in order, for the characters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}
