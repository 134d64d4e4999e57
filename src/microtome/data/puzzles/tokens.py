"""What a puzzle needs to know of a tokenizer, through one function `encode(text) -> token ids`.

`encode` may put tokens in front (a start token) but none at the end. A text is taken as a sequence of sentences, each
with its own tokens (the first is encoded without a space in front); the caller checks that the whole text has the
tokens of its sentences in a row. Positions inside a sentence are found by encoding its beginnings, which is checked
too, since a tokenizer may merge across a boundary. Sentences are remembered: thousands of puzzles cost few calls.
"""

import functools
from collections.abc import Callable

from microtome.core.errors import DataError
from microtome.data.atlas import fillers

__all__ = ["Encode", "Vocabulary"]

Encode = Callable[[str], list[int]]
_CARRIER = "It is so."


class Vocabulary:
    """A tokenizer's view of words and sentences, remembered.

    Args:
        encode: text to token ids; may add a start token, never an end token.

    Raises:
        DataError: `encode` adds tokens after the text.
    """

    def __init__(self, encode: Encode):
        self.encode = functools.lru_cache(maxsize=65536)(lambda text: tuple(encode(text)))
        self.start = self.encode("")
        self._sentences: dict[tuple[str, bool], tuple[int, ...]] = {}
        self._fillers: dict[bool, dict[int, list[str]]] = {}
        self.continuation(_CARRIER, "rain")

    def continuation(self, prompt: str, text: str) -> tuple[int, ...]:
        """Return the ids of ` text` after a prompt.

        Raises:
            DataError: the tokenizer does not keep the prompt's tokens when the text follows.
        """
        before, both = self.encode(prompt), self.encode(f"{prompt} {text}")
        if both[: len(before)] != before or len(both) == len(before):
            raise DataError(
                f"Asked for the tokens of '{text}' after '{prompt}'; found that the prompt's own tokens end in "
                f"{list(before[-3:])} alone and in {list(both[len(before) - 3 : len(before)])} with it; pass an "
                "`encode` that adds no token at the end (a start token is fine)."
            )
        return both[len(before) :]

    def sentence(self, text: str, first: bool = False) -> tuple[int, ...]:
        """Return the ids of a word or sentence inside a text, or of the first sentence of a text."""
        if (text, first) not in self._sentences:
            ids = self.encode(text)[len(self.start) :] if first else self.continuation(_CARRIER, text)
            self._sentences[text, first] = ids
        return self._sentences[text, first]

    def length(self, text: str, first: bool = False) -> int:
        """Return how many tokens a word or sentence takes inside a text, or as its first sentence."""
        return len(self.sentence(text, first))

    def span(self, text: str, start: int, end: int, first: bool = False) -> tuple[int, int] | None:
        """Return (first, one past the last) of the tokens of `text[start:end]`, or None where a token straddles.

        Args:
            text: a sentence; positions count from its own first token.
            start: first character of a word.
            end: one past its last character.
            first: True where the sentence opens the text.
        """
        ids, upto = self.sentence(text, first), self.sentence(text[:end], first)
        before = self.sentence(text[:start].rstrip(" "), first) if start else ()
        if ids[: len(upto)] != upto or ids[: len(before)] != before:
            return None
        return len(before), len(upto)

    def fillers(self, length: int, first: bool = False) -> list[str]:
        """Return the filler sentences of a token count."""
        if first not in self._fillers:
            by_length = self._fillers.setdefault(first, {})
            for text in fillers():
                by_length.setdefault(self.length(text, first), []).append(text)
        return self._fillers[first].get(length, [])
