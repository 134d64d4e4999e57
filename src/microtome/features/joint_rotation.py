"""One orthogonal matrix whose columns are shared out among attributes in disjoint blocks: joint MDAS.

With the blocks orthogonal by construction, swapping attribute A's block cannot touch B's coordinates, and swapping
A's block and then B's is swapping both. Each block by itself is a `Rotation`. An extension of arXiv 2402.17700
(its code fits one rotation for each attribute, unaware of the others).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError, did_you_mean
from microtome.features.rotation import Rotation, check_orthonormal

__all__ = ["JointRotation"]


@dataclass(frozen=True, eq=False)
class JointRotation:
    """Orthonormal axes in named, disjoint blocks.

    Attributes:
        axes: orthonormal columns, [d, k], block after block.
        names: one name for each block.
        sizes: how many columns each block has.

    Raises:
        MeasureError: the sizes do not add up to the columns, a name comes twice, or the axes are not orthonormal.
    """

    axes: Float[Tensor, "d k"]
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "sizes", tuple(int(s) for s in self.sizes))
        check_orthonormal(self.axes)
        if len(set(self.names)) != len(self.sizes) or len(self.names) != len(self.sizes):
            raise MeasureError(
                f"A joint rotation of blocks {list(self.names)} with sizes {list(self.sizes)} was asked for; "
                "give each block one name of its own and one size."
            )
        if min(self.sizes, default=0) < 0 or sum(self.sizes) != self.axes.shape[1]:
            raise MeasureError(
                f"Blocks of sizes {list(self.sizes)} were asked for, found {self.axes.shape[1]} axes; "
                "make the sizes add up to them."
            )

    # One basis with a cut: the coordinates are those of a rotation with the same axes.
    width, n_features = Rotation.width, Rotation.n_features
    encode, decode = Rotation.encode, Rotation.decode

    def units(self, name: str) -> Tensor:
        """Return which features a block holds.

        Raises:
            MeasureError: there is no such block.
        """
        if name not in self.names:
            raise MeasureError(
                f"Block '{name}' was asked for, found {', '.join(self.names)}.{did_you_mean(name, self.names)}"
            )
        at = self.names.index(name)
        start = sum(self.sizes[:at])
        return torch.arange(start, start + self.sizes[at])

    def block(self, name: str) -> Rotation:
        """Return one block as a basis of its own.

        Raises:
            MeasureError: there is no such block.
        """
        return Rotation(self.axes[:, self.units(name).to(self.axes.device)])


FEATURIZER = JointRotation
