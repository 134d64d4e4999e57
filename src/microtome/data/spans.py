"""Spans: where words stand in characters, which tokens hold them, and values carried from the one to the other.

A span is [first character, one past the last). A token is flagged when it holds at least one character of a flagged
span - every such token, not only the first - so nothing is decided by substrings of decoded tokens.

    text      y o u   g r u b n a k !        span of `grubnak`: (4, 11)
    offsets   (0,3) (3,8)     (8,11) (11,12) tokens 1 and 2 are flagged

Offsets come from the tokenizer where it can give them. One that cannot (`is_fast` false) is aligned by what its tokens
decode to: the pieces must spell the text in order, apart from white space, control characters, case, accents and
compatibility forms, which tokenizers drop or change. After an unknown token the spelling goes on at the next word that
begins as the next piece does. Pieces that do not spell the text are refused rather than guessed.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from microtome.core.errors import DataError
from microtome.data.folding import fold_character

__all__ = ["Tokens", "align", "covered", "flagged", "masked", "spread", "tokenized"]

Span = tuple[int, int]
_SOUGHT = 1000  # characters looked through for the piece after an unknown token


class Tokens(NamedTuple):
    """A text's tokens: ids and, for each, the characters it holds; special tokens hold none, as (n, n)."""

    ids: list[int]
    offsets: list[Span]


def tokenized(tokenizer: Any, text: str, *, special: bool = True) -> Tokens:
    """Return the tokens of a text with their offsets, with or without the tokenizer's help.

    Args:
        tokenizer: a transformers tokenizer.
        text: any text.
        special: add what the tokenizer adds to a text (start and end tokens).

    Raises:
        DataError: a tokenizer without offsets whose tokens do not spell the text.

    Example:
        tokens = tokenized(tokenizer, "you grubnak !")
        flagged(tokens.offsets, lexicon.spans("you grubnak !"))     # [False, False, True, False]
    """
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        return Tokens(list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]])
    ids = list(tokenizer(text, add_special_tokens=special)["input_ids"])
    return Tokens(ids, align(tokenizer, ids, text))


def flagged(offsets: Sequence[Span], spans: Iterable[Span]) -> list[bool]:
    """Return for every token whether it holds a character of a span.

    Args:
        offsets: of each token, in characters.
        spans: in characters of the same text; they may overlap.
    """
    marks = np.zeros(max((end for _, end in offsets), default=0) + 1, dtype=np.int64)
    for start, end in spans:
        marks[start:end] = 1
    sums = np.concatenate([[0], marks.cumsum()])
    return [bool(sums[end] > sums[start]) for start, end in offsets]


def covered(offsets: Sequence[Span], tokens: Iterable[int]) -> Span:
    """Return the characters from the first to the last of some tokens.

    Args:
        offsets: of each token.
        tokens: their indices; those that hold no character are passed over.

    Raises:
        DataError: none of them holds a character.
    """
    held = [offsets[i] for i in tokens if offsets[i][1] > offsets[i][0]]
    if not held:
        raise DataError(f"Asked for the characters of tokens that hold none (of {len(offsets)}); name others.")
    return min(start for start, _ in held), max(end for _, end in held)


def spread(values: np.ndarray, offsets: Sequence[Span]) -> tuple[np.ndarray, float]:
    """Return values per token from values per character, and what no token holds; nothing is lost or counted twice.

    Args:
        values: one for each character, [characters].
        offsets: of each token; a character that several tokens hold (bytes of one) is shared equally among them.

    Returns:
        (per token [tokens], rest): their sum is the sum of `values`.
    """
    holders = np.zeros(len(values))
    for start, end in offsets:
        holders[start:end] += 1
    shares = np.divide(values, holders, out=np.zeros(len(values)), where=holders > 0)
    per_token = np.array([shares[start:end].sum() for start, end in offsets])
    return per_token, float(np.asarray(values)[holders == 0].sum())


def masked(text: str, spans: Iterable[Span], mark: str = "*") -> str:
    """Return a text with its spans replaced character by character; a span of several keeps its first character."""
    shown = list(text)
    for start, end in spans:
        kept = start + (end - start > 1)
        shown[kept:end] = mark * (min(end, len(text)) - kept)
    return "".join(shown)


