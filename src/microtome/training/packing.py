"""Packing: documents of any length, one after the other, cut into rows of one length; no padding, no token lost.

    documents        <s> a b c </s>   <s> d e </s>   <s> f g h i j </s>  ...
    rows of six      <s> a b c </s> <s>  |  d e </s> <s> f g  |  h i j </s> ...
    document         0   0 0 0 0    1    |  1 1 1    2   2 2  |  2 2 2 2
    position         0   1 2 3 4    0    |  0 1 2    0   1 2  |  0 1 2 3

as FuxiTranyu packs (arXiv 2408.06273, section 3.5), but that a token sees only its own document, which the paper does
not say of its model. Where a row begins inside a document, what came before is out of sight and positions begin at 0.

A model learns of the documents by `positions` alone: transformers (sdpa, eager, flash and flex attention alike) takes
a position that does not follow on the one before as the start of another text, when there is neither a mask nor a
cache, and keeps the texts apart. `block_causal_mask` is the same said as a mask, for models that take a 4-D one. Either
way a packed row gives the logits of its documents run by themselves.

Documents come from a *source*: an iterator of `Document` with a `state()` from which it can be made again. `Drawn` is
one over a sampler (`data.mixing.Sampler`), `Counted` one over any list or function that always begins at the start:

    def documents(state):
        sampler = Sampler(sizes, shares, seed=0)
        if state is not None:
            sampler.load(state)
        return Drawn(sampler, lambda item: Document(tokens[item.language][item.index], item.language))

    batches = packing(documents, seq=256, batch=8, bos=0, eos=1)      # what `pretrain` takes

Nothing here tokenises or shuffles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from microtome.core.errors import DataError

__all__ = [
    "Counted",
    "Document",
    "Drawn",
    "Packed",
    "Rows",
    "Source",
    "block_causal_mask",
    "packing",
    "positions",
    "targets",
]

NO_TARGET = -100
"""What `targets` says where there is nothing to predict; torch's cross-entropy leaves it out."""


class Document(NamedTuple):
    """A text.

    Attributes:
        ids: its tokens, without those that begin and end a text.
        language: its language, or any other label by which losses are to be told apart; empty for none.
    """

    ids: Sequence[int]
    language: str = ""


@dataclass(frozen=True)
class Rows:
    """Rows of tokens to train on.

    Attributes:
        ids: the tokens; every row is full.
        documents: which document of this batch each token is of, counted from 0; None where each row is one text.
        languages: the language of each document; empty for none.
    """

    ids: Int[Tensor, "batch seq"]
    documents: Int[Tensor, "batch seq"] | None = None
    languages: tuple[str, ...] = ()


class Source(Protocol):
    """An iterator of documents that can say where it stands."""

    def __next__(self) -> Document:
        """Return the next document."""

    def state(self) -> Any:
        """Return what JSON holds and from which the source is made again, at the document after the last one given."""


