"""Steer by a difference of means (CAA, ActAdd): add ``c (clean mean - toxic mean)`` to activations at a site.

Rimsky et al. 2023 (arXiv 2312.06681); Turner et al. 2023 (arXiv 2308.10248). With c = 1 the mean of edited toxic
activations is the clean mean; c = 0 adds nothing.
"""

from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.edit import Add, Edit

__all__ = ["steer"]


def steer(
    site: Site | str, toxic: Float[Tensor, "n d"], clean: Float[Tensor, "m d"], c: float = 1.0, *, positions=None
) -> Edit:
    """Return the edit that shifts activations from the toxic mean towards the clean one.

    Args:
        site: where.
        toxic: activations of the behaviour to leave.
        clean: activations of the behaviour to have.
        c: how far: 1 is from mean to mean.
        positions: as for `Edit`.

    Raises:
        MeasureError: a side is empty, or the widths differ.
    """
    if min(len(toxic), len(clean)) == 0 or toxic.shape[1:] != clean.shape[1:]:
        raise MeasureError(
            f"Steering at '{site}' was asked for, found toxic {list(toxic.shape)} and clean {list(clean.shape)}; give "
            "rows of one width on both sides."
        )
    return Edit(site, Add(c * (clean.double().mean(0) - toxic.double().mean(0))), positions=positions)