def align(tokenizer: Any, ids: Sequence[int], text: str) -> list[Span]:
    """Return the characters each token holds, from what the tokens decode to.

    Tokens that together make one character (bytes) share it. White space belongs to no token, so tokens of it hold
    nothing; neither do special tokens, unless the text spells them out.

    Args:
        tokenizer: has `decode`, `convert_ids_to_tokens`, `all_special_ids` and `unk_token_id`.
        ids: the text's tokens.
        text: the text.

    Raises:
        DataError: a token's piece is not found where the text goes on.
    """
    spelling, found = _Spelling(text), [(0, 0)] * len(ids)
    special, unknown = set(tokenizer.all_special_ids), tokenizer.unk_token_id
    pending: list[int] = []  # what decodes to nothing yet: bytes of a character whose other bytes are to come
    for i, token in enumerate(ids):
        if token == unknown:
            spelling.skip(i)
        elif token in special and not _written_out(tokenizer, ids, i, spelling):
            found[i] = spelling.span(spelling.cursor, spelling.cursor)
        else:
            raw = tokenizer.decode([token], skip_special_tokens=False)
            start = spelling.place(raw)
            if start is None and pending:
                raw = tokenizer.decode([ids[k] for k in (*pending, i)], skip_special_tokens=False)
                start = spelling.place(raw)
            elif pending:  # they decode to nothing and this one alone goes on: marks of white space
                for k in pending:
                    found[k] = spelling.span(start, start)
                pending = []
            pending.append(i)
            if start is None and (raw == "" or "\ufffd" in raw):
                continue
            if start is None:
                raise DataError(_misspelt(tokenizer, i, token, text, spelling))
            for k in spelling.skipped:
                found[k] = spelling.span(spelling.cursor, start)
            spelling.skipped, spelling.cursor = [], start + spelling.length
            for k in pending:
                found[k] = spelling.span(start, spelling.cursor)
            pending = []
    for k in (*spelling.skipped, *pending):
        found[k] = spelling.span(spelling.cursor, len(spelling.letters))
    return found


class _Spelling:
    """A text's letters as tokenizers may have changed them, and how far they have been spelt."""

    def __init__(self, text: str):
        self.text = text
        kept = [(letter, at) for at, c in enumerate(text) for letter in _letters(c)]
        self.letters = "".join(letter for letter, _ in kept)
        self.places = [at for _, at in kept]
        self.cursor, self.length = 0, 0
        self.skipped: list[int] = []

    def skip(self, token: int) -> None:
        """Note an unknown token: it holds what lies before the next piece."""
        self.skipped.append(token)

    def place(self, raw: str) -> int | None:
        """Return where a decoded piece stands from the cursor on, and keep its length; None where it does not."""
        if raw == "":
            return None
        piece = "".join(letter for c in raw for letter in _letters(c))
        for form in dict.fromkeys((piece, piece.removeprefix("##"))):
            self.length = len(form)
            if not form or (not self.skipped and self.letters.startswith(form, self.cursor)):
                return self.cursor
            if self.skipped and (start := self._next_word(form)) is not None:
                return start
        return None

    def _next_word(self, form: str) -> int | None:
        """Return the first later word that begins with a piece; else the first later place that spells it."""
        anywhere = at = self.letters.find(form, self.cursor + 1, self.cursor + _SOUGHT)
        while at != -1:
            if self.places[at] - self.places[at - 1] > 1 or not (self.letters[at - 1 : at + 1]).isalnum():
                return at
            at = self.letters.find(form, at + 1, self.cursor + _SOUGHT)
        return None if anywhere == -1 else anywhere

    def span(self, first: int, last: int) -> Span:
        """Return the characters of the text that some letters stand for."""
        if first < last:
            return self.places[first], self.places[last - 1] + 1
        here = self.places[first] if first < len(self.places) else len(self.text)
        return here, here


def _written_out(tokenizer: Any, ids: Sequence[int], i: int, spelling: _Spelling) -> bool:
    """Say whether a special token stands in the text itself (`</s>` in a web page) rather than being added to it."""
    word = tokenizer.convert_ids_to_tokens(ids[i])
    added_first = i == 0 and list(ids).count(ids[0]) > spelling.text.count(word)
    return not added_first and spelling.place(word) == spelling.cursor


def _letters(character: str) -> str:
    """Return what is left of a character where white space and marks do not count either."""
    return "".join(c for c in fold_character(character) if not c.isspace() and not unicodedata.combining(c))


def _misspelt(tokenizer: Any, i: int, token: int, text: str, spelling: _Spelling) -> str:
    here = spelling.span(spelling.cursor, spelling.cursor)[0]
    return (
        f"Token {i} ({tokenizer.convert_ids_to_tokens(token)!r}) of a tokenizer without offsets does not spell the "
        f"text at character {here} ({text[here : here + 20]!r}); use the tokenizer's fast version."
    )
