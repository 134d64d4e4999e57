"""The prefix that new values at one position of each row leave alone, recorded by plain forwards of some rows each.

Kept are, for the blocks that will be replayed, their arguments and the keys and values of the positions before the
edited ones; where replaying may begin, the residual of the later positions. `suffix.py` replays on it.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from microtome.core.site import Site
from microtome.engine.attention import as_heads
from microtome.engine.join import join_recordings
from microtome.engine.replay import Recording, record
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Prefix", "activations_at", "record_prefix"]

_ROWS = 16  # in one forward: what a forward needs for a moment should not outweigh what is kept


@dataclass(frozen=True)
class Prefix:
    """What does not change: keys and values, and where each entry block begins the residual of the later positions.

    Attributes:
        recording: arguments and attention calls of the blocks above the sites.
        first: position of the first column of `rest`.
        rest: block -> residual entering it at positions first.., [batch, seq - first, d_model].
    """

    recording: Recording
    first: int
    rest: dict[int, Tensor]


def activations_at(
    model: Model, batch: Batch, sites: Sequence[Site], positions: Int[Tensor, " batch"], *, after: Sequence[str] = ()
) -> dict[Site, Tensor]:
    """Return activations at one position of each row, [batch, *unit] by site, holding no others.

    The forward, without gradients, ends once `sites` and the sites named by `after` have been seen.

    Raises:
        SiteError: a site does not exist.
    """
    values: dict[Site, Tensor] = {}
    items = torch.arange(len(batch), device=positions.device)

    def sink(site: Site, x: Tensor) -> None:
        if site in sites:
            values[site] = x[items, positions]

    run(model, batch, read=[*sites, *after], logits="none", sink=sink)
    return values


def record_prefix(
    model: Model, batch: Batch, positions: Int[Tensor, " batch"], sites: Sequence[Site], entries: Collection[int]
) -> tuple[Prefix, dict[Site, Tensor]]:
    """Return the prefix, and the activations of some sites at the edited positions, by site.

    Args:
        model: the model.
        batch: the prompts.
        positions: the edited position of each row.
        sites: whose activations are wanted.
        entries: the blocks at whose beginning replaying may begin; one past the last is the residual's end.
    """
    first, end = int(positions.min()) + 1, int(positions.max())
    rows = torch.arange(len(batch), device=positions.device).tensor_split(math.ceil(len(batch) / _ROWS))
    with torch.inference_mode(False), torch.no_grad():
        parts = [_record_rows(model, batch.select(r), positions[r], sites, entries, first, end) for r in rows]
        recording = join_recordings(batch, [prefix.recording for prefix, _ in parts])
        rest = {i: torch.cat([prefix.rest[i] for prefix, _ in parts]) for i in entries}
        return Prefix(recording, first, rest), {s: torch.cat([values[s] for _, values in parts]) for s in sites}


def _record_rows(
    model: Model,
    batch: Batch,
    positions: Tensor,
    sites: Sequence[Site],
    entries: Collection[int],
    first: int,
    end: int,
) -> tuple[Prefix, dict[Site, Tensor]]:
    """Return the same of a few rows, with the rest from position `first` and keys and values up to `end`."""
    last, values = len(model.anatomy.blocks) - 1, {}
    after = [f"blocks.{last}.{'resid_post' if last + 1 in entries else 'attn.heads'}"]  # nothing later is needed
    blocks = range(min(*entries, last), last + 1)
    whole = record(
        model, batch, lambda: values.update(activations_at(model, batch, sites, positions, after=after)), blocks
    )
    kept = Recording(batch, causal=whole.causal)
    for i in range(min(entries), last + 1):
        args, kwargs = whole.arguments[i]
        kept.arguments[i] = ((None, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": None})
        kept.attention[i] = _cut(whole.attention[i], end, model.anatomy.blocks[i].kv_heads)
    begins = {i: whole.resid_pre[i] if i <= last else whole.resid_post[last] for i in entries}
    return Prefix(kept, first, {i: x[:, first:].clone() for i, x in begins.items()}), values


def _cut(call: dict, end: int, heads: int) -> dict:
    """Return an attention call with the keys and values of positions before `end` only, repeated heads left out."""
    return call | {
        name: as_heads(call[name], heads)[:, :, :end].clone(memory_format=torch.contiguous_format)
        for name in ("key", "value")
    }
