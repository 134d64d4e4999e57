"""LEACE: the least change of activations after which no linear probe can tell the classes apart.

    r(x) = x - W^+ P W (x - mean),   W = C_xx^(-1/2),   P onto the span of W C_xz,   z the one-hot label

The covariance of r(x) with z is exactly 0 on the rows it was fitted on, and among affine maps with that property it
moves x least in mean square (Belrose et al. 2023, arXiv 2306.03819, theorem 4.3). The result is an `Oblique` basis;
the edit is zeroing it. Where C_xx is singular its pseudo-inverse is meant, as in the paper.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.features.moments import ClassMoments
from microtome.features.oblique import Oblique

__all__ = ["LeaceFitter"]

_RANK = 1e-10  # of the largest eigenvalue or singular value: what counts as 0


class LeaceFitter:
    """Running moments that become the basis to be erased.

    Args:
        classes: how many classes there are.
    """

    def __init__(self, classes: int):
        self.moments = ClassMoments(classes)

    def update(self, batch: Float[Tensor, "*lead d"], *, labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each, from 0.

        Raises:
            MeasureError: a value is not finite or a label is out of range.
        """
        self.moments.update(batch, labels)

    def merge(self, other: "LeaceFitter") -> "LeaceFitter":
        """Join the moments of another shard and return this fitter."""
        self.moments.merge(other.moments)
        return self

    def finish(self) -> Oblique:
        """Return the basis; zeroing it erases the classes. It is empty where the class means are equal.

        Raises:
            MeasureError: a class has no rows.
        """
        m = self.moments
        m.check()
        n = m.counts.sum()
        values, vectors = torch.linalg.eigh((m.within + m.between) / n)
        kept = values > _RANK * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        root, inverse = ((vectors * scale) @ vectors.T for scale in (values.sqrt(), values.rsqrt()))
        cross = ((m.means - m.mean) * (m.counts / n)[:, None]).T
        u, s, _ = torch.linalg.svd(inverse @ cross, full_matrices=False)
        u = u[:, s > _RANK]  # s is a correlation, at most 1
        return Oblique(inverse @ u, u.T @ root, m.mean)
