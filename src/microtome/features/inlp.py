"""INLP: fit a linear probe, take out the directions it reads, and again, until a probe does no better than chance.

Ravfogel et al. 2020 (arXiv 2004.07667). The union of the directions is a `Rotation`; projecting it out leaves data on
which each of the fitted probes, and (where it stopped by itself) a fresh one, says the commonest class. Greedy: it
takes out more dimensions than LEACE does for the same end.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.features.logistic import fit_logistic
from microtome.features.moments import LabelledRows
from microtome.features.probe import Probe
from microtome.features.rotation import Rotation

__all__ = ["InlpFitter"]


@dataclass(eq=False)
class InlpFitter:
    """Rows that become the subspace that linear probes read.

    Attributes:
        classes: how many classes there are.
        rounds: probes to fit at most; 0 gives an empty basis.
        strength: of each probe's L2 penalty; above 0.
        tolerance: stop once a fresh probe's accuracy, on these rows, is within this of the commonest class's share.
    """

    classes: int
    rounds: int = 10
    strength: float = 1e-3
    tolerance: float = 0.0

    def __post_init__(self):
        self._rows = LabelledRows(self.classes)

    def update(self, batch: Float[Tensor, "*lead d"], *, labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each, from 0.

        Raises:
            MeasureError: a value is not finite or a label is out of range.
        """
        self._rows.update(batch, labels=labels)

    def finish(self) -> Rotation:
        """Return the subspace.

        Raises:
            MeasureError: fewer than two classes have rows.
        """
        x, y = self._rows.joined("INLP")
        x = x - x.mean(0)
        chance = y.bincount().max().item() / len(y)
        taken = x.new_zeros(x.shape[1], 0)
        for _ in range(self.rounds):
            weight, bias = fit_logistic(x, y, self.classes, strength=self.strength)
            right = ((x @ weight + bias).argmax(1) == y).double().mean().item()
            if right <= chance + self.tolerance or taken.shape[1] == x.shape[1]:
                break
            fresh = Probe.of(weight - taken @ (taken.T @ weight), bias).axes
            taken = torch.linalg.qr(torch.cat([taken, fresh], 1)).Q[:, : x.shape[1]]
            x = x - x @ taken @ taken.T
        return Rotation(taken)
