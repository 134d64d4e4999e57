"""Cross-entropy and log Z of every token, in pieces, with the gradient written down rather than recorded.

    log Z = log sum_v exp x_v          cross-entropy = log Z - x_t
    gradient of  a * cross-entropy + b * log Z   to x_v:   (a + b) exp(x_v - log Z) - a [v = t]

The recorded graph of a softmax and a gather holds three matrices [places, vocab] in float32 and fills a fourth with
zeros; here none is held but the logits themselves, in the precision they came in, and a piece at a time is widened.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.training.packing import NO_TARGET

__all__ = ["TokenLosses", "token_losses"]

_PIECE = 1 << 22  # logits that are widened at a time


class TokenLosses(NamedTuple):
    """What a batch costs, token by token.

    Attributes:
        cross_entropy: of each place; 0 where there is no target.
        log_z: logarithm of the softmax's denominator at each place; 0 where there is no target.
    """

    cross_entropy: Float[Tensor, " places"]
    log_z: Float[Tensor, " places"]


def token_losses(logits: Float[Tensor, "batch seq vocab"], wanted: Int[Tensor, "batch seq"]) -> TokenLosses:
    """Return the cross-entropy at each place, and the logarithm of the softmax's denominator.

    Args:
        logits: of the model, in any precision; sums are in float32 or finer.
        wanted: the token to predict at each place, -100 for none (`packing.targets`).
    """
    return TokenLosses(*_TokenLosses.apply(logits.flatten(0, 1), wanted.flatten()))


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        pieces = [_forward(x, t) for x, t in zip(_pieces(logits), _pieces(aim, logits), strict=True)]
        cross_entropy, log_z = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        ctx.save_for_backward(logits, aim, log_z)
        return cross_entropy, log_z

    @staticmethod
    def backward(ctx, of_cross_entropy: Tensor, of_log_z: Tensor) -> tuple[Tensor, None]:
        logits, aim, log_z = ctx.saved_tensors
        held = (aim != NO_TARGET).to(log_z.dtype)
        taken, whole = of_cross_entropy * held, (of_cross_entropy + of_log_z) * held
        gradient = torch.empty_like(logits)
        parts = (_pieces(t, logits) for t in (logits, aim, log_z, taken, whole, gradient))
        for x, t, z, a, ab, into in zip(*parts, strict=True):
            p = x.to(z.dtype, copy=True).sub_(z[:, None]).exp_().mul_(ab[:, None])
            p.scatter_add_(1, t.clamp(min=0)[:, None], -a[:, None])
            into.copy_(p)
        return gradient, None


def _forward(x: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    wide = x if x.dtype == torch.float64 else x.float()
    held = aim != NO_TARGET
    log_z = torch.logsumexp(wide, 1)
    chosen = wide.gather(1, aim.clamp(min=0)[:, None])[:, 0]
    return (log_z - chosen) * held, log_z * held


def _pieces(x: Tensor, of: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return a tensor in pieces of as many rows as make up `_PIECE` logits."""
    return x.split(max(1, _PIECE // (x if of is None else of).shape[1]))
