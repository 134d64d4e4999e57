"""Directions for an edit of the head's input that are not singular vectors of the head, on the same footing with them.

- `difference_basis`: the one direction from the clean mean to the toxic mean. Where a concept does not lie along
  singular vectors (there is no reason why it should) this is the free direction that EigenShift has to beat.
- `random_basis`: a subspace drawn uniformly, the control at equal k: projecting out a quarter of all directions lowers
  any rate.
- `whitened_basis`: right singular vectors of W C^(1/2), C the covariance of the hidden states: ordered by how much
  logits move over real data, not over a sphere of inputs. Oblique: read by C^(-1/2) g, written by g' C^(1/2).

Each goes into the same edit, `edits.subspace`, and the same scores, `measures.head_scores`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.head_basis import HeadBasis
from microtome.features.oblique import Oblique
from microtome.features.rotation import Rotation, random_axes

__all__ = ["difference_basis", "random_basis", "whitened_basis"]


def difference_basis(toxic: Float[Tensor, "n d"], clean: Float[Tensor, "m d"]) -> Rotation:
    """Return the direction between two means, as a basis of one, pointing to the toxic.

    Raises:
        MeasureError: there are no rows, or the means are the same.
    """
    if len(toxic) == 0 or len(clean) == 0:
        raise MeasureError(
            f"A difference of means was asked for, found {len(toxic)} toxic and {len(clean)} clean rows."
        )
    gap = toxic.double().mean(0) - clean.double().mean(0)
    if not gap.norm() > 0:
        raise MeasureError(
            f"A difference of means was asked for, found equal means over width {len(gap)}; give others."
        )
    return Rotation((gap / gap.norm())[:, None].cpu())


def random_basis(width: int, k: int, seed: int) -> Rotation:
    """Return a subspace of k dimensions drawn uniformly.

    Raises:
        MeasureError: k is not from 0 to the width.
    """
    return Rotation(random_axes(width, k, torch.Generator().manual_seed(seed), dtype=torch.float64))


def whitened_basis(head: HeadBasis, covariance: Float[Tensor, "d d"], *, shrinkage: float = 0.0) -> Oblique:
    """Return the directions along which hidden states of this covariance move the logits most, largest first.

    Args:
        head: the factorised head (its Gram matrix is V s^2 V', so W itself is not needed).
        covariance: of the hidden states at the head's input.
        shrinkage: share of the covariance replaced by a sphere of the same trace, 0 to 1; above 0 where rows are few.

    Raises:
        MeasureError: the covariance is singular, or of another width.
    """
    d = head.width
    if list(covariance.shape) != [d, d]:
        raise MeasureError(
            f"A covariance of width {d} was asked for, found {list(covariance.shape)}; take it at the head."
        )
    c = covariance.double().cpu()
    c = (1 - shrinkage) * c + shrinkage * c.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(c)
    if not values[0] > 1e-12 * values[-1]:
        raise MeasureError(
            f"A whitened basis was asked for, found a singular covariance (least eigenvalue {values[0]:.1e} of "
            f"{values[-1]:.1e}); give a shrinkage above {shrinkage}."
        )
    root, inverse = ((vectors * scale) @ vectors.T for scale in (values.sqrt(), values.rsqrt()))
    half = head.singular[:, None] * (head.axes.T @ root)
    g = torch.linalg.svd(half).Vh.T
    return Oblique(inverse @ g, g.T @ root, torch.zeros(d, dtype=torch.float64))
