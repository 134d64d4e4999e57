"""Linear probes as bases: the subspace in which a linear readout of labels sees anything at all.

A probe's logits are ``x W + b``. As only differences between logits matter, W's columns are centred over classes; their
span (at most classes - 1 dimensions) is the basis. Swapping all of it gives the base exactly the source's logit
differences, so the probe cannot tell them apart. That says nothing yet of the model: it may read elsewhere.

Three rules in closed form, from streaming moments: mean difference, ridge regression on the labels, and linear
discriminant analysis (Fisher 1936; shrinkage towards a sphere). `logistic.py` has the fourth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.features.moments import ClassMoments
from microtome.features.precision import wide

__all__ = ["Probe", "ProbeFitter", "Readout", "lda", "mean_difference", "ridge"]


class Readout(NamedTuple):
    """Weights [d, c] and bias [c] of logits ``x W + b``."""

    weight: Float[Tensor, "d c"]
    bias: Float[Tensor, " c"]


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe and the subspace it reads.

    Attributes:
        weight: of the logits, [d, c].
        bias: of the logits, [c].
        axes: orthonormal basis of the span of the class-centred weights, [d, k].
    """

    weight: Float[Tensor, "d c"]
    bias: Float[Tensor, " c"]
    axes: Float[Tensor, "d k"]

    @classmethod
    def of(cls, weight: Float[Tensor, "d c"], bias: Float[Tensor, " c"]) -> "Probe":
        """Return the probe of a readout.

        Raises:
            MeasureError: the weights tell no class from another.
        """
        centred = weight - weight.mean(1, keepdim=True) if weight.shape[1] > 1 else weight
        u, s, _ = torch.linalg.svd(centred, full_matrices=False)
        rank = int((s > 1e-9 * s[:1].clamp(min=1e-300)).sum())
        if rank == 0:
            raise MeasureError(
                f"A probe of weights {list(weight.shape)} tells no class from another; fit it on others."
            )
        return cls(weight, bias, u[:, :rank])

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.axes.shape[0]

    @property
    def n_features(self) -> int:
        """Dimension of the subspace."""
        return self.axes.shape[1]

    def logits(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead c"]:
        """Return what the probe reads."""
        x = wide(x)
        return x @ self.weight.to(x) + self.bias.to(x)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of activations [..., d] in the subspace, [..., k]."""
        x = wide(x)
        return x @ self.axes.to(x)

    def decode(self, f: Tensor) -> Tensor:
        """Return the vectors that coordinates [..., k] stand for, [..., d]."""
        return f @ self.axes.to(f).T


class ProbeFitter:
    """Running moments that become a `Probe`.

    Args:
        classes: how many classes there are.
        rule: from moments to a readout: `mean_difference`, `lda`, `ridge`, or one of those with its strength bound by
            functools.partial.
    """

    def __init__(self, classes: int, rule: Callable[[ClassMoments], Readout]):
        self.moments, self.rule = ClassMoments(classes), rule

    def update(self, batch: Float[Tensor, "*lead d"], *, labels: Int[Tensor, "*lead"]) -> None:
        """Take in activations and the class of each, from 0.

        Raises:
            MeasureError: a value is not finite or a label is out of range.
        """
        self.moments.update(batch, labels)

    def finish(self) -> Probe:
        """Return the fitted probe.

        Raises:
            MeasureError: a class has no rows.
        """
        self.moments.check()
        return Probe.of(*self.rule(self.moments))


def mean_difference(moments: ClassMoments) -> Readout:
    """Return the nearest-mean readout: directions from the middle of the class means to each."""
    return Readout((moments.means - moments.means.mean(0)).T, -0.5 * moments.means.square().sum(1))


def lda(moments: ClassMoments, *, shrinkage: float = 0.0) -> Readout:
    """Return the discriminant readout: mean differences seen through the inverse covariance within classes.

    Args:
        moments: of the labelled activations.
        shrinkage: share of the covariance replaced by a sphere of the same trace, 0 to 1; above 0 where rows are few.

    Raises:
        MeasureError: the covariance is singular.
    """
    spare = moments.counts.sum() - moments.classes
    d = moments.means.shape[1]
    covariance = moments.within / spare.clamp(min=1)
    sphere = covariance.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex((1 - shrinkage) * covariance + shrinkage * sphere)
    ends = factor.diagonal().abs()
    if failed or ends.min() < 1e-7 * ends.max():
        raise MeasureError(
            f"LDA over {int(moments.counts.sum())} rows of width {d} found a singular covariance within classes; "
            f"give a shrinkage above {shrinkage}."
        )
    weight = torch.cholesky_solve(moments.means.T, factor)
    bias = -0.5 * (moments.means.T * weight).sum(0) + (moments.counts / moments.counts.sum()).log()
    return Readout(weight - weight.mean(1, keepdim=True), bias)


def ridge(moments: ClassMoments, *, strength: float = 1.0) -> Readout:
    """Return the least-squares readout of one-hot labels with ``strength * |W|^2`` added to the summed squares."""
    total, d = moments.within + moments.between, moments.means.shape[1]
    joint = ((moments.means - moments.mean) * moments.counts[:, None]).T
    weight = torch.linalg.solve(total + strength * torch.eye(d, dtype=torch.float64), joint)
    return Readout(weight, moments.counts / moments.counts.sum() - moments.mean @ weight)


FEATURIZER = Probe
