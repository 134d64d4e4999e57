"""Output metrics: what a sweep or a gradient reads at the logits, one number per item.

    LogitDiff    logit(answer) - logit(counterfactual)          the primary metric: linear in the last residual
    LogProb      log p(answer), summed over the tokens of a full answer;  Probability is its exponential
    Accuracy     1 where greedy decoding says the answer; tokens tied at the top share the credit
    Rank         1 + tokens above the answer + half of those tied with it
    KL, JS       divergence from reference logits, in nats, averaged over the positions read
    Stack        several of these at once

All follow the `Metric` protocol: `positions` and a call with logits [rows, n, vocab] and item indices [rows]. Values
come from each row alone (a batch may be split anywhere). Half precision is computed in float32, float64 stays
float64. All but Accuracy and Rank are differentiable. Decoding is not done here: a full answer is scored under
teacher forcing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.protocols import Metric

__all__ = ["JS", "KL", "Accuracy", "LogProb", "LogitDiff", "Probability", "Rank", "Stack"]

Positions = str | Tensor


@dataclass(frozen=True, eq=False)
class LogitDiff:
    """Logit of the answer minus logit of the counterfactual answer.

    Args:
        answer: token ids [batch].
        counterfactual: token ids [batch].
        positions: "last" or one position per item.

    Raises:
        MeasureError: unequal lengths, a negative id, or (when called) an id outside the vocabulary.
    """

    answer: Tensor
    counterfactual: Tensor
    positions: Positions = "last"

    def __post_init__(self):
        _tokens(self, "answer", 1)
        _tokens(self, "counterfactual", 1)
        _places(self, len(self.answer))
        if len(self.answer) != len(self.counterfactual):
            raise MeasureError(
                f"LogitDiff got {len(self.answer)} answers and {len(self.counterfactual)} counterfactual answers; "
                "give one of each per item."
            )

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the difference [rows]."""
        x = _one(self, logits, rows, len(self.answer))
        pair = torch.stack([_ids(self.answer, rows, x), _ids(self.counterfactual, rows, x)], 1)
        first, second = x.gather(1, pair).unbind(1)
        return first - second


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-probability of the answer, in nats; of a full answer, the sum over its tokens (teacher forcing).

    Args:
        answer: token ids [batch], or [batch, n] with -1 behind the end of a shorter answer.
        positions: "last", or the positions [batch] or [batch, n] whose logits predict those tokens.

    Raises:
        MeasureError: shapes that do not fit, or (when called) an id outside the vocabulary.
    """

    answer: Tensor
    positions: Positions = "last"

    def __post_init__(self):
        _tokens(self, "answer", 2)
        _places(self, *self.answer.shape)

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the log-probability [rows]."""
        x = _checked(self, logits, rows, *self.answer.shape)
        ids = _ids(self.answer, rows, x)
        found = x.gather(2, ids.clamp_min(0)[..., None])[..., 0] - x.logsumexp(2)
        return found.where(ids >= 0, torch.zeros_like(found)).sum(1)


@dataclass(frozen=True, eq=False)
class Probability(LogProb):
    """Probability of the answer (of all its tokens); arguments as for `LogProb`."""

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the probability [rows]."""
        return super().__call__(logits, rows).exp()


@dataclass(frozen=True, eq=False)
class Accuracy:
    """1 where greedy decoding gives the answer, at every token of it; m tokens tied at the top earn 1/m each.

    Sharing the credit is the expectation of breaking ties at random: a network whose logits are all equal scores
    exactly chance.

    Args:
        answer: token ids [batch], or [batch, n] with -1 behind the end of a shorter answer.
        positions: "last", or positions [batch] or [batch, n].
        among: token ids [m] the choice is confined to (constrained decoding); it must hold every answer.

    Raises:
        MeasureError: shapes that do not fit, an answer outside `among`, or an id outside the vocabulary.
    """

    answer: Tensor
    positions: Positions = "last"
    among: Tensor | None = None

    def __post_init__(self):
        _tokens(self, "answer", 2)
        _places(self, *self.answer.shape)
        if self.among is None:
            return
        _tokens(self, "among", 1)
        object.__setattr__(self, "among", self.among.unique())
        outside = self.answer[(self.answer >= 0) & ~torch.isin(self.answer, self.among)]
        if len(outside):
            raise MeasureError(
                f"Accuracy among {len(self.among)} tokens: answer {outside[0].item()} is not one of them; add it."
            )

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the accuracy [rows], in the dtype of the logits."""
        x = _checked(self, logits, rows, *self.answer.shape)
        ids = _ids(self.answer, rows, x)
        own = x.gather(2, ids.clamp_min(0)[..., None])
        if self.among is not None:
            x = x[..., self.among.to(x.device)]
        right = (own[..., 0] >= x.amax(2)).to(x.dtype) / (x == own).sum(2)
        return right.where(ids >= 0, torch.ones_like(right)).prod(1)


