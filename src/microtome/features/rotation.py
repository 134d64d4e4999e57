"""Coordinates along orthonormal directions: what DAS, MDAS and RLAP find, and the random subspace they must beat.

``encode(x) = x R``, ``decode(f) = f R'`` with R'R = I, so a swap of all of it is ``b + R R'(s - b)`` and depends on the
subspace only, not on the axes in it. Geiger et al. 2023 (arXiv 2303.02536). `orthogonal.py` fits R.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.precision import wide

__all__ = ["Rotation", "check_orthonormal", "random_axes"]

_SLACK = {torch.float64: 1e-7, torch.float32: 1e-4}


@dataclass(frozen=True, eq=False)
class Rotation:
    """An orthonormal basis of a subspace.

    Attributes:
        axes: orthonormal columns, [d, k].

    Raises:
        MeasureError: the columns are more than the width, or not orthonormal.
    """

    axes: Float[Tensor, "d k"]

    def __post_init__(self):
        check_orthonormal(self.axes)

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.axes.shape[0]

    @property
    def n_features(self) -> int:
        """Dimension of the subspace."""
        return self.axes.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of activations [..., d], [..., k]."""
        x = wide(x)
        return x @ self.axes.to(x)

    def decode(self, f: Tensor) -> Tensor:
        """Return the vectors in the subspace that coordinates [..., k] stand for, [..., d]."""
        return f @ self.axes.to(f).T

    def complement(self) -> "Rotation":
        """Return a basis of everything orthogonal to this one: the control of every swap."""
        return Rotation(torch.linalg.qr(self.axes, mode="complete").Q[:, self.n_features :])


def check_orthonormal(axes: Tensor) -> None:
    """Raise unless the columns are orthonormal.

    Raises:
        MeasureError: they are not, or there are more of them than rows.
    """
    if axes.ndim != 2 or axes.shape[1] > axes.shape[0]:
        raise MeasureError(
            f"A rotation of shape [width, rank] was asked for, found {list(axes.shape)}; ask for a rank of at most the "
            "width."
        )
    gap = axes.T.double() @ axes.double() - torch.eye(axes.shape[1], dtype=torch.float64, device=axes.device)
    worst = gap.abs().max().item() if gap.numel() else 0.0
    if not worst <= _SLACK.get(axes.dtype, 1e-1):
        raise MeasureError(f"Orthonormal axes were asked for, found axes that are off by {worst:.1e}; take their QR.")


def random_axes(
    width: int,
    rank: int,
    generator: torch.Generator,
    *,
    lead: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*lead d k"]:
    """Return orthonormal columns drawn uniformly: where a fit starts, and the random subspace that is its control.

    Args:
        width: d.
        rank: k.
        generator: of the draw, on the CPU.
        lead: shape of a stack of them (seeds, attributes).
        dtype: of the result; drawn in float64.

    Raises:
        MeasureError: the rank is not from 0 to the width.
    """
    if not 0 <= rank <= width:
        raise MeasureError(f"A rotation of rank {rank} was asked for in width {width}; ask for 0 to {width}.")
    drawn = torch.randn(*lead, width, rank, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    return (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).to(dtype)


FEATURIZER = Rotation
