"""How often each unit is above 0 over the tokens of texts, by group of texts, in one pass over all of them.

    p_gi = (tokens of group g at which unit i is above 0) / (tokens of group g)

A text may be in any number of groups, and more than once: its language, a half of the texts, a language drawn at
random (a null), a bootstrap resample. All of them cost one forward; what is kept grows with groups and units only.
At a gate this is whether its neuron is on, which is what LAPE counts (arXiv 2402.16438).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Firing", "GroupedFiring", "counted_groups", "firing", "firing_by_group", "group_rows"]


@dataclass(frozen=True, eq=False)
class Firing:
    """How often every unit is above 0.

    Attributes:
        sites: site -> share of tokens, [units], float64.
        tokens: how many.
    """

    sites: Mapping[Site, Float[Tensor, " units"]]
    tokens: int


@dataclass(frozen=True, eq=False)
class GroupedFiring:
    """How often every unit is above 0 in every group of texts, and its mean activation.

    Attributes:
        sites: site -> share of a group's tokens, [groups, units], float64.
        means: site -> mean activation over the tokens of all texts, [units], float64.
        tokens: tokens of each group, [groups].
    """

    sites: Mapping[Site, Float[Tensor, "groups units"]]
    means: Mapping[Site, Float[Tensor, " units"]]
    tokens: Float[Tensor, " groups"]


def firing(model: Model, batches: Iterable[Batch], sites: "str | Site | list[str | Site]") -> Firing:
    """Return how often every unit is above 0 over the tokens of some texts (a gate: whether its neuron is on).

    Args:
        model: any model of tokens.
        batches: of texts.
        sites: activation sites with one number a unit, globs allowed.

    Raises:
        MeasureError: there are no tokens.
    """
    held = list(batches)
    found = firing_by_group(model, held, sites, torch.ones(sum(map(len, held)), 1))
    return Firing({s: x[0] for s, x in found.sites.items()}, int(found.tokens[0]))


@torch.no_grad()
def firing_by_group(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | list[str | Site]",
    groups: Float[Tensor, "texts groups"],
    *,
    told: Callable[[int], None] | None = None,
) -> GroupedFiring:
    """Return how often every unit is above 0 in every group of texts.

    Args:
        model: any model of tokens.
        batches: of texts.
        sites: activation sites with one number a unit, globs allowed.
        groups: how often each text, in the order of the batches, is in each group.
        told: takes the number of batches done.

    Raises:
        MeasureError: more or fewer texts than rows of `groups`, or a group without tokens.
    """
    counts: dict[Site, Tensor] = {}
    sums: dict[Site, Tensor] = {}
    tokens: list[Tensor] = []
    seen = 0
    for done, batch in enumerate(batches, 1):
        share = group_rows(groups, seen, len(batch))
        seen += len(batch)
        for site, x in run(model, batch, read=sites, logits="none").items():
            real = batch.mask.to(x.device, torch.float32)  # not in half precision, which counts to 256 only
            fired = torch.einsum("bsu,bs->bu", (x > 0).float(), real)
            counts[site] = counts.get(site, 0) + (share.to(fired).T @ fired).double().cpu()
            sums[site] = sums.get(site, 0) + torch.einsum("bsu,bs->u", *_together(x, real)).double().cpu()
        tokens.append(batch.mask.sum(1).cpu())
        if told:
            told(done)
    each = torch.cat(tokens) if tokens else torch.zeros(0, dtype=torch.long)
    total = counted_groups(groups, each)
    return GroupedFiring(
        {s: x / total[:, None] for s, x in counts.items()}, {s: x / each.sum() for s, x in sums.items()}, total
    )


def _together(x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the wider of their types."""
    wider = torch.promote_types(x.dtype, real.dtype)
    return x.to(wider), real.to(wider)


def group_rows(groups: Float[Tensor, "texts groups"], first: int, count: int) -> Float[Tensor, "batch groups"]:
    """Return the rows of some texts.

    Args:
        groups: how often each text is in each group.
        first: number of the first text.
        count: how many.

    Raises:
        MeasureError: there are fewer.
    """
    if len(groups) < first + count:
        raise MeasureError(
            f"Groups of {len(groups)} texts were given for {first + count} or more; give one row for each text."
        )
    return groups[first : first + count]


def counted_groups(groups: Float[Tensor, "texts groups"], tokens: Int[Tensor, " texts"]) -> Float[Tensor, " groups"]:
    """Return the tokens of each group of texts.

    Args:
        groups: how often each text is in each group.
        tokens: of each text.

    Raises:
        MeasureError: another number of texts, or a group without tokens.
    """
    if len(groups) != len(tokens):
        raise MeasureError(f"Groups of {len(groups)} texts were given for {len(tokens)}; give one row for each text.")
    total = groups.double().T @ tokens.double()
    if not len(tokens) or not (total > 0).all():
        raise MeasureError(
            f"{len(total)} groups of {len(tokens)} texts were asked for, found {int((total <= 0).sum())} over 0 "
            "tokens; give each longer texts."
        )
    return total
