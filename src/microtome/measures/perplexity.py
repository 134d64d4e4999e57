"""Perplexity of clean texts: what an edit costs where nothing should change.

    tokens          exp(summed loss / tokens): every token of every text counts once, the first one too after BOS
    sentence mean   mean over texts of each one's own (the EigenShift code's number: no BOS; a few short texts dominate)

Losses come by text, so that texts can be resampled, and are summed in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights

__all__ = ["Perplexity", "perplexity", "text_losses", "unbounded_interval", "weighted_perplexity"]


def text_losses(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed negative log-likelihood of every text, and how many tokens it sums: all but the first.

    Start texts with BOS and the first word counts too; without, a text of one token has no loss.

    Args:
        logits: [batch, seq, vocab].
        ids: token ids, [batch, seq].
        mask: True at real tokens; padding predicts nothing and is not predicted.

    Raises:
        MeasureError: shapes that do not fit, or NaN logits at real tokens.
    """
    if logits.shape[:2] != ids.shape or mask.shape != ids.shape:
        raise MeasureError(
            f"Losses of logits {list(logits.shape)}, ids {list(ids.shape)}, mask {list(mask.shape)}; give [batch, seq, "
            "vocab] and twice [batch, seq]."
        )
    scored = mask[:, 1:] & mask[:, :-1]
    loss = torch.zeros(scored.shape, dtype=torch.float64, device=logits.device)
    for row, chosen in enumerate(scored):
        z = logits[row, :-1][chosen].double()
        loss[row, chosen] = z.logsumexp(1) - z.gather(1, ids[row, 1:][chosen][:, None])[:, 0]
    if loss.isnan().any():
        raise MeasureError(f"Losses of {len(ids)} texts: {int(loss.isnan().sum())} logits are NaN; mend the model.")
    return loss.sum(1), scored.sum(1)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity over texts.

    Args:
        tokens: by token, over all texts, with a bootstrap interval over texts.
        sentence_mean: mean over texts of each one's own.
        sentence_median: their median.
        sentence_sd: their standard deviation (ddof 1).
    """

    tokens: Interval
    sentence_mean: float
    sentence_median: float
    sentence_sd: float


def perplexity(
    losses: Any, tokens: Any, *, rng: np.random.Generator, draws: int = 2000, level: float = 0.95
) -> Perplexity:
    """Return the perplexity of texts.

    Args:
        losses: summed loss of every text, [texts], from `text_losses`.
        tokens: tokens it sums over, [texts]; at least one each.
        rng: of the bootstrap.
        draws: resamples of the texts.
        level: of the interval.

    Raises:
        MeasureError: missing values, a text without tokens, or a single text.
    """
    losses = numbers(losses, "Losses", ndim=1)
    tokens = numbers(tokens, "Tokens", ndim=1, length=len(losses))
    if tokens.min() < 1:
        raise MeasureError(
            f"{int((tokens < 1).sum())} of {len(tokens)} texts have no token to predict; start texts with BOS or leave "
            "them out."
        )
    drawn = weighted_perplexity(losses, tokens, bootstrap_weights((), len(losses), draws=draws, rng=rng))
    whole = weighted_perplexity(losses, tokens, np.ones((1, len(losses))))[0]
    with np.errstate(over="ignore"):
        own = np.exp(losses / tokens)
    interval = unbounded_interval(whole, drawn, len(losses), level=level)
    sd = float(own.std(ddof=1)) if np.isfinite(own).all() else float("inf")
    return Perplexity(interval, float(own.mean()), float(np.median(own)), sd)


def weighted_perplexity(losses: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return exp(sum of losses / sum of tokens) with texts weighted, [draws], infinite where it overflows.

    Args:
        losses: [texts].
        tokens: [texts].
        weights: [draws, texts].
    """
    with np.errstate(over="ignore"):
        return np.exp((weights @ losses) / (weights @ tokens))


def unbounded_interval(estimate: float, draws: np.ndarray, n: int, *, level: float = 0.95) -> Interval:
    """Return a percentile interval of draws that may be infinite (a broken model); among those without interpolation.

    Args:
        estimate: the statistic on the data themselves.
        draws: the statistic on each resample, not NaN.
        n: what was resampled.
        level: confidence level.
    """
    if np.isfinite(draws).all():
        return percentile_interval(estimate, draws, n, level=level)
    last, tail = len(draws) - 1, (1 - level) / 2
    ordered = np.sort(draws)
    low, high = ordered[int(np.floor(tail * last))], ordered[int(np.ceil((1 - tail) * last))]
    return Interval(float(estimate), float(low), float(high), n, level)