@dataclass(frozen=True, eq=False)
class Rank:
    """Rank of the answer among all tokens, 1 the best; tied tokens count half (mid-rank).

    Args:
        answer: token ids [batch].
        positions: "last" or one position per item.

    Raises:
        MeasureError: shapes that do not fit, or (when called) an id outside the vocabulary.
    """

    answer: Tensor
    positions: Positions = "last"

    def __post_init__(self):
        _tokens(self, "answer", 1)
        _places(self, len(self.answer))

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the rank [rows], in the dtype of the logits."""
        x = _one(self, logits, rows, len(self.answer))
        own = x.gather(1, _ids(self.answer, rows, x)[:, None])
        above, tied = (x > own).sum(1), (x == own).sum(1) - 1
        return 1 + above.to(x.dtype) + tied.to(x.dtype) / 2


@dataclass(frozen=True, eq=False)
class KL:
    """Kullback-Leibler divergence between reference and current next-token distributions, in nats.

    Args:
        reference: logits [batch, vocab] or [batch, n, vocab].
        positions: "last", or positions [batch] or [batch, n].
        direction: "from_reference" is KL(reference || now); "to_reference" is KL(now || reference).

    Raises:
        MeasureError: an unknown direction, NaN in the reference, or shapes that do not fit.
    """

    reference: Tensor
    positions: Positions = "last"
    direction: str = "from_reference"

    def __post_init__(self):
        _references(self)
        if self.direction not in ("from_reference", "to_reference"):
            raise MeasureError(
                f"KL direction '{self.direction}' is not known; choose 'from_reference' or 'to_reference'."
            )

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the divergence [rows], averaged over positions."""
        p, q = _log_pair(self, logits, rows)
        return _kl(*((p, q) if self.direction == "from_reference" else (q, p))).mean(1)


@dataclass(frozen=True, eq=False)
class JS:
    """Jensen-Shannon divergence between reference and current distributions, in nats: 0 to ln 2, symmetric.

    Args:
        reference: logits [batch, vocab] or [batch, n, vocab].
        positions: "last", or positions [batch] or [batch, n].

    Raises:
        MeasureError: NaN in the reference, or shapes that do not fit.
    """

    reference: Tensor
    positions: Positions = "last"

    def __post_init__(self):
        _references(self)

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the divergence [rows], averaged over positions."""
        p, q = _log_pair(self, logits, rows)
        middle = torch.logaddexp(p, q) - math.log(2)
        return ((_kl(p, middle) + _kl(q, middle)) / 2).clamp_max(math.log(2)).mean(1)


@dataclass(frozen=True, eq=False)
class Stack:
    """Several metrics read from one pass, [rows, m].

    Args:
        metrics: metrics that look at the same positions.

    Raises:
        MeasureError: no metric, or metrics that look at different positions.
    """

    metrics: Sequence[Metric]

    def __post_init__(self):
        object.__setattr__(self, "metrics", tuple(self.metrics))
        if not self.metrics:
            raise MeasureError("Stack got no metric; give at least one.")
        first = self.metrics[0].positions
        for i, metric in enumerate(self.metrics[1:], 1):
            if not _same_places(first, metric.positions):
                raise MeasureError(f"Stack: metrics 0 and {i} look at different positions; give them the same ones.")

    @property
    def positions(self) -> Positions:
        """The positions all of them look at."""
        return self.metrics[0].positions

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the values [rows, m]."""
        return torch.stack([metric(logits, rows) for metric in self.metrics], 1)


def _same_places(a: Positions, b: Positions) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and a == b
    return a.shape[0] == b.shape[0] and torch.equal(a.reshape(len(a), -1), b.reshape(len(b), -1))


def _whole(owner: Any, name: str) -> Tensor:
    found = torch.as_tensor(getattr(owner, name))
    if found.is_floating_point() or found.dtype == torch.bool or found.is_complex():
        raise MeasureError(f"{type(owner).__name__} {name} must be whole numbers, found {found.dtype}; pass token ids.")
    return found.long()


