"""The sampler: an endless stream of items of several languages in given shares, in which item k is a function of k.

    block b = k // block            holds a fixed number of items of every language: its share, rounded
    order within it                 a shuffle drawn from (seed, b)
    n-th item of a language         epoch n // size, and in it place n % size of a permutation drawn from (seed, epoch)

So within an epoch no item of a language comes twice, shares are met in every block, not just in the long run, and the
state is a position: a run that stops in the middle goes on with the very next item, on as many ranks as it then has.
No list of indices is held (`permutation`), whatever the number of items. Rank r of w takes items r, r + w, ...

Shares are met to half an item a block (with 65,536 items to a block to .001 percent), but no language of a positive
share gets less than one item. Items are drawn as wholes: where they differ in length, see `Mix.by_items`.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import derive, generator
from microtome.data.hashing import GOLDEN, mix64
from microtome.data.mixing.permutation import permuted

__all__ = ["Draw", "Item", "Realised", "Sampler"]

BLOCK = 65_536
_AHEAD = 256  # items that iteration computes at once
_CLOSE = 1e-6


class Item(NamedTuple):
    """One item of the stream: its language, its number among that language's items, and in which epoch of it."""

    language: str
    index: int
    epoch: int


class Draw(NamedTuple):
    """Several items.

    Attributes:
        language: numbers into `Sampler.languages`, [items].
        index: number among the language's items, [items].
        epoch: how many times the language had been gone over before, [items].
    """

    language: np.ndarray
    index: np.ndarray
    epoch: np.ndarray


class Realised(NamedTuple):
    """What a stream has given of one language so far, all ranks together.

    Attributes:
        language: its name.
        target: the share that was asked for.
        realised: the share of the items drawn.
        items: how many items it has.
        drawn: how many were drawn.
        epochs: drawn / items.
        repeats: how many of the drawn had been drawn before.
    """

    language: str
    target: float
    realised: float
    items: int
    drawn: int
    epochs: float
    repeats: int


