"""Deduplication in many turns: what FuxiTranyu does where a corpus does not fit into memory (arXiv 2408.06273, 3.2).

    split the texts into chunks: the pool
    each turn: draw some chunks at random, deduplicate among them, shuffle and split what survives, put it back
    stop when a turn removes less than 1 % of the documents (that it drew)

Memory is one draw. Duplicates that never were in one draw stay: of a share f of the pool, two texts are in a draw
together with probability about f^2, so the paper's rule may stop while a share .01 / f of the pool is still to go.
`stop="left"` is ours: it goes on until the duplicates left are less than 1 % of the pool. Of those there before the
last few turns a share m = prod(1 - f^2) was never drawn together, so what they removed tells what is left:

    left = removed x m / (1 - m)     and, for the rule, its upper bound with (removed + 2 sqrt(removed) + 3) for removed

Clusters of more than two texts make the estimate too high, which errs on the safe side.

Everything random comes from (seed, turn), and a turn is down on disk before the state that counts it, so a run killed
at any instant goes on with the turn it was in and ends with the same texts. Exact duplicates go the same way. The paper
states neither the size of a chunk nor how many are drawn.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.core.files import write_atomic
from microtome.core.seeds import generator
from microtome.data.dedup.clusters import join
from microtome.data.dedup.store import SignatureStore, write_array

__all__ = ["MultiTurn", "Turn", "multi_turn"]

_STOPS = ("turn", "left")
_FEW = 1 / math.e  # share of pairs that turns looked back on may have missed; more turns tell of a pool long gone


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        drawn: texts in the chunks that were drawn.
        removed: how many of them were duplicates.
        pool: texts left in the pool afterwards.
    """

    drawn: int
    removed: int
    pool: int

    @property
    def met(self) -> float:
        """How likely two texts of the pool were drawn together."""
        return (self.drawn / (self.pool + self.removed)) ** 2


@dataclass(frozen=True, eq=False)
class MultiTurn:
    """The outcome.

    Attributes:
        kept: numbers of the texts that survived, ascending.
        turns: what each turn did.
    """

    kept: np.ndarray
    turns: tuple[Turn, ...]

    @property
    def left(self) -> float:
        """Estimate of the duplicates still among the kept, in texts."""
        return _left(self.turns)[0]


def multi_turn(
    store: SignatureStore,
    folder: str | Path,
    *,
    chunk: int = 100_000,
    draw: int = 8,
    seed: int = 0,
    stop: str = "turn",
    below: float = 0.01,
    most: int = 1000,
    progress: Callable[[Turn], None] | None = None,
) -> MultiTurn:
    """Return what survives turns of deduplication among chunks drawn at random.

    Args:
        store: signatures of all texts.
        folder: where the pool is kept while it runs; a killed run goes on from there.
        chunk: texts in a chunk.
        draw: chunks drawn in a turn; where the pool has no more, one turn sees all and is the last.
        seed: of draws and splits.
        stop: `turn`, the paper's rule, or `left`, by the duplicates estimated to be left.
        below: share at which it stops.
        most: turns after which it stops in any case.
        progress: called after each turn.

    Raises:
        DataError: a rule that is not known, numbers that make no turn, or a folder of another run.
    """
    _refuse(chunk, draw, stop, below, most)
    asked = {"store": store.fingerprint, "chunk": chunk, "draw": draw, "seed": seed, "stop": stop, "below": below}
    pool = _Pool.open(Path(folder), asked, len(store), chunk)
    while not pool.done(stop, below, most):
        turn = pool.turn(store, chunk, draw, seed)
        if progress:
            progress(turn)
    return MultiTurn(np.sort(pool.read(pool.state["chunks"])), pool.turns)


