"""Join recordings of some rows each into one of the whole batch, so that a recording never runs all rows at once.

What belongs to rows is put together: keys, values, masks, and the arguments of a block that have one entry a row
(rotary tables, position ids). A part without padding comes without a mask; beside parts with one it gets the causal
mask that its absence stands for. All else is the same for every part.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.engine.replay import Recording
from microtome.models.batch import Batch

__all__ = ["join_recordings"]


def join_recordings(batch: Batch, parts: Sequence[Recording]) -> Recording:
    """Return the recording of a batch (arguments and attention calls) from those of its rows in order.

    Args:
        batch: all rows.
        parts: recordings of two rows or more each, over the same blocks; they are emptied, so little is held twice.
    """
    sizes = [len(part.batch) for part in parts]
    out = Recording(batch, causal=all(part.causal for part in parts))
    for i in tuple(parts[0].arguments):
        out.arguments[i] = _joined([part.arguments.pop(i) for part in parts], sizes, batch.seq)
        out.attention[i] = _joined_calls([part.attention.pop(i) for part in parts], sizes)
    return out


def _joined(values: Sequence[object], sizes: list[int], seq: int) -> object:
    """Return one argument of a block: one entry a row where the parts have that (as `replay` sees it)."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _joined([v[key] for v in values], sizes, seq) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(_joined(each, sizes, seq) for each in zip(*values, strict=True))
    if any(v is None for v in values) or not isinstance(first, Tensor):
        return first  # a mask that some parts lack is not looked at: replaying drops it
    per_row = first.ndim >= 2 and all(v.shape[0] == n for v, n in zip(values, sizes, strict=True))
    if per_row and (first.shape[1] == seq or (first.ndim == 4 and first.shape[-1] == seq)):
        return torch.cat(list(values))
    return first


def _joined_calls(calls: Sequence[dict], sizes: list[int]) -> dict:
    """Return one attention call."""
    joined = {name: torch.cat([call.pop(name) for call in calls]) for name in ("key", "value")}
    masks = [call["attn_mask"] for call in calls]
    like = next((m for m in masks if m is not None), None)
    if like is None:
        return calls[0] | joined
    masks = [_causal(like) if m is None else m for m in masks]
    rows = [m.expand(n, -1, -1, -1) for m, n in zip(masks, sizes, strict=True)]
    return calls[0] | joined | {"attn_mask": torch.cat(rows), "is_causal": False}


def _causal(like: Tensor) -> Tensor:
    """Return the causal mask in the form of another mask, [1, 1, seq, seq]."""
    seen = torch.ones(like.shape[-2:], dtype=torch.bool, device=like.device).tril()[None, None]
    if like.dtype == torch.bool:
        return seen
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)