class Sampler:
    """An iterator over items; endless.

    Args:
        sizes: how many items each language has.
        shares: share of items of each language, summing to 1 (`Mix.shares`, `Mix.by_items`).
        seed: of the stream.
        rank: which of the workers this is.
        world: how many workers there are.
        block: items in which shares are met.

    Raises:
        DataError: an empty language, shares that do not fit or do not sum to 1, or no such rank.

    Example:
        sampler = Sampler({"en": 1000, "hi": 40}, {"en": 0.5, "hi": 0.5}, seed=1)
        texts = [corpus[item.language][item.index] for item in islice(sampler, 8)]
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        shares: Mapping[str, float],
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        block: int = BLOCK,
    ):
        _refuse(sizes, shares, rank, world, block)
        self.languages = tuple(sizes)
        self.sizes = np.array([sizes[name] for name in sizes], np.int64)
        self.shares = np.array([shares[name] for name in sizes], np.float64)
        self.shares /= self.shares.sum()
        self.seed, self.rank, self.world, self.block = seed, rank, world, block
        self.quota = _quota(self.shares, block)
        self.position = 0
        self._bases = np.array([derive(seed, "epoch", name) for name in sizes], np.uint64)
        self._laid: tuple[int, np.ndarray, np.ndarray] | None = None

    def __iter__(self) -> Iterator[Item]:
        while True:
            start = self.position
            draw = self._at(start + self.rank + self.world * np.arange(_AHEAD))
            for i, row in enumerate(zip(*map(np.ndarray.tolist, draw), strict=True), start=1):
                self.position = start + i * self.world
                yield Item(self.languages[row[0]], row[1], row[2])
                if self.position != start + i * self.world:  # somebody loaded a state or took items meanwhile
                    break

    def take(self, count: int) -> Draw:
        """Return the next items of this rank.

        Args:
            count: how many.
        """
        places = self.position + self.rank + self.world * np.arange(count)
        self.position += self.world * count
        return self._at(places)

    def state(self) -> dict[str, int]:
        """Return where the stream stands, for a checkpoint; the same on every rank that took as many items."""
        return {"seed": self.seed, "position": self.position, "mix": self._fingerprint()}

    def load(self, state: Mapping[str, int]) -> None:
        """Go on from a state, taken on any number of ranks.

        Raises:
            DataError: it is the state of another stream.
        """
        here = self.state()
        for key, what in (("seed", "seed"), ("mix", "fingerprint of sizes, shares and block")):
            if state.get(key) != here[key]:
                raise DataError(
                    f"A state with {what} {state.get(key)} was given to a sampler with {here[key]}; make the sampler "
                    "as it was when the state was taken."
                )
        if not (isinstance(state.get("position"), int) and state["position"] >= 0):
            raise DataError(f"A state with position {state.get('position')} was given; give a whole number, 0 or more.")
        self.position = state["position"]

    def report(self) -> tuple[Realised, ...]:
        """Return what was drawn of each language up to the position, by all ranks together."""
        whole, part = divmod(self.position, self.block)
        inside = np.bincount(self._block(whole)[0][:part], minlength=len(self.sizes)) if part else 0
        drawn = whole * self.quota + inside
        rows = zip(self.languages, self.shares.tolist(), self.sizes.tolist(), drawn.tolist(), strict=True)
        total = max(1, self.position)
        return tuple(Realised(name, s, n / total, size, n, n / size, max(0, n - size)) for name, s, size, n in rows)

    def _at(self, places: np.ndarray) -> Draw:
        """Return the items at places of the stream."""
        language, serial = np.empty((2, len(places)), np.int64)
        numbers = places // self.block
        for number in np.unique(numbers).tolist():
            own = numbers == number
            laid, serials = self._block(number)
            language[own], serial[own] = laid[places[own] % self.block], serials[places[own] % self.block]
        sizes = self.sizes[language]
        epoch, place = serial // sizes, serial % sizes
        keys = mix64(self._bases[language] + epoch.astype(np.uint64) * GOLDEN)
        return Draw(language, permuted(place, sizes, keys), epoch)

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a block's languages, and for each entry how many of its language came before it in the stream."""
        if self._laid is None or self._laid[0] != number:
            laid = np.repeat(np.arange(len(self.quota)), self.quota)
            laid = generator(self.seed, "block", number).permutation(laid)
            serials = np.empty(len(laid), np.int64)
            within = np.arange(len(laid)) - np.repeat(np.cumsum(self.quota) - self.quota, self.quota)
            serials[np.argsort(laid, kind="stable")] = within + np.repeat(number * self.quota, self.quota)
            self._laid = number, laid, serials
        return self._laid[1:]

    def _fingerprint(self) -> int:
        told = [self.languages, self.sizes.tolist(), self.quota.tolist()]
        return zlib.crc32(repr(told).encode())


def _quota(shares: np.ndarray, block: int) -> np.ndarray:
    """Return items of each language in a block: largest remainders, no positive share with none."""
    quota = np.maximum(np.floor(shares * block), shares > 0).astype(np.int64)
    short = block - int(quota.sum())
    order = np.argsort(-(shares * block - quota), kind="stable")
    quota[order[: max(0, short)]] += 1
    while quota.sum() > block:  # many languages of less than one item: the largest give
        quota[np.argmax(quota)] -= 1
    return quota


def _refuse(sizes: Mapping[str, int], shares: Mapping[str, float], rank: int, world: int, block: int) -> None:
    if not 0 <= rank < world:
        raise DataError(f"Rank {rank} of {world} was asked for; ranks are 0 to {max(0, world - 1)}.")
    if set(sizes) != set(shares):
        odd = min(set(sizes) ^ set(shares))
        where, other = ("sizes", sizes) if odd in shares else ("shares", shares)
        known = ", ".join(other) or "no language"
        raise DataError(f"'{odd}' is not in the {where}, which have {known}; give both.{did_you_mean(odd, other)}")
    for name, size in sizes.items():
        if shares[name] > 0 and size < 1:
            raise DataError(f"Language '{name}' has {size} items and a share of {shares[name]}; leave it out.")
    total = sum(shares.values())
    if not abs(total - 1) <= _CLOSE or min(shares.values()) < 0:
        raise DataError(f"Shares are 0 or more and sum to 1, found {dict(shares)}, in all {total:.6g}; mend them.")
    if sum(share > 0 for share in shares.values()) > block:
        raise DataError(f"A block of {block} items cannot hold {len(shares)} languages; give a larger block.")
