"""Choose features of any basis by a mask that is soft while it is fitted and hard once it is frozen: DBM, MDBM.

While fitting, ``f' = f + sigma(m / T) (f_source - f)`` with the temperature T falling to near 0 (`SoftMask.gate` with
`interchange.soft_swap`). Frozen, a feature is chosen where m > 0, strictly: a mask left at its start of 0 chooses
nothing and swaps nothing. Csordas et al. 2021 (arXiv 2010.02066); Huang et al. 2024 (arXiv 2402.17700).

Not copied: in the released code a mask without any chosen feature swaps everything, and T is handed to the optimiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import MeasureError
from microtome.core.protocols import Featurizer

__all__ = ["Mask", "SoftMask", "annealed"]


@dataclass(frozen=True, eq=False)
class Mask:
    """Some features of a basis, as a basis of their own: swapping all of it swaps those and nothing else.

    The basis under it must decode affinely (all of this package do): then the features left out cancel in delta form.

    Attributes:
        basis: what the features are of.
        chosen: which of them, sorted, each once, [k]; may be empty.

    Raises:
        MeasureError: a chosen feature does not exist.
    """

    basis: Featurizer
    chosen: Int[Tensor, " k"] | Sequence[int]

    def __post_init__(self):
        chosen = torch.as_tensor(self.chosen, dtype=torch.long).reshape(-1).unique()
        if chosen.numel() and not 0 <= int(chosen[0]) <= int(chosen[-1]) < self.basis.n_features:
            raise MeasureError(
                f"A mask over features {int(chosen[0])}..{int(chosen[-1])} was asked for, found "
                f"{self.basis.n_features} (0-{self.basis.n_features - 1}); choose among those."
            )
        object.__setattr__(self, "chosen", chosen)

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.basis.width

    @property
    def n_features(self) -> int:
        """How many features are chosen."""
        return len(self.chosen)

    def encode(self, x: Tensor) -> Tensor:
        """Return the chosen features of activations [..., d], [..., k]."""
        f = self.basis.encode(x)
        return f[..., self.chosen.to(f.device)]

    def decode(self, f: Tensor) -> Tensor:
        """Return what the chosen features [..., k] stand for where all others are 0, [..., d]."""
        whole = f.new_zeros(*f.shape[:-1], self.basis.n_features)
        return self.basis.decode(whole.index_copy(-1, self.chosen.to(f.device), f))


class SoftMask(nn.Module):
    """The mask while it is fitted.

    Args:
        n_features: how many features it gates.
        start: where every entry begins: 0 is half open, and frozen as it stands chooses nothing.
        lead: shape of a stack of masks (seeds, attributes).
    """

    def __init__(self, n_features: int, *, start: float = 0.0, lead: tuple[int, ...] = ()):
        super().__init__()
        self.logits = nn.Parameter(torch.full((*lead, n_features), float(start)))

    def gate(self, temperature: float) -> Float[Tensor, "*lead m"]:
        """Return the share of each feature to take from the source, in (0, 1).

        Raises:
            MeasureError: the temperature is not above 0.
        """
        if not temperature > 0:
            raise MeasureError(f"A mask at temperature {temperature} was asked for; give one above 0.")
        return torch.sigmoid(self.logits / temperature)

    def freeze(self, basis: Featurizer) -> Mask:
        """Return the hard mask over a basis: the features whose entry is above 0.

        Raises:
            MeasureError: the mask is a stack, or has not one entry for each feature.
        """
        if self.logits.shape != (basis.n_features,):
            raise MeasureError(
                f"A mask {list(self.logits.shape)} was asked to freeze over {basis.n_features} features; "
                "give one entry for each."
            )
        return Mask(basis, (self.logits.detach() > 0).nonzero().reshape(-1).cpu())


def annealed(step: int, steps: int, *, start: float = 1.0, end: float = 0.01) -> float:
    """Return the temperature of an update, counted from 0: linear from `start` at the first to `end` at the last."""
    return start + (end - start) * min(1.0, step / max(1, steps - 1))


FEATURIZER = Mask