def _tokens(owner: Any, name: str, ndim: int) -> None:
    """Store token ids as [batch] (ndim 1) or [batch, n] (ndim 2); -1 may stand in the latter, behind an answer."""
    found = _whole(owner, name)
    if ndim == 2 and found.ndim == 1:
        found = found[:, None]
    if found.ndim != ndim or not found.numel():
        raise MeasureError(
            f"{type(owner).__name__} {name} has shape {list(found.shape)}; give "
            f"[batch]{' or [batch, n]' * (ndim == 2)}."
        )
    least = found.min().item()
    if least < 0 and (ndim == 1 or least < -1 or not _ends_in_padding(found)):
        raise MeasureError(
            f"{type(owner).__name__} {name} holds id {least}; ids are >= 0"
            f"{' (-1 only behind the last token of an answer)' * (ndim == 2)}."
        )
    object.__setattr__(owner, name, found)


def _ends_in_padding(ids: Tensor) -> bool:
    held = ids >= 0
    return bool(held[:, 0].all()) and not bool((held[:, 1:] & ~held[:, :-1]).any())


def _places(owner: Any, batch: int, n: int = 1) -> None:
    if isinstance(owner.positions, str):
        if owner.positions != "last" or n != 1:
            raise MeasureError(
                f"{type(owner).__name__} positions='{owner.positions}' with {n} tokens per answer; "
                "give 'last' for one token, else a tensor [batch, n]."
            )
        return
    found = _whole(owner, "positions")
    if found.reshape(len(found), -1).shape != (batch, n):
        raise MeasureError(
            f"{type(owner).__name__} positions have shape {list(found.shape)}; {batch} items with {n} tokens need "
            f"[{batch}, {n}]."
        )
    object.__setattr__(owner, "positions", found)


def _references(owner: Any) -> None:
    found = owner.reference[:, None] if owner.reference.ndim == 2 else owner.reference
    if found.ndim != 3 or not found.numel() or not found.is_floating_point():
        raise MeasureError(
            f"{type(owner).__name__} reference has shape {list(owner.reference.shape)} and {owner.reference.dtype}; "
            "give logits [batch, n, vocab]."
        )
    if found.isnan().any():
        raise MeasureError(f"{type(owner).__name__} reference holds NaN; compute it again before comparing with it.")
    object.__setattr__(owner, "reference", found.detach())
    _places(owner, found.shape[0], found.shape[1])


def _checked(metric: Any, logits: Tensor, rows: Tensor, batch: int, n: int) -> Tensor:
    """Return the logits in a dtype to compute in, after checking that they fit the metric."""
    name = type(metric).__name__
    if logits.ndim != 3 or logits.shape[:2] != (len(rows), n):
        raise MeasureError(f"{name} got logits {list(logits.shape)}; {len(rows)} rows need [{len(rows)}, {n}, vocab].")
    if len(rows) and not 0 <= rows.min().item() <= rows.max().item() < batch:
        raise MeasureError(f"{name} was asked for item {rows.max().item()}; it holds {batch} items (0-{batch - 1}).")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _one(metric: Any, logits: Tensor, rows: Tensor, batch: int) -> Tensor:
    return _checked(metric, logits, rows, batch, 1)[:, 0]


def _ids(ids: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    found = ids.to(x.device)[rows.to(x.device)]
    if found.numel() and found.max().item() >= x.shape[-1]:
        raise MeasureError(
            f"Token {found.max().item()} is outside the vocabulary of {x.shape[-1]}; use this model's tokenizer."
        )
    return found


def _log_pair(metric: Any, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return reference and current log-probabilities [rows, n, vocab], both from one routine in one dtype."""
    batch, n, vocab = metric.reference.shape
    x = _checked(metric, logits, rows, batch, n)
    if x.shape[2] != vocab:
        raise MeasureError(
            f"{type(metric).__name__} got {x.shape[2]} logits per position, its reference has {vocab}; "
            "compare runs of one model."
        )
    at = rows.to(metric.reference.device)
    reference = metric.reference[at].to(device=x.device, dtype=x.dtype)
    return reference.log_softmax(2), x.log_softmax(2)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of log-probabilities; a token of probability 0 adds 0, and rounding cannot make the sum negative."""
    mass = p.exp()
    return (mass * (p - q).where(mass > 0, torch.zeros_like(p))).sum(2).clamp_min(0)
