"""What fitting an interchange needs of the model, computed once: base prefixes, base and source activations.

A pair is a base prompt, a source prompt and the tokens that the base should be answered with once something of the
source has been put into it: the source's answer (cause) or the base's own (isolate). Neither the two activations nor
anything before the site depend on the basis being fitted, so each different base prompt is recorded once
(`engine/suffix.py`), each different source prompt is run once and only up to the site, for all pairs, attributes and
sites. Bases are recorded in buckets of like length; minibatches are drawn within buckets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import DataError
from microtome.core.seeds import derive
from microtome.core.site import Site
from microtome.engine.plan import parse_bytes
from microtome.engine.prefix import activations_at
from microtome.engine.suffix import Suffix, record_suffix
from microtome.models.model import Model

__all__ = ["IGNORED", "Swaps", "TokenPairs", "chosen", "record_swaps"]

IGNORED = -100  # a label that does not count


@dataclass(frozen=True)
class TokenPairs:
    """Pairs of prompts as token ids.

    Attributes:
        bases: the base prompts, one row of ids a pair.
        sources: the source prompts.
        labels: the tokens that should follow each base prompt, one or several.
        base_at: the edited position of each base prompt (negative: from its end); an int is meant for all.
        source_at: the position of each source prompt whose activation is put in.
        blocks: which block of a joint basis is swapped in each pair; empty means the only one.

    Raises:
        DataError: no pairs, an empty label, a position outside its prompt, or lists of different lengths.
    """

    bases: Sequence[Sequence[int]]
    sources: Sequence[Sequence[int]]
    labels: Sequence[Sequence[int]]
    base_at: int | Sequence[int] = -1
    source_at: int | Sequence[int] = -1
    blocks: Sequence[int] = ()

    def __post_init__(self):
        n = len(self.bases)
        counts = {"sources": len(self.sources), "labels": len(self.labels), "blocks": len(self.blocks) or n}
        wrong = next((name for name, count in counts.items() if count != n), None)
        if n == 0 or wrong:
            found = "none" if n == 0 else f"{n} bases and {counts[wrong]} {wrong}"
            raise DataError(f"Pairs were asked for, found {found}; give one of each for every pair.")
        for i, label in enumerate(self.labels):
            if not label:
                raise DataError(f"Pair {i} has an empty label; give at least one token to answer with.")
        for name, prompts in (("base_at", self.bases), ("source_at", self.sources)):
            object.__setattr__(self, name, _positions(name, getattr(self, name), prompts))

    def __len__(self) -> int:
        return len(self.bases)


@dataclass(frozen=True, eq=False)
class Swaps:
    """Pairs over one recorded bucket, at one site.

    Attributes:
        suffix: the recorded base prompts.
        site: where the values are put in.
        rows: the base prompt of each pair, [n].
        source: the source's activation at the site, [n, *unit].
        labels: wanted token at each read position, IGNORED where none is, [n, reads].
        pairs: the number of each pair in the `TokenPairs` it came from, [n].
        blocks: which block of a joint basis is swapped, [n].
        total: how many pairs that `TokenPairs` has.
    """

    suffix: Suffix
    site: Site
    rows: Int[Tensor, " n"]
    source: Float[Tensor, "n *unit"]
    labels: Int[Tensor, "n reads"]
    pairs: Int[Tensor, " n"]
    blocks: Int[Tensor, " n"]
    total: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def base(self) -> Float[Tensor, "n *unit"]:
        """The base's own activation at the site."""
        return self.suffix.values[self.site][self.rows]

    def select(self, items: Tensor) -> "Swaps":
        """Return some of the pairs (indices or a mask over them)."""
        names = ("rows", "source", "labels", "pairs", "blocks")
        return replace(self, **{name: getattr(self, name)[items] for name in names})


def chosen(swaps: Sequence[Swaps], keep: "Bool[Tensor, ' pairs'] | Sequence[bool]") -> list[Swaps]:
    """Return the swaps of some pairs over the same recordings: an attribute's own, or one side of a split.

    Args:
        swaps: as from `record_swaps`.
        keep: True at the pairs wanted, in the order of the `TokenPairs`.
    """
    keep = torch.as_tensor(keep, dtype=torch.bool)
    return [s.select(keep.to(s.pairs.device)[s.pairs]) for s in swaps]