class Packed:
    """An iterator of `Rows` cut from a source of documents; it stops when a batch can no longer be filled.

    Args:
        documents: makes the source, from None at the start, from one of its states later.
        state: what `state` returned after the last batch that was used; None to begin.
        seq: tokens of a row.
        batch: rows of a batch.
        bos: put before each document; None for nothing.
        eos: put after each document; None for nothing.

    Raises:
        DataError: rows of fewer than two tokens, or a batch of none, or a state that is not one of this class.
    """

    def __init__(
        self,
        documents: Callable[[Any], Source],
        state: dict | None = None,
        *,
        seq: int,
        batch: int,
        bos: int | None,
        eos: int | None,
    ):
        if seq < 2 or batch < 1:
            raise DataError(f"Rows of {seq} tokens, {batch} a batch, were asked for; give seq >= 2 and batch >= 1.")
        if state is not None and not {"source", "left", "language", "documents"} <= set(state):
            raise DataError(f"A packing state was asked for, found keys {sorted(state)}; give what state() returned.")
        state = state or {"source": None, "left": [], "language": "", "documents": 0}
        self._source = documents(state["source"])
        self._left, self._language = np.array(state["left"], np.int64), state["language"]
        self._taken = state["documents"]
        self.seq, self.batch, self.bos, self.eos = seq, batch, bos, eos

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Rows:
        size = self.seq * self.batch
        ids, numbers, languages, filled = np.empty(size, np.int64), np.empty(size, np.int64), [], 0
        while filled < size:
            while not len(self._left):
                self._open(next(self._source))
            piece, self._left = self._left[: size - filled], self._left[size - filled :]
            ids[filled : filled + len(piece)] = piece
            numbers[filled : filled + len(piece)] = len(languages)
            languages.append(self._language)
            filled += len(piece)
        shape = self.batch, self.seq
        named = tuple(languages) if any(languages) else ()
        return Rows(torch.from_numpy(ids).view(shape), torch.from_numpy(numbers).view(shape), named)

    def _open(self, document: Document) -> None:
        ends = [[] if token is None else [token] for token in (self.bos, self.eos)]
        self._left = np.concatenate([np.asarray(part, np.int64) for part in (ends[0], document.ids, ends[1])])
        self._language = document.language
        self._taken += 1

    def state(self) -> dict:
        """Return what JSON holds and from which packing goes on: the rest of one document, and the source's state."""
        left = self._left.tolist()
        return {"source": self._source.state(), "left": left, "language": self._language, "documents": self._taken}


def packing(
    documents: Callable[[Any], Source], *, seq: int, batch: int, bos: int | None, eos: int | None
) -> Callable[[dict | None], Packed]:
    """Return what makes packed rows from a state, as `pretraining.pretrain` takes it.

    Args:
        documents: makes the source of documents, from None at the start, from one of its states later.
        seq: tokens of a row.
        batch: rows of a batch.
        bos: put before each document; None for nothing.
        eos: put after each document; None for nothing.
    """
    return lambda state: Packed(documents, state, seq=seq, batch=batch, bos=bos, eos=eos)


class Counted:
    """A source over documents that can be gone through from the start; its state is how many were taken.

    Args:
        documents: a list, or a function that returns an iterator over the same documents whenever it is called.
        state: how many to pass over; None for none.
    """

    def __init__(self, documents: Iterable[Document] | Callable[[], Iterable[Document]], state: int | None = None):
        self._taken = state or 0
        self._rest = islice(documents() if callable(documents) else documents, self._taken, None)

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        document = next(self._rest)
        self._taken += 1
        return document

    def state(self) -> int:
        """Return how many documents were taken."""
        return self._taken


class Drawn:
    """A source over what a sampler draws.

    Args:
        sampler: iterates over items and has a `state()`, as `data.mixing.Sampler`.
        document: returns the document of an item.
    """

    def __init__(self, sampler: Any, document: Callable[[Any], Document]):
        self._sampler, self._items, self._document = sampler, iter(sampler), document

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        return self._document(next(self._items))

    def state(self) -> Any:
        """Return the sampler's state."""
        return self._sampler.state()


def positions(documents: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Return each token's place in its document, counted from 0 where the document or the row begins.

    Args:
        documents: which document each token is of; a document's tokens stand together.
    """
    place = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return place - torch.where(begins, place, 0).cummax(1).values


def block_causal_mask(documents: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch 1 seq seq"]:
    """Return which token (last axis) each token (the axis before) sees: those of its document up to itself.

    Args:
        documents: which document each token is of.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return torch.tril(same)[:, None]


def targets(rows: Rows) -> Int[Tensor, "batch seq"]:
    """Return the token to predict at each place: the next one, or `NO_TARGET` where a document or the row ends.

    Args:
        rows: the rows.
    """
    after = torch.full_like(rows.ids, NO_TARGET)
    after[:, :-1] = rows.ids[:, 1:]
    if rows.documents is not None:
        after[:, :-1][rows.documents[:, 1:] != rows.documents[:, :-1]] = NO_TARGET
    return after
