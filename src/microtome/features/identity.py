"""The full representation: every coordinate of the activation is a feature. The baseline of every table."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """The basis of the coordinates themselves.

    Attributes:
        width: width of the activations.
    """

    width: int

    @property
    def n_features(self) -> int:
        """As many as coordinates."""
        return self.width

    def encode(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def decode(self, f: Tensor) -> Tensor:
        """Return f."""
        return f


FEATURIZER = Identity