def record_swaps(
    model: Model,
    pairs: TokenPairs,
    sites: "str | Site | Sequence[str | Site]",
    *,
    memory_budget: int | str = "2GiB",
) -> dict[Site, list[Swaps]]:
    """Run every different base and source prompt once and return what fitting at some sites needs.

    Args:
        model: the model.
        pairs: the prompts and the labels.
        sites: where values will be put in; globs allowed.
        memory_budget: bytes of prefixes to hold; the prefixes of bases beyond it are computed anew at every step.

    Returns:
        site -> one `Swaps` for each bucket; all sites share the recordings.

    Raises:
        SiteError: a site does not exist.

    Example:
        >>> pairs = TokenPairs(bases, sources, [[answer] for answer in source_answers])
        >>> swaps = record_swaps(model, pairs, "blocks.4.resid_post")["blocks.4.resid_post"]
    """
    asked = [info.site for info in model.select(sites)]
    with torch.inference_mode(False), torch.no_grad():
        bases, of_pair = _different(pairs)
        buckets, place = _record_bases(model, bases, asked, parse_bytes(memory_budget))
        causal = not any(s.reason for s in buckets)
        known = {b.key(causal): tuple(place[i].tolist()) for i, b in enumerate(bases)}
        source = _sources(model, pairs, asked, buckets, known, causal)
        return {site: _swaps(site, pairs, buckets, place[of_pair], source[site]) for site in asked}


@dataclass(frozen=True)
class _Base:
    """A prompt with all of its answer but the last token, where the answer begins, and the edited position."""

    ids: tuple[int, ...]
    prompt: int
    at: int

    def key(self, causal: bool) -> tuple:
        """What the activation at the edited position depends on."""
        return (self.ids[: self.at + 1] if causal else self.ids, self.at)


