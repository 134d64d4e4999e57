"""How much each unit matters to the loss on some texts, for all units at once.

    importance_i = mean over tokens of |h_i dL/dh_i|         L = sum over tokens of -log p(next token)

is the first-order change of the loss if the unit were 0 at one token (arXiv 2408.06273, section 6.1; Molchanov et al.
2017). The report does not say whether sizes are taken before or after summing over tokens, nor how it normalises; here
before, and per token, so that languages with more tokens do not weigh more. One forward and one backward a batch,
weights take no part; sums are kept in float64. By group (the texts of each language) it costs no more; beside it stand
the sums of every text over a site's units, so that texts can be resampled. It is an estimate: an ablation checks it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.measures.firing import counted_groups, group_rows
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["GroupedImportance", "Importance", "TextLoss", "importance", "importance_by_group", "token_losses"]


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
class GroupedImportance:
    """Importance of every unit in every group of texts, and of every site in every text.

    Attributes:
        sites: site -> mean over a group's tokens of |h dL/dh|, [groups, units], float64.
        texts: site -> sum over a text's tokens and the site's units, [texts], float64.
        losses: summed loss of each text, nats, [texts], float64.
        tokens: how many of its tokens have a loss, [texts].
    """

    sites: Mapping[Site, Float[Tensor, "groups units"]]
    texts: Mapping[Site, Float[Tensor, " texts"]]
    losses: Float[Tensor, " texts"]
    tokens: Int[Tensor, " texts"]


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
    totals = _Totals(model, None, whole_heads=True)
    for done, batch in enumerate(batches, 1):
        totals.update(batch, sites)
        if told:
            told(done)
    found = totals.finish()
    tokens = int(found.tokens.sum())
    return Importance({s: x[0] for s, x in found.sites.items()}, float(found.losses.sum()) / tokens, tokens)


def importance_by_group(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | list[str | Site]",
    groups: Float[Tensor, "texts groups"],
    *,
    told: Callable[[int], None] | None = None,
) -> GroupedImportance:
    """Return the importance of every unit in every group of texts; every coordinate of a head is a unit of its own.

    Args:
        model: a causal language model.
        batches: of texts.
        sites: activation sites, globs allowed.
        groups: how often each text, in the order of the batches, is in each group.
        told: takes the number of batches done.

    Raises:
        MeasureError: more or fewer texts than rows of `groups`, a group without a token that has a loss, or a loss
            that is not finite.
    """
    totals = _Totals(model, groups, whole_heads=False)
    for done, batch in enumerate(batches, 1):
        totals.update(batch, sites)
        if told:
            told(done)
    return totals.finish()


class TextLoss:
    """The summed loss of every text of a batch, nats: what a sweep or a gradient reads (see `Metric`).

    Args:
        batch: left-padded, with `input_ids`.
    """

    def __init__(self, batch: Batch):
        ids, scored = batch.inputs["input_ids"], batch.mask[:, 1:] & batch.mask[:, :-1]
        self.next_ids = ids[:, 1:].masked_fill(~scored, -100)
        self.positions = torch.arange(batch.seq - 1, device=ids.device).expand(len(batch), -1)

    def __call__(self, logits: Float[Tensor, "rows n vocab"], rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return the losses [rows]."""
        return _losses(logits, self.next_ids[rows]).sum(1)


class _Totals:
    """Running sums over batches."""

    def __init__(self, model: Model, groups: Tensor | None, *, whole_heads: bool):
        self.model, self.groups, self.whole_heads = model, groups, whole_heads
        self.sites: dict[Site, Tensor] = {}
        self.texts: dict[Site, list[Tensor]] = {}
        self.losses: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.seen = 0

    def update(self, batch: Batch, sites) -> None:
        """One forward and one backward."""
        share = self._share(batch)
        with torch.enable_grad():
            result = run(self.model, batch, read=sites, grad=True)
            losses = token_losses(result.logits, batch)
            found = list(result)
            slopes = torch.autograd.grad(losses.sum(), [result[s] for s in found])
        for site, slope in zip(found, slopes, strict=True):
            # not in place: the two terms of a residual sum are given one and the same slope
            size = self._sizes(site, _wide(slope) * _wide(result[site].detach()), batch)
            self.sites[site] = self.sites.get(site, 0) + (share.to(size).T @ size).double().cpu()
            self.texts.setdefault(site, []).append(size.double().sum(1).cpu())
        self.losses.append(losses.detach().double().sum(1).cpu())
        self.tokens.append((batch.mask[:, 1:] & batch.mask[:, :-1]).sum(1).cpu())

    def finish(self) -> GroupedImportance:
        """Return means over each group's tokens."""
        losses = torch.cat(self.losses) if self.losses else torch.zeros(0)
        tokens = torch.cat(self.tokens) if self.tokens else torch.zeros(0, dtype=torch.long)
        if not tokens.sum() or not torch.isfinite(losses).all():
            raise MeasureError(
                f"Importance over {int(tokens.sum())} tokens was asked for, found a loss of {float(losses.sum())}; "
                "give longer texts, or a model whose loss is finite."
            )
        each = torch.ones(len(tokens), 1) if self.groups is None else self.groups
        counts = counted_groups(each, tokens)
        means = {s: x / counts[:, None] for s, x in self.sites.items()}
        return GroupedImportance(means, {s: torch.cat(x) for s, x in self.texts.items()}, losses, tokens)

    def _share(self, batch: Batch) -> Tensor:
        """Return this batch's rows of the groups."""
        first, self.seen = self.seen, self.seen + len(batch)
        return torch.ones(len(batch), 1) if self.groups is None else group_rows(self.groups, first, len(batch))

    def _sizes(self, site: Site, product: Tensor, batch: Batch) -> Float[Tensor, "batch units"]:
        """Return |h dL/dh| summed over real tokens."""
        if product.ndim == 4:
            info = self.model.sites.get(site)
            heads = self.whole_heads and info is not None and info.unit_axis == "head"
            product = product.sum(-1) if heads else product.flatten(2)
        return torch.einsum("bsu,bs->bu", product.abs_(), batch.mask.to(product))


def token_losses(logits: Float[Tensor, "batch seq vocab"], batch: Batch) -> Float[Tensor, "batch rest"]:
    """Return -log p of every token after the first of its text, 0 at padding.

    Args:
        logits: of the batch.
        batch: left-padded, with `input_ids`.
    """
    ids, scored = batch.inputs["input_ids"], batch.mask[:, 1:] & batch.mask[:, :-1]
    # the last position predicts nothing: ignored rather than sliced off, so that no logits are copied
    next_ids = torch.nn.functional.pad(ids[:, 1:].masked_fill(~scored, -100), (0, 1), value=-100)
    return _losses(logits, next_ids)[:, :-1]


def _wide(x: Tensor) -> Tensor:
    """Return half precision as single."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _losses(logits: Tensor, next_ids: Tensor) -> Tensor:
    losses = torch.nn.functional.cross_entropy(_wide(logits).flatten(0, 1), next_ids.flatten(), reduction="none")
    return losses.view(next_ids.shape)
