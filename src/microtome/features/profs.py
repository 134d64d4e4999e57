"""ProFS: the subspace in which matched toxic and clean sentences differ, once what all sentences share is taken off.

    D = (X_toxic - X_clean)(I - m m' / |m|^2),   m the mean of X_clean;   the basis is D's top k right singular vectors

Uppaal et al. 2025 (arXiv 2405.13967, algorithm 1): the mean direction carries frequent tokens, and taking it out too
costs fluency. The edit projects the basis out of what an MLP writes: zero it at `blocks.i.mlp.out`; baked, that changes
the value weights. The paper changes weights only; baked here a bias, where there is one, is projected as well, so that
hook and weights are one edit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.rotation import Rotation

__all__ = ["profs_basis"]


def profs_basis(toxic: Float[Tensor, "n d"], clean: Float[Tensor, "n d"], k: int) -> Rotation:
    """Return the top k directions of the centred differences.

    Args:
        toxic: activations of toxic sentences, row by row the counterparts of `clean`.
        clean: activations of clean sentences.
        k: how many directions; 0 gives an empty basis.

    Raises:
        MeasureError: the rows do not pair up, or k is more than they span.
    """
    if toxic.shape != clean.shape:
        raise MeasureError(f"Paired rows were asked for, found {list(toxic.shape)} and {list(clean.shape)}.")
    x = toxic.double().cpu() - clean.double().cpu()
    mean = clean.double().mean(0).cpu()
    x = x - torch.outer(x @ mean, mean) / mean.square().sum().clamp(min=1e-300)
    _, s, vh = torch.linalg.svd(x, full_matrices=False)
    rank = int((s > 1e-10 * s[:1].clamp(min=1e-300)).sum())
    if not 0 <= k <= rank:
        raise MeasureError(
            f"ProFS of {k} directions was asked for, found differences that span {rank}; ask for 0-{rank}."
        )
    return Rotation(vh[:k].T.contiguous())
