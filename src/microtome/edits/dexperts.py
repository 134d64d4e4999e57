"""DExperts: let two other models argue over the next token, one that has the behaviour and one that avoids it.

    z' = z + alpha (z+ - z-)      over the base's nucleus (least set of tokens with probability top_p); -inf elsewhere

Liu et al. 2021 (arXiv 2105.03023): the nucleus is the base's, taken before the experts speak. alpha = 0, or two experts
that agree, give the base (within its nucleus; top_p = 1 keeps all).

On texts at hand this is an `Edit` of `logits`, whose value holds the experts' logits of the same tokens. While
generating, the experts must read each new token as it is drawn, which an edit of one model's tensor cannot do: there it
is a rule of `generate` (`rules=`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import EditError
from microtome.engine.edit import Edit
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["DExperts", "combine", "dexperts"]


def combine(
    base: Float[Tensor, "*n vocab"],
    good: Float[Tensor, "*n vocab"],
    bad: Float[Tensor, "*n vocab"],
    *,
    alpha: float = 2.0,
    top_p: float = 0.9,
) -> Float[Tensor, "*n vocab"]:
    """Return the combined logits.

    Args:
        base: logits of the model.
        good: of the expert, z+.
        bad: of the anti-expert, z-.
        alpha: how loud the experts are.
        top_p: mass of the base's nucleus, above 0; 1 keeps every token.

    Raises:
        EditError: top_p is not in (0, 1], or the vocabularies differ.
    """
    if not 0 < top_p <= 1:
        raise EditError(f"DExperts with a nucleus of {top_p} was asked for; give a mass above 0 and at most 1.")
    if not base.shape == good.shape == bad.shape:
        raise EditError(
            f"DExperts over logits {list(base.shape)} was asked for, found experts of {list(good.shape)} and "
            f"{list(bad.shape)}; use models of one vocabulary on the same tokens."
        )
    mixed = base + alpha * (good.to(base) - bad.to(base))
    return mixed if top_p == 1 else mixed.masked_fill(~_nucleus(base, top_p), -torch.inf)


@dataclass(frozen=True, eq=False)
class _Experts:
    """The value of the edit: the experts' logits, token by token."""

    good: Tensor
    bad: Tensor
    alpha: float
    top_p: float

    def new(self, f, units, rows, positions, encode):
        """Return the combined logits of some tokens."""
        good, bad = (z[rows.to(z.device), positions.to(z.device)].to(f) for z in (self.good, self.bad))
        return combine(f, good, bad, alpha=self.alpha, top_p=self.top_p)


def dexperts(good: Model, bad: Model, batch: Batch, *, alpha: float = 2.0, top_p: float = 0.9) -> Edit:
    """Return the edit of the base's logits on a batch; the experts run on it here.

    Args:
        good: the expert.
        bad: the anti-expert.
        batch: the inputs that the base will be run on.
        alpha: how loud they are.
        top_p: mass of the base's nucleus.

    Raises:
        EditError: at the run, if the vocabularies differ.
    """
    return Edit("logits", _Experts(run(good, batch).logits, run(bad, batch).logits, alpha, top_p))


@dataclass(frozen=True, eq=False)
class DExperts:
    """The rule for `generate`: both experts read what has been written so far, at every step.

    Attributes:
        good: the expert.
        bad: the anti-expert.
        alpha: how loud they are.
        top_p: mass of the base's nucleus.
    """

    good: Model
    bad: Model
    alpha: float = 2.0
    top_p: float = 0.9

    def __call__(
        self, ids: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"], logits: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Return the combined logits of the next token."""
        spoken = (self._next(m, ids, mask).to(logits) for m in (self.good, self.bad))
        return combine(logits, *spoken, alpha=self.alpha, top_p=self.top_p)

    @staticmethod
    def _next(model: Model, ids: Tensor, mask: Tensor) -> Tensor:
        batch = model.batch_ids([row[keep].tolist() for row, keep in zip(ids, mask, strict=True)])
        return run(model, batch, logits="last").logits[:, -1]


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return which tokens are in the least set whose probability reaches top_p; the first always is."""
    p, order = logits.softmax(-1).sort(-1, descending=True)
    before = p.cumsum(-1) - p
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before < top_p)