def _positions(name: str, at: int | Sequence[int], prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return one position from the start for each prompt."""
    asked = [at] * len(prompts) if isinstance(at, int) else list(at)
    if len(asked) != len(prompts):
        raise DataError(f"{name} has {len(asked)} positions for {len(prompts)} prompts; give one for each.")
    for i, (p, row) in enumerate(zip(asked, prompts, strict=True)):
        if not -len(row) <= p < len(row):
            raise DataError(f"{name} of pair {i} is {p}, its prompt has {len(row)} tokens (0-{len(row) - 1}).")
    return tuple(p % len(row) for p, row in zip(asked, prompts, strict=True))


def _different(pairs: TokenPairs) -> tuple[list[_Base], Tensor]:
    """Return the different bases, and which of them each pair has."""
    index: dict[_Base, int] = {}
    of_pair = []
    for prompt, answer, at in zip(pairs.bases, pairs.labels, pairs.base_at, strict=True):
        base = _Base((*prompt, *answer[:-1]), len(prompt), at)
        of_pair.append(index.setdefault(base, len(index)))
    return list(index), torch.tensor(of_pair)


def _record_bases(model: Model, bases: list[_Base], sites: list[Site], budget: int) -> tuple[list[Suffix], Tensor]:
    """Return the recorded buckets, and for each base its (bucket, row)."""
    buckets: list[Suffix] = []
    place = torch.zeros(len(bases), 2, dtype=torch.long)
    for rows in _buckets(model, bases, budget):
        held = sum(s.bytes for s in buckets)
        keep = held + len(rows) * _row_bytes(model, len(bases[rows[-1]].ids)) <= budget
        place[rows] = torch.tensor([[len(buckets), row] for row in range(len(rows))])
        buckets.append(_record(model, [bases[r] for r in rows], sites, keep))
    return buckets, place


def _buckets(model: Model, bases: list[_Base], budget: int) -> list[list[int]]:
    """Return the bases in lists of like length, a quarter of the budget each.

    What follows the edited position counts most, as that is what every step runs. Bases of one length are shuffled, so
    that pairs sorted by attribute do not make buckets of one attribute.
    """

    def order_of(i: int) -> tuple[int, int, int]:
        length = len(bases[i].ids)
        return length - bases[i].at, length, derive(0, "bucket", i)

    order = sorted(range(len(bases)), key=order_of)
    lists: list[list[int]] = [[]]
    longest = 0
    for i in order:
        longest = max(longest, len(bases[i].ids))
        if lists[-1] and (len(lists[-1]) + 1) * _row_bytes(model, longest) > budget // 4:
            lists.append([])
            longest = len(bases[i].ids)
        lists[-1].append(i)
    return lists


def _row_bytes(model: Model, length: int) -> int:
    """Return about how many bytes recording a row takes: residual, keys and values of every block, and one block."""
    a = model.anatomy
    width = sum(2 * a.d_model + 2 * b.kv_heads * b.d_head for b in a.blocks)
    width += max((3 * b.d_mlp + 4 * b.heads * b.d_head for b in a.blocks), default=0)
    return length * width * model.dtype.itemsize


def _record(model: Model, bases: list[_Base], sites: list[Site], keep: bool) -> Suffix:
    """Record one bucket; a row with a shorter answer reads its last position again and again."""
    batch = model.batch_ids([b.ids for b in bases])
    pad = torch.tensor([batch.seq - len(b.ids) for b in bases])
    at = pad + torch.tensor([b.at for b in bases])
    first = pad + torch.tensor([b.prompt - 1 for b in bases])
    steps = torch.arange(max(len(b.ids) - b.prompt for b in bases) + 1)
    reads = (first[:, None] + steps).clamp(max=batch.seq - 1)
    return record_suffix(model, batch, sites, at.to(model.device), reads.to(model.device), keep=keep)


def _sources(
    model: Model, pairs: TokenPairs, sites: list[Site], buckets: list[Suffix], known: dict, causal: bool
) -> dict[Site, Tensor]:
    """Return the source activations of all pairs; a source that is also a base is not run again."""
    keys = [
        (tuple(ids[: at + 1] if causal else ids), at) for ids, at in zip(pairs.sources, pairs.source_at, strict=True)
    ]
    new = list(dict.fromkeys(k for k in keys if k not in known))
    new.sort(key=lambda k: len(k[0]))
    found: dict[Site, list[Tensor]] = {s: [] for s in sites}
    for first in range(0, len(new), _SOURCES):
        part = new[first : first + _SOURCES]
        batch = model.batch_ids([ids for ids, _ in part])
        at = torch.tensor([batch.seq - len(ids) + p for ids, p in part], device=model.device)
        for site, x in activations_at(model, batch, sites, at).items():
            found[site].append(x)
    starts = [0]
    for s in buckets:
        starts.append(starts[-1] + len(s))
    where = {k: starts[bucket] + row for k, (bucket, row) in known.items()}
    where |= {k: starts[-1] + i for i, k in enumerate(new)}
    index = torch.tensor([where[k] for k in keys], device=model.device)
    return {s: torch.cat([b.values[s] for b in buckets] + found[s])[index] for s in sites}


_SOURCES = 16  # source prompts in one forward


def _swaps(site: Site, pairs: TokenPairs, buckets: list[Suffix], place: Tensor, source: Tensor) -> list[Swaps]:
    """Return the pairs of each bucket."""
    blocks = torch.tensor(pairs.blocks or [0] * len(pairs))
    made = []
    for number, suffix in enumerate(buckets):
        mine = (place[:, 0] == number).nonzero().squeeze(1)
        labels = torch.full((len(mine), suffix.reads.shape[1]), IGNORED)
        for row, pair in enumerate(mine.tolist()):
            labels[row, : len(pairs.labels[pair])] = torch.as_tensor(pairs.labels[pair])
        device = source.device
        columns = (place[mine, 1], source[mine.to(device)], labels, mine, blocks[mine])
        made.append(Swaps(suffix, site, *(x.to(device) for x in columns), len(pairs)))
    return made
