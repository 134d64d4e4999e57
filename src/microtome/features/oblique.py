"""Directions that are read along one set of vectors and written along another: oblique projections.

``encode(x) = (x - c) R``, ``decode(f) = f B`` with ``B R = I``, so ``R B`` is a projection, orthogonal only where
``B = R'``. Zeroing all of it gives ``x - (x - c) R B``. LEACE (`leace.py`) and the whitened basis of a head
(`free_directions.py`) are of this form; a `Rotation` is the case R = B' and c = 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.precision import wide

__all__ = ["Oblique"]


@dataclass(frozen=True, eq=False)
class Oblique:
    """A projection by what it reads and what it writes.

    Attributes:
        read: vectors whose products with x are the features, [d, k].
        write: what each feature stands for, [k, d]; ``write @ read`` is the identity.
        centre: where the features are 0, [d].

    Raises:
        MeasureError: the shapes do not fit, or ``write @ read`` is not the identity.
    """

    read: Float[Tensor, "d k"]
    write: Float[Tensor, "k d"]
    centre: Float[Tensor, " d"]

    def __post_init__(self):
        shapes = list(self.read.shape), list(self.write.shape), list(self.centre.shape)
        if self.read.ndim != 2 or shapes[1] != shapes[0][::-1] or shapes[2] != shapes[0][:1]:
            raise MeasureError(
                f"An oblique basis of read [d, k], write [k, d], centre [d] was asked for, found {shapes}."
            )
        gap = self.write.double() @ self.read.double() - torch.eye(self.read.shape[1], dtype=torch.float64)
        worst = gap.abs().max().item() if gap.numel() else 0.0
        if not worst <= 1e-3:
            raise MeasureError(f"write @ read was asked to be the identity, found it off by {worst:.1e}; fit it again.")

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.read.shape[0]

    @property
    def n_features(self) -> int:
        """How many directions."""
        return self.read.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of activations [..., d], [..., k]."""
        x = wide(x)
        return (x - self.centre.to(x)) @ self.read.to(x)

    def decode(self, f: Tensor) -> Tensor:
        """Return the vectors that coordinates [..., k] stand for, measured from the centre, [..., d]."""
        return f @ self.write.to(f)


FEATURIZER = Oblique
