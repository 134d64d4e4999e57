"""What lies outside a few directions, as a basis: the cheap way to edit a large subspace through its small complement.

``encode(x) = x - x V V'`` (the part of x orthogonal to V's columns, in x's own coordinates), ``decode(f) = f``. Scaling
all of it by a gives ``a x + (1 - a) x V V'``: what damping the complement of V by a would, at the cost of V's columns
instead of all the others.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from microtome.features.precision import wide
from microtome.features.rotation import check_orthonormal

__all__ = ["Outside"]


@dataclass(frozen=True, eq=False)
class Outside:
    """Everything orthogonal to some directions.

    Attributes:
        axes: the directions left out, orthonormal columns, [d, k].

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
        """As many as coordinates: the part outside stays a vector of the full width."""
        return self.axes.shape[0]

    def encode(self, x: Tensor) -> Tensor:
        """Return the part of activations [..., d] outside the directions, [..., d]."""
        x = wide(x)
        axes = self.axes.to(x)
        return x - (x @ axes) @ axes.T

    def decode(self, f: Tensor) -> Tensor:
        """Return f."""
        return f


FEATURIZER = Outside
