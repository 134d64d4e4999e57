"""A language model of characters: n-grams, interpolated after Witten and Bell.

    P(c|h) = (N(hc) + T(h) P(c|h')) / (N(h) + T(h))        P(c|.) = 1 / (V + 1)

N counts, T(h) is how many different characters came after the context h, h' is h without its first character, V how
many different characters were seen; one more stands for all that were not. So unseen contexts weigh nothing, and the
probabilities after any context sum to one (Witten and Bell 1991, method C; interpolated as in Chen and Goodman 1998,
section 2.4). Texts begin in a context of start marks; ends are not modelled.

Stored as in back-off form, sorted by hash (`grams`): the probability of every n-gram seen, the weight T/(N+T) of every
context. A character's probability is that of the longest n-gram seen that ends in it, times the weights of the longer
contexts passed over.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError
from microtome.data.corpus.grams import Windows

__all__ = ["CharacterModel"]

_START = 0x110000  # one past the last character


class _Level(NamedTuple):
    """All n-grams of one length: sorted hashes and their log P, sorted hashes of contexts and their log weight."""

    grams: np.ndarray
    logs: np.ndarray
    contexts: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class CharacterModel:
    """A fitted model.

    Attributes:
        order: n, characters of the longest n-gram.
        characters: V, how many different ones were seen.
        levels: tables of the n-grams of 1 to n characters.
    """

    order: int
    characters: int
    levels: tuple[_Level, ...]

    @classmethod
    def fit(cls, texts: Iterable[str], *, order: int = 5) -> "CharacterModel":
        """Return the model of some texts; all of them are held while it is fitted.

        Args:
            texts: of one language.
            order: characters of the longest n-gram, at least 1.

        Raises:
            DataError: no characters, or an order below 1.
        """
        if order < 1:
            raise DataError(f"A character model of order {order} was asked for; give 1 or more.")
        parts = [_padded(text, order) for text in texts if text]
        if not parts:
            raise DataError("A character model was to be fitted, found no characters; give texts of the language.")
        codes = np.concatenate(parts)
        ends, windows = np.flatnonzero(codes != _START), Windows(codes)
        different = len(np.unique(codes[ends]))
        levels: list[_Level] = []
        for length in range(1, order + 1):
            levels.append(_level(windows, ends - length + 1, length, levels[-1] if levels else None, different))
        return cls(order, different, tuple(levels))

    def log_probabilities(self, text: str) -> np.ndarray:
        """Return the natural log of every character's probability after those before it."""
        windows = Windows(_padded(text, self.order))
        result, left = np.zeros(len(text)), np.arange(len(text))
        for length in range(self.order, 0, -1):
            level = self.levels[length - 1]
            starts = left + self.order - length
            at, seen = _find(level.grams, windows.hashes(length)[starts])
            result[left[seen]] += level.logs[at[seen]]
            left, starts = left[~seen], starts[~seen]
            if not len(left):
                return result
            at, seen = _find(level.contexts, windows.hashes(length - 1)[starts])
            result[left[seen]] += level.weights[at[seen]]
        result[left] -= np.log(self.characters + 1)
        return result

    def perplexity(self, text: str) -> float:
        """Return exp of the mean surprise of a text's characters: among how many it had to choose, as it were.

        Raises:
            DataError: the text is empty.
        """
        if not text:
            raise DataError("The perplexity of an empty text was asked for; give one of a character or more.")
        return float(np.exp(-self.log_probabilities(text).mean()))


def _padded(text: str, order: int) -> np.ndarray:
    """Return the code points of a text after its start marks, as uint64."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return np.concatenate([np.full(order - 1, _START, dtype=np.uint64), codes.astype(np.uint64)])


def _level(windows: Windows, starts: np.ndarray, length: int, below: _Level | None, different: int) -> _Level:
    """Return the table of the n-grams that begin at some places, from that of n-grams one shorter."""
    grams, first, counts = np.unique(windows.hashes(length)[starts], return_index=True, return_counts=True)
    where = starts[first]
    contexts, context = np.unique(windows.hashes(length - 1)[where], return_inverse=True)
    total = np.bincount(context, weights=counts)
    kinds = np.bincount(context).astype(np.float64)
    if below is None:
        shorter = np.full(len(grams), 1 / (different + 1))
    else:
        shorter = np.exp(below.logs[_find(below.grams, windows.hashes(length - 1)[where + 1])[0]])
    share = (counts + kinds[context] * shorter) / (total + kinds)[context]
    return _Level(grams, np.log(share), contexts, np.log(kinds / (total + kinds)))


def _find(table: np.ndarray, sought: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each hash would stand in a sorted table, and whether it does."""
    at = np.minimum(np.searchsorted(table, sought), len(table) - 1)
    return at, table[at] == sought
