"""Choose features by an L1 linear probe: those that a sparse readout of the attribute gives any weight.

One against the rest for each class, squared hinge, as the PCA and SAE baselines of arXiv 2402.17700 do it:

    min over w, b of   |w|_1 + C * sum_i max(0, 1 - y_i (w . f_i + b))^2

solved by proximal gradient with momentum and restarts (Beck & Teboulle 2009; O'Donoghue & Candes 2015), so weights are
0 exactly and not merely small. Smaller C, fewer features; C small enough chooses none, which is an empty swap.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.moments import labelled

__all__ = ["l1_probe", "select_by_probe"]


def select_by_probe(
    features: Float[Tensor, "*lead m"], labels: Int[Tensor, "*lead"], classes: int, *, C: float, steps: int = 3000
) -> Int[Tensor, " k"]:
    """Return the features that the sparse probe of any class uses, in order.

    Args:
        features: of a basis, ``basis.encode(x)``.
        labels: the class of each row, from 0.
        classes: how many there are.
        C: weight of the errors against the L1 norm.
        steps: proximal steps at most.

    Raises:
        MeasureError: as for `l1_probe`.
    """
    weight, _ = l1_probe(features, labels, classes, C=C, steps=steps)
    return (weight != 0).any(1).nonzero().reshape(-1)


def l1_probe(
    features: Float[Tensor, "*lead m"], labels: Int[Tensor, "*lead"], classes: int, *, C: float, steps: int = 3000
) -> tuple[Float[Tensor, "m c"], Float[Tensor, " c"]]:
    """Return the sparse weights and the biases; one column for two classes, one for each class otherwise.

    Raises:
        MeasureError: C is not above 0, a value is not finite, or a label is out of range.
    """
    if not C > 0:
        raise MeasureError(f"An L1 probe with C = {C} was asked for; give one above 0.")
    x, y = labelled(features, labels, classes)
    sign = 2 * torch.nn.functional.one_hot(y, classes).double() - 1
    sign = sign[:, 1:] if classes == 2 else sign
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    size = 1 / (2 * C * torch.linalg.eigvalsh(ones.T @ ones)[-1].clamp(min=1e-12))
    now = torch.zeros(ones.shape[1], sign.shape[1], dtype=torch.float64)
    ahead, momentum = now, 1.0
    for _ in range(steps):
        slack = (1 - sign * (ones @ ahead)).clamp(min=0)
        new = ahead + size * 2 * C * (ones.T @ (sign * slack))
        new[:-1] = new[:-1].sign() * (new[:-1].abs() - size).clamp(min=0)
        if (new - now).abs().max() <= 1e-12 * new.abs().max().clamp(min=1):
            now = new
            break
        restart = ((ahead - new) * (new - now)).sum() > 0
        following = 1.0 if restart else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new if restart else new + (momentum - 1) / following * (new - now)
        now, momentum = new, following
    return now[:-1], now[-1]
