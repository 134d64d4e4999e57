"""Look inside attention while the model stays on its fast kernel.

A torch function mode, active only while a pattern, q, k or v is asked for, sees the call the model itself makes. Under
sdpa the pattern is recomputed from the q, k, mask and scale of that very call; an edited pattern adds
(edited - pattern) @ v to the output. Under eager attention the softmax is the pattern, read and replaced in place.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["AttentionTap", "as_heads", "attention_pattern", "sdpa_arguments"]

_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax}


def sdpa_arguments(args: tuple, kwargs: dict) -> dict:
    """Return the arguments of a scaled_dot_product_attention call by name."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return {
        "attn_mask": None,
        "is_causal": False,
        "scale": None,
        "enable_gqa": False,
        **dict(zip(names, args, strict=False)),
        **kwargs,
    }


def as_heads(x: Tensor, heads: int) -> Tensor:
    """Return keys or values [batch, head, seq, d_head] with `heads` heads: shared ones repeated, or repeats dropped.

    A model repeats the shared heads of grouped-query attention for some kernels and not for others.
    """
    if x.shape[1] == heads:
        return x
    if x.shape[1] < heads:
        return x.repeat_interleave(heads // x.shape[1], dim=1)
    return x[:, :: x.shape[1] // heads]


def attention_pattern(call: dict) -> Tensor:
    """Return softmax(q k' * scale + mask), [batch, head, query, key], for the arguments of an sdpa call."""
    q, k, mask = call["query"], call["key"], call["attn_mask"]
    scores = q @ as_heads(k, q.shape[1]).transpose(-1, -2) * (call["scale"] or 1 / math.sqrt(q.shape[-1]))
    if call["is_causal"]:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).nan_to_num()  # a padded query sees nothing: its row is zero, not NaN


class AttentionTap(TorchFunctionMode):
    """Route q, k, v and the pattern of the current block through `visit(block, place, tensor) -> tensor`.

    Args:
        wanted: (block, place) pairs to visit, place in q, k, v, pattern.
        visit: returns the tensor unchanged, or its replacement.
        kv_heads: number of key/value heads of each block; keys and values are shown with that many.
    """

    def __init__(self, wanted: set[tuple[int, str]], visit: Callable[[int, str, Tensor], Tensor], kv_heads: list[int]):
        super().__init__()
        self.wanted, self.visit, self.kv_heads, self.block = wanted, visit, kv_heads, None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.block is None or (func not in _SOFTMAX and func is not F.scaled_dot_product_attention):
            return func(*args, **kwargs)
        block = self.block
        if func is not F.scaled_dot_product_attention:
            out = func(*args, **kwargs)
            return self.visit(block, "pattern", out) if (block, "pattern") in self.wanted and out.ndim == 4 else out
        call = sdpa_arguments(args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            for place, name in (("q", "query"), ("k", "key"), ("v", "value")):
                if (block, place) in self.wanted:
                    shown = call[name] if place == "q" else as_heads(call[name], self.kv_heads[block])
                    call[name] = as_heads(self.visit(block, place, shown), call[name].shape[1])
            if (block, "pattern") in self.wanted:
                pattern = attention_pattern(call)
                edited = self.visit(block, "pattern", pattern)
                change = (edited - pattern) @ as_heads(call["value"], edited.shape[1]) if edited is not pattern else 0
                return func(**call) + change
        return func(**call)