class _Pool:
    """The chunks on disk, and the state that says which of the files are the pool."""

    def __init__(self, folder: Path, state: dict):
        self.folder, self.state = folder, state

    @classmethod
    def open(cls, folder: Path, asked: dict, texts: int, chunk: int) -> "_Pool":
        """Return the pool of a new or a killed run, without what the latter left half done."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "state.json"
        if not file.is_file():
            pool = cls(folder, {"asked": asked, "turns": [], "chunks": []})
            starts = range(0, texts, chunk)
            pool.state["chunks"] = [pool.write(0, i, np.arange(s, min(s + chunk, texts))) for i, s in enumerate(starts)]
            pool.save()
        pool = cls(folder, json.loads(file.read_text()))
        if pool.state["asked"] != asked:
            other = next(key for key, value in asked.items() if pool.state["asked"][key] != value)
            raise DataError(
                f"'{folder}' holds turns with {other} {pool.state['asked'][other]}, asked for {asked[other]}; choose "
                "another folder."
            )
        pool.sweep()
        return pool

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(Turn(**turn) for turn in self.state["turns"])

    def done(self, stop: str, below: float, most: int) -> bool:
        """Say whether the last turn was the last."""
        if not self.state["turns"]:
            return False
        last = self.turns[-1]
        few = last.removed < below * last.drawn if stop == "turn" else _left(self.turns)[1] < below * last.pool
        return few or last.met == 1 or len(self.turns) >= most

    def turn(self, store: SignatureStore, chunk: int, draw: int, seed: int) -> Turn:
        """Draw, deduplicate, split, put back; the new state is written when the new chunks are."""
        number, chunks = len(self.state["turns"]) + 1, self.state["chunks"]
        rng = generator(seed, "multi-turn", number)
        picked = set(rng.choice(len(chunks), min(draw, len(chunks)), replace=False).tolist())
        rest = [entry for i, entry in enumerate(chunks) if i not in picked]
        texts = np.sort(self.read([chunks[i] for i in sorted(picked)]))
        survivors = rng.permutation(texts[join(store.keys(texts).T, len(texts)).kept])
        parts = [survivors[s : s + chunk] for s in range(0, len(survivors), chunk)]
        back = [self.write(number, i, part) for i, part in enumerate(parts)]
        pool = sum(entry["texts"] for entry in rest + back)
        turn = Turn(len(texts), len(texts) - len(survivors), pool)
        self.state = self.state | {"turns": [*self.state["turns"], asdict(turn)], "chunks": rest + back}
        self.save()
        self.sweep()
        return turn

    def read(self, chunks: list[dict]) -> np.ndarray:
        return np.concatenate([np.load(self.folder / entry["file"]) for entry in chunks])

    def write(self, turn: int, number: int, texts: np.ndarray) -> dict:
        file = f"chunk-{turn:05d}-{number:05d}.npy"
        write_array(self.folder / file, texts.astype(np.int64))
        return {"file": file, "texts": len(texts)}

    def save(self) -> None:
        write_atomic(self.folder / "state.json", json.dumps(self.state).encode())

    def sweep(self) -> None:
        """Remove chunks that are no longer, or not yet, in the pool."""
        held = {entry["file"] for entry in self.state["chunks"]}
        for file in [*self.folder.glob("chunk-*")]:
            if file.name not in held:
                file.unlink()


def _left(turns: Sequence[Turn]) -> tuple[float, float]:
    """Estimate the duplicates that are left, and an upper bound: from the turns in which most pairs met once."""
    missed, removed = 1.0, 0
    for turn in reversed(turns):
        missed, removed = missed * (1 - turn.met), removed + turn.removed
        if missed < _FEW:
            break
    odds = missed / (1 - missed)
    return removed * odds, (removed + 2 * math.sqrt(removed) + 3) * odds


def _refuse(chunk: int, draw: int, stop: str, below: float, most: int) -> None:
    if stop not in _STOPS:
        raise DataError(f"No rule '{stop}' to stop turns by; choose {' or '.join(_STOPS)}.{did_you_mean(stop, _STOPS)}")
    if chunk < 1 or draw < 2 or most < 1 or not 0 < below < 1:
        raise DataError(
            f"Turns were asked for with chunk {chunk}, draw {draw}, most {most}, below {below}; give chunks of 1 text "
            "or more, 2 or more of them, 1 turn or more, and a share between 0 and 1."
        )
