"""Decontamination: documents that hold a piece of an evaluation text, and evaluation texts that a corpus holds.

A piece is an n-gram of 13 words after folding (GPT-3's length: Brown et al. 2020, arXiv 2005.14165, appendix C). Where
words are not written apart it has as many characters as make about 13 words (`scripts`): 26 of Han and kana, 52 of
Thai, Lao, Khmer and Myanmar, in between for a mixed text. A text shorter than that is one piece; one of less than 8
words is not looked for, since it recurs by chance.

Only hashes of the pieces are held (`grams`), 26 bytes a piece. Each is found by the hash of its first units, then
checked by that of all. Paraphrases, translations and texts with a word changed in every 13 are not found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError
from microtome.data.corpus.documents import Document
from microtome.data.corpus.grams import Windows, unit_codes
from microtome.data.corpus.scripts import gram_length, units, word_count

__all__ = ["Contamination", "Decontaminate", "contamination"]


@dataclass(frozen=True)
class Contamination:
    """How much of an evaluation set a corpus holds.

    Attributes:
        name: of the set.
        items: texts in it.
        checked: of these, long enough to be looked for.
        hit: of these, with a piece in some document.
        documents: with a piece of some item.
    """

    name: str
    items: int
    checked: int
    hit: int
    documents: int

    @property
    def share(self) -> float:
        """Share of the items checked that were hit."""
        return self.hit / self.checked


@dataclass(frozen=True, eq=False)
class Decontaminate:
    """Drop what holds a piece of an evaluation text; made by `against`.

    Attributes:
        names: of the evaluation sets.
        items: set -> texts in it.
        set_of: set of each item checked, by number.
        head: units that a piece is found by.
        heads: sorted hashes of the pieces' first units.
        wholes: hash of each piece.
        lengths: units of each.
        owners: item of each, by number.
    """

    names: tuple[str, ...]
    items: tuple[int, ...]
    set_of: np.ndarray
    head: int
    heads: np.ndarray
    wholes: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray

    @classmethod
    def against(cls, sets: Mapping[str, Iterable[str]], *, words: int = 13, shortest: int = 8) -> "Decontaminate":
        """Return the filter of some evaluation sets.

        Args:
            sets: name -> its texts, of any language.
            words: words of a piece.
            shortest: words of the shortest text that is looked for, at most `words`.

        Raises:
            DataError: no set, one without a text that long, one string for a set, or lengths out of order.

        Example:
            chain = Chain([Decontaminate.against({"xcopa": premises}), *default_filters()])
        """
        if not sets or not 1 <= shortest <= words:
            raise DataError(
                f"Evaluation sets: {', '.join(sets) or 'none'}, pieces of {words} words, texts of {shortest} or more; "
                "give a set or more, and 1 <= shortest <= words."
            )
        pieces, counted, set_of = [], [], []
        for number, (name, texts) in enumerate(sets.items()):
            if isinstance(texts, str):
                raise DataError(f"Evaluation set '{name}' is one string; give a list of texts.")
            total = 0
            for text in texts:
                total += 1
                if word_count(text) >= shortest:
                    pieces.append(_pieces(text, words, shortest, len(set_of)))
                    set_of.append(number)
            counted.append(total)
            if number not in set_of[-1:]:
                raise DataError(
                    f"Evaluation set '{name}' should hold texts of {shortest} words, found none in {total}; lower "
                    "`shortest` or leave it out."
                )
        heads, wholes, lengths, owners = map(np.concatenate, zip(*pieces, strict=True))
        order = np.argsort(heads, kind="stable")
        return cls(
            tuple(sets), tuple(counted), np.array(set_of), shortest,
            heads[order], wholes[order], lengths[order], owners[order],
        )  # fmt: skip

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or which evaluation set it holds a piece of (the first, if of several)."""
        hits = self.hits(document.text)
        return f"holds evaluation text of '{self.names[self.set_of[hits].min()]}'" if len(hits) else None

    def hits(self, text: str) -> np.ndarray:
        """Return the numbers of the items that a text holds a piece of, in order."""
        found = units(text)
        none = np.zeros(0, dtype=np.int64)
        if len(found) < self.head:
            return none
        windows = Windows(unit_codes(found))
        heads = windows.hashes(self.head)
        low, high = np.searchsorted(self.heads, heads, "left"), np.searchsorted(self.heads, heads, "right")
        starts = np.flatnonzero(high > low)
        if not len(starts):
            return none
        places = np.repeat(starts, (high - low)[starts])
        pieces = np.concatenate([np.arange(a, b) for a, b in zip(low[starts], high[starts], strict=True)])
        fits = places + self.lengths[pieces] <= len(found)
        places, pieces = places[fits], pieces[fits]
        same = windows.at(places, self.lengths[pieces]) == self.wholes[pieces]
        return np.unique(self.owners[pieces[same]])


def contamination(
    documents: Iterable[Document], sets: Mapping[str, Iterable[str]], *, words: int = 13, shortest: int = 8
) -> list[Contamination]:
    """Return how much of each evaluation set some documents hold.

    Args:
        documents: read once, streaming.
        sets: name -> its texts, of any language.
        words: words of a piece.
        shortest: words of the shortest text that is looked for.

    Raises:
        DataError: what `Decontaminate.against` refuses.
    """
    judge = Decontaminate.against(sets, words=words, shortest=shortest)
    hit = np.zeros(len(judge.set_of), dtype=bool)
    holding = np.zeros(len(judge.names), dtype=np.int64)
    for document in documents:
        found = judge.hits(document.text)
        hit[found] = True
        holding[np.unique(judge.set_of[found])] += 1
    return [
        Contamination(
            name, judge.items[n], int((judge.set_of == n).sum()), int(hit[judge.set_of == n].sum()), int(holding[n])
        )
        for n, name in enumerate(judge.names)
    ]


def _pieces(text: str, words: int, shortest: int, owner: int) -> tuple[np.ndarray, ...]:
    """Return head, whole, length and owner of each piece of a text."""
    found = units(text)
    length = min(gram_length(text, words), len(found))
    windows = Windows(unit_codes(found))
    wholes = windows.hashes(length)
    heads = windows.hashes(shortest)[: len(wholes)]
    return heads, wholes, np.full(len(wholes), length), np.full(len(wholes), owner)
