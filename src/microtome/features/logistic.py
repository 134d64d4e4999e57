"""Logistic regression as a probe: multinomial, L2, solved to its optimum by L-BFGS in float64.

    min over W, b of   mean_i -log softmax(x_i W + b)[y_i]  +  strength / 2 * |W|^2

Convex, and with strength > 0 its W is unique; no step size, no seed. Rows are kept, not streamed.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.moments import LabelledRows
from microtome.features.probe import Probe, Readout

__all__ = ["LogisticFitter", "fit_logistic"]


def fit_logistic(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, *, strength: float = 1e-3, steps: int = 500
) -> Readout:
    """Return the optimal readout.

    Args:
        x: activations in float64.
        labels: the class of each row, from 0.
        classes: how many there are.
        strength: of the penalty; above 0.
        steps: L-BFGS iterations at most.

    Raises:
        MeasureError: the strength is not above 0.
    """
    if not strength > 0:
        raise MeasureError(
            f"A logistic probe of strength {strength} was asked for; give one above 0 (separable classes have no "
            "optimum without)."
        )
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, tolerance_grad=1e-9, tolerance_change=1e-14, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, labels) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return Readout(weight.detach(), bias.detach())


class LogisticFitter:
    """Rows that become a `Probe` by logistic regression.

    Args:
        classes: how many classes there are.
        strength: of the penalty; above 0.
    """

    def __init__(self, classes: int, *, strength: float = 1e-3):
        self.strength = strength
        self._rows = LabelledRows(classes)

    def update(self, batch: Float[Tensor, "*lead d"], *, labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each, from 0.

        Raises:
            MeasureError: a value is not finite or a label is out of range.
        """
        self._rows.update(batch, labels=labels)

    def finish(self) -> Probe:
        """Return the fitted probe.

        Raises:
            MeasureError: fewer than two classes have rows.
        """
        x, y = self._rows.joined("A logistic probe")
        return Probe.of(*fit_logistic(x, y, self._rows.classes, strength=self.strength))
