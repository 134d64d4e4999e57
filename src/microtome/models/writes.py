"""What a unit writes into the residual stream, read off the model's own projection whatever its layout.

A head or neuron reaches the stream through one linear projection. Its writing weights are that projection's answer to
unit vectors (bias taken off), so Linear, Conv1D, quantised and offloaded projections need no cases of their own.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import SiteError
from microtome.core.site import Site
from microtome.models.model import Model

__all__ = ["unit_writes", "write_norms"]

_ROWS = 256  # unit vectors in one call of a projection


@torch.no_grad()
def unit_writes(model: Model, site: "Site | str", units: Sequence[int]) -> Float[Tensor, "n width d_model"]:
    """Return the writing weights of some units; `width` is the head's, or 1 for a neuron.

    Args:
        model: the model.
        site: `blocks.i.attn.heads` or `blocks.i.mlp.neurons`.
        units: which units.

    Raises:
        SiteError: the site is neither.
    """
    site = Site.parse(site)
    if site.block is None or site.kind not in ("attn.heads", "mlp.neurons"):
        raise SiteError(f"'{site}' writes through no one projection; ask for 'blocks.<i>.attn.heads' or mlp.neurons.")
    block = model.anatomy.blocks[site.block]
    heads = site.kind == "attn.heads"
    projection = model.module.get_submodule(block.o if heads else block.down)
    width, total = (block.d_head, block.heads * block.d_head) if heads else (1, block.d_mlp)
    index = torch.as_tensor(units, device=model.device).reshape(-1, 1) * width + torch.arange(
        width, device=model.device
    )
    bias = projection(torch.zeros(1, total, dtype=model.dtype, device=model.device))
    parts = []
    for rows in index.flatten().split(_ROWS):
        vectors = torch.zeros(len(rows), total, dtype=model.dtype, device=model.device)
        vectors[torch.arange(len(rows), device=model.device), rows] = 1
        parts.append(projection(vectors) - bias)
    return torch.cat(parts).unflatten(0, (len(index), width))


def write_norms(model: Model, site: "Site | str") -> Float[Tensor, " units"]:
    """Return how large the writing weights of every unit of a site are (Frobenius norm), in float64 on the CPU.

    Args and Raises: as for `unit_writes`.
    """
    units = range(model.space(site)[Site.parse(site)])
    parts = [unit_writes(model, site, units[i : i + _ROWS]) for i in range(0, len(units), _ROWS)]
    return torch.cat([w.double().flatten(1).norm(dim=1).cpu() for w in parts])
