"""A set of tokens as what is said: its probability at the output, and its odds against another set.

    SetProbability   P(next token in T)                           in [0, 1]
    SetOdds          log P(next in T) - log P(next in F)          for yes against no

Both follow the `Metric` protocol (see `outputs`), are differentiable, and average over the positions they read.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.measures.outputs import Positions

__all__ = ["SetOdds", "SetProbability"]


@dataclass(frozen=True, eq=False)
class SetProbability:
    """Probability that the next token is one of a set.

    Args:
        tokens: ids of the set.
        positions: "last", or positions [batch] or [batch, n].

    Raises:
        MeasureError: the set is empty, or (when called) an id outside the vocabulary.
    """

    tokens: Int[Tensor, " t"]
    positions: Positions = "last"

    def __post_init__(self):
        object.__setattr__(self, "tokens", _distinct(self.tokens))

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the probability [rows]."""
        return _log_mass(logits, self.tokens).exp().mean(1)


@dataclass(frozen=True, eq=False)
class SetOdds:
    """Log-odds of one set of tokens against another.

    Args:
        yes: ids of the one set.
        no: ids of the other; None: all tokens that are not in the first.
        positions: as for `SetProbability`.

    Raises:
        MeasureError: a set is empty, or (when called) an id outside the vocabulary.
    """

    yes: Int[Tensor, " t"]
    no: Int[Tensor, " f"] | None = None
    positions: Positions = "last"

    def __post_init__(self):
        object.__setattr__(self, "yes", _distinct(self.yes))
        if self.no is not None:
            object.__setattr__(self, "no", _distinct(self.no))

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the log-odds [rows], in nats."""
        rest = self.no if self.no is not None else _others(self.yes, logits.shape[-1])
        return (_log_mass(logits, self.yes) - _log_mass(logits, rest)).mean(1)


def _distinct(tokens: Tensor) -> Tensor:
    found = torch.as_tensor(tokens).long().unique()
    if found.ndim != 1 or not len(found):
        raise MeasureError("A set of tokens was asked for, found none; give at least one id.")
    return found


def _others(tokens: Tensor, vocab: int) -> Tensor:
    rest = torch.ones(vocab, dtype=torch.bool)
    rest[tokens.cpu()] = False
    return rest.nonzero()[:, 0]


def _log_mass(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of the set, [rows, n]."""
    x = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if not 0 <= tokens.min() <= tokens.max() < x.shape[-1]:
        raise MeasureError(
            f"A set of tokens up to {tokens.max().item()} was asked for, found a vocabulary of {x.shape[-1]}; use this "
            "model's tokenizer."
        )
    return x[..., tokens.to(x.device)].logsumexp(-1) - x.logsumexp(-1)
