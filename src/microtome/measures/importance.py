"""How much each unit matters to the loss on some texts, for all units at once, and how often each fires.

    importance_i = mean over tokens of |h_i dL/dh_i|         L = sum over tokens of -log p(next token)

is the first-order change of the loss if the unit were 0 at one token (arXiv 2408.06273, section 6.1; Molchanov et al.
2017). The report does not say whether sizes are taken before or after summing over tokens, nor how it normalises; here
before, and per token, so that languages with more tokens do not weigh more. One forward and one backward a batch,
weights take no part; sums are kept in float64, nothing grows with the texts. It is an estimate: an ablation checks it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Firing", "Importance", "firing", "importance", "token_losses"]


@dataclass(frozen=True, eq=False)
class Importance:
    """Importance of every unit.

    Attributes:
        sites: site -> mean over tokens of |h dL/dh|, [units], float64.
        loss: mean loss of a token, nats.
        tokens: how many tokens have a loss.
    """

    sites: Mapping[Site, Float[Tensor, " units"]]
    loss: float
    tokens: int


@dataclass(frozen=True, eq=False)
class Firing:
    """How often every unit is above 0.

    Attributes:
        sites: site -> share of tokens, [units], float64.
        tokens: how many.
    """

    sites: Mapping[Site, Float[Tensor, " units"]]
    tokens: int


def importance(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | list[str | Site]",
    *,
    told: Callable[[int], None] | None = None,
) -> Importance:
    """Return the importance of every unit over some texts.

    Args:
        model: a causal language model.
        batches: of texts.
        sites: activation sites, globs allowed; heads are [head, d_head] and give one number a head.
        told: takes the number of batches done.

    Raises:
        MeasureError: no token has a loss, or it is not finite.
    """
    totals: dict[Site, Tensor] = {}
    loss = tokens = 0
    for done, batch in enumerate(batches, 1):
        with torch.enable_grad():
            result = run(model, batch, read=sites, grad=True)
            losses = token_losses(result.logits, batch)
            found = list(result)
            slopes = torch.autograd.grad(losses.sum(), [result[s] for s in found])
        for site, slope in zip(found, slopes, strict=True):
            size = _per_unit(model, site, (result[site].detach() * slope), batch)
            totals[site] = totals.get(site, 0) + size
        loss, tokens = (
            loss + float(losses.detach().double().sum()),
            tokens + int((batch.mask[:, 1:] & batch.mask[:, :-1]).sum()),
        )
        if told:
            told(done)
    if not tokens or not torch.isfinite(torch.tensor(loss)):
        raise MeasureError(f"Importance over {tokens} tokens was asked for, found a loss of {loss}; give longer texts.")
    return Importance({s: x / tokens for s, x in totals.items()}, loss / tokens, tokens)


@torch.no_grad()
def firing(model: Model, batches: Iterable[Batch], sites: "str | Site | list[str | Site]") -> Firing:
    """Return how often every unit is above 0 over the tokens of some texts (a gate: whether its neuron is on).

    Args:
        model: any model of tokens.
        batches: of texts.
        sites: activation sites with one number a unit, globs allowed.

    Raises:
        MeasureError: there are no tokens.
    """
    totals: dict[Site, Tensor] = {}
    tokens = 0
    for batch in batches:
        for site, x in run(model, batch, read=sites, logits="none").items():
            held = batch.mask[..., None].to(x.device)
            totals[site] = totals.get(site, 0) + ((x > 0) & held).double().sum((0, 1)).cpu()
        tokens += int(batch.mask.sum())
    if not tokens:
        raise MeasureError("Firing over 0 tokens was asked for; give texts.")
    return Firing({s: x / tokens for s, x in totals.items()}, tokens)


def token_losses(logits: Float[Tensor, "batch seq vocab"], batch: Batch) -> Float[Tensor, "batch rest"]:
    """Return -log p of every token after the first of its text, 0 at padding.

    Args:
        logits: of the batch.
        batch: left-padded, with `input_ids`.
    """
    ids, mask = batch.inputs["input_ids"], batch.mask
    x = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    losses = torch.nn.functional.cross_entropy(x[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return losses * (mask[:, 1:] & mask[:, :-1])


def _per_unit(model: Model, site: Site, x: Tensor, batch: Batch) -> Tensor:
    """Return the summed size of each unit's product over real tokens, [units]; a head's d_head are summed first."""
    info = model.sites.get(site)
    x = x.sum(-1) if info is not None and info.unit_axis == "head" and x.ndim == 4 else x
    return (x.abs() * batch.mask[..., None].to(x)).double().sum((0, 1)).cpu()
