"""Gradients of a metric at any activation sites, in one forward and one backward.

The graph starts at the first site asked for (nothing before it is kept), weights take no part, and logits are computed
only where the metric looks. Works inside `inference_mode` too. A gradient at a site is that of everything downstream of
*that tensor*: at a module's input (`path.input`) it is the gradient through that reader alone, which is what edge
attribution needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import SiteError
from microtome.core.protocols import Metric
from microtome.core.site import Site
from microtome.engine.edit import Edit
from microtome.engine.plan import read_positions
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Gradients", "gradients"]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Activations and gradients at sites.

    Attributes:
        values: site -> activation.
        grads: site -> gradient of the summed metric, same shape.
        metric: the metric of every item, [batch].
    """

    values: dict[Site, Tensor]
    grads: dict[Site, Tensor]
    metric: Tensor


def gradients(
    model: Model, batch: Batch, sites: "str | Site | Sequence[str | Site]", metric: Metric, edits: Sequence[Edit] = ()
) -> Gradients:
    """Return the gradient of the metric (summed over items) at some sites.

    Args:
        model: the model.
        batch: the items.
        sites: activation sites, globs allowed.
        metric: one value per item (see `Metric`).
        edits: changes made during the forward.

    Raises:
        SiteError: a site does not exist, or the metric does not depend on it.
    """
    reads = read_positions(metric, batch)
    at_end = reads.shape[1] == 1 and bool((reads == batch.seq - 1).all())
    with torch.inference_mode(False), torch.enable_grad():
        batch = _usable(batch)
        result = run(model, batch, read=sites, edits=edits, logits="last" if at_end else "all", grad=True)
        items = torch.arange(len(batch), device=reads.device)
        logits = result.logits if at_end else result.logits[items[:, None], reads]
        values = metric(logits, items)
        found = list(result)
        try:
            grads = torch.autograd.grad(values.sum(), [result[s] for s in found])
        except RuntimeError as error:
            raise SiteError(
                f"The metric does not depend on every site of {[str(s) for s in found][:4]}: {error}"
            ) from error
    return Gradients({s: result[s].detach() for s in found}, dict(zip(found, grads, strict=True)), values.detach())


def _usable(batch: Batch) -> Batch:
    """Return the batch with tensors that were made in inference mode copied, as a graph can not save those."""
    fresh = {k: v.clone() if v.is_inference() else v for k, v in batch.inputs.items()}
    return Batch(fresh, batch.mask.clone() if batch.mask is not None and batch.mask.is_inference() else batch.mask)
