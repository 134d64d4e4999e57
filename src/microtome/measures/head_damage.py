"""What damping directions of an output head takes, to stand beside every result: shares of the space, and clean KL.

Damping changes logits by dz, and ``KL(p || p') <= (max dz - min dz)^2 / 8`` always (Hoeffding's lemma: the KL is half a
variance of dz under some tilted p); for small edits it nears half the variance of dz under p.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError

__all__ = ["Damage", "damage"]

_CHUNK = 4096


class Damage(NamedTuple):
    """What a damping of k directions takes: to stand beside every result.

    Attributes:
        share: k / d.
        spectrum: sum of the chosen s^2 over the sum of all.
        energy: mean share of |h|^2 that the edit takes from the hidden states given.
        kl: mean KL divergence of the edited from the unedited next-token distribution, nats.
        bound: mean of (largest - smallest change of a logit)^2 / 8, which the KL never passes.
    """

    share: float
    spectrum: float
    energy: float
    kl: float
    bound: float


def damage(
    hidden: Float[Tensor, "n d"],
    edited: Float[Tensor, "n d"],
    weight: Float[Tensor, "vocab d"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    singular: Float[Tensor, " d"] | None = None,
    units: Int[Tensor, " k"] | None = None,
    rows: int = 256,
) -> Damage:
    """Return what an edit of the head's input does on (clean) hidden states.

    Args:
        hidden: states at the head's input.
        edited: the same after the edit.
        weight: of the head.
        bias: of the head, if it has one.
        singular: singular values of the head, for `spectrum`; None gives 0 there.
        units: which of them are damped.
        rows: states at a time.

    Raises:
        MeasureError: the shapes differ.
    """
    if hidden.shape != edited.shape or hidden.ndim != 2 or len(hidden) == 0:
        raise MeasureError(f"States before and after were asked for, found {list(hidden.shape)}, {list(edited.shape)}.")
    k = 0 if units is None else len(units)
    share = 0.0 if singular is None else float(singular[units].square().sum() / singular.square().sum())
    kl, bound, taken = 0.0, 0.0, 0.0
    for h, e in zip(hidden.double().split(rows), edited.double().split(rows), strict=True):
        before, after = (_logits(x.cpu(), weight, bias) for x in (h, e))
        change = after - before
        before, after = before.log_softmax(1), after.log_softmax(1)
        kl += float((before.exp() * (before - after)).sum())
        bound += float((change.amax(1) - change.amin(1)).square().sum() / 8)
        taken += float((1 - e.square().sum(1) / h.square().sum(1).clamp(min=1e-300)).sum())
    n = len(hidden)
    return Damage(k / hidden.shape[1], share, taken / n, kl / n, bound / n)


def _logits(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = torch.cat([h @ w.double().cpu().T for w in weight.split(_CHUNK)], 1)
    return logits if bias is None else logits + bias.double().cpu()
