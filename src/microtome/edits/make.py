"""From units to edits: zero, mean, positional-mean and resample ablation, patching, and path patching.

Each returns a list of `Edit`, one for each site of the set, to be used as one cell of a sweep or in one run.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.engine.edit import Constant, Edit, From, Value, Zero
from microtome.models.model import Model

__all__ = ["ablate", "mean_ablate", "patch", "path_patch", "resample"]


def _for_each_site(units: Units, value, positions) -> list[Edit]:
    if len(units) == 0:
        raise EditError("An edit of no units was asked for; choose at least one unit.")
    return [
        Edit(site, value(site), units=torch.from_numpy(index.copy()), positions=positions)
        for site, index in units.items()
    ]


def _at(activations: Mapping, site: Site) -> Tensor:
    if site not in activations:
        raise EditError(
            f"No activations of '{site}' were given (found {[str(s) for s in activations][:4]}); read it first."
        )
    return activations[site]


def ablate(units: Units, *, value: Value | None = None, positions=None) -> list[Edit]:
    """Return edits that zero the units (or set them by `value`).

    Args:
        units: what to ablate.
        value: another value than zero.
        positions: as for `Edit`.
    """
    return _for_each_site(units, lambda site: value or Zero(), positions)


def mean_ablate(
    units: Units,
    activations: Mapping[Site, Tensor],
    mask: Tensor | None = None,
    *,
    by_position: bool = False,
    positions=None,
) -> list[Edit]:
    """Return edits that set the units to their mean over reference activations.

    Args:
        units: what to ablate.
        activations: reference activations, site -> [batch, seq, ...].
        mask: real tokens of the reference, [batch, seq]; None counts all.
        by_position: take the mean at each position separately (positional mean).
        positions: as for `Edit`.
    """

    def value(site: Site) -> Value:
        x = _at(activations, site)
        weight = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device) if mask is None else mask.to(x)
        weight = weight.reshape(*weight.shape, *[1] * (x.ndim - 2))
        if by_position:
            return From((x * weight).sum(0, keepdim=True) / weight.sum(0, keepdim=True).clamp(min=1))
        return Constant((x * weight).sum((0, 1)) / weight.sum())

    return _for_each_site(units, value, positions)


def patch(units: Units, source: Mapping[Site, Tensor], *, positions=None) -> list[Edit]:
    """Return edits that take the units' values from another run (interchange, counterfactual ablation).

    Args:
        units: what to patch.
        source: activations of the other run, site -> [batch, seq, ...].
        positions: as for `Edit`.
    """
    return _for_each_site(units, lambda site: From(_at(source, site)), positions)


def resample(units: Units, activations: Mapping[Site, Tensor], seed: int, *, positions=None) -> list[Edit]:
    """Return edits that give each row the units' values of another row (a random derangement of the batch).

    Args:
        units: what to ablate.
        activations: the runs' own activations, site -> [batch, seq, ...].
        seed: of the derangement.
        positions: as for `Edit`.

    Raises:
        EditError: one row alone has no other to take from.
    """
    n = next(iter(activations.values())).shape[0]
    if n < 2:
        raise EditError(f"Resampling needs at least 2 rows, found {n}; give a larger batch.")
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=g)
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one cycle through all rows: no row keeps its own
    return _for_each_site(
        units, lambda site: From(_at(activations, site)[other.to(_at(activations, site).device)]), positions
    )


def path_patch(model: Model, sender: Units, readers: list[str], source: Mapping, own: Mapping) -> list[Edit]:
    """Return edits that let chosen readers see the sender's clean output while everything else stays frozen.

    The direct effect of sender -> reader (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023,
    arXiv 2304.05969): the sender's change, projected into the stream, is added to the readers' input alone.

    Args:
        model: a decoder whose writes are its projections' outputs.
        sender: heads (`blocks.i.attn.heads`) or all of an MLP's output (`blocks.i.mlp.out`).
        readers: "blocks.j.attn", "blocks.j.mlp" or "final_norm".
        source: activations the sender's new values come from.
        own: activations of the run to be edited.

    Raises:
        EditError: a reader is unknown.
    """
    change = sum(_written(model, site, _at(source, site) - _at(own, site), index) for site, index in sender.items())
    edits = []
    for reader in readers:
        edits.append(Edit(f"{_reader_path(model, reader)}.input", _AddTokens(change)))
    return edits


def _written(model: Model, site: Site, delta: Tensor, index) -> Tensor:
    """What a sender's change adds to the stream, [batch, seq, d_model]."""
    if site.kind != "attn.heads":
        return delta
    kept = torch.zeros_like(delta)
    chosen = torch.from_numpy(index.copy()).to(delta.device)
    kept[:, :, chosen] = delta[:, :, chosen]
    projection = model.module.get_submodule(model.anatomy.blocks[site.block].o)
    with torch.no_grad():
        flat = kept.flatten(2)
        return projection(flat) - projection(torch.zeros_like(flat))


def _reader_path(model: Model, reader: str) -> str:
    site = Site.parse(reader)
    blocks = model.anatomy.blocks
    if reader == "final_norm":
        return model.anatomy.final_norm
    if site.block is None or site.block >= len(blocks) or site.kind not in ("attn", "mlp"):
        raise EditError(
            f"'{reader}' does not read the stream; ask for 'blocks.<i>.attn', 'blocks.<i>.mlp' or 'final_norm'."
        )
    block = blocks[site.block]
    return block.reader if site.kind == "attn" else block.mlp_path[0]


class _AddTokens:
    """Add a change given for every token, [batch, seq, d]."""

    def __init__(self, change: Tensor):
        self.change = change

    def new(self, f, units, rows, positions, encode):
        return f + self.change[rows, positions].to(f)
