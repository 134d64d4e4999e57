"""RLAP: the k-dimensional subspace whose removal leaves a linear probe with the least, by a minimax game.

    min over probe, max over P in the Fantope   CE(probe((I - P) x), y),      Fantope = {0 <= P <= I, tr P = k}

the convex hull of rank-k projections (R-LACE, Ravfogel et al. 2022, arXiv 2201.12091). After each step of P its
eigenvalues are projected onto {0 <= l <= 1, sum l = k}: ``clip(l - t, 0, 1)`` with the shift t found by bisection. The
result is the k leading eigenvectors of the P that was best when a fresh probe was fitted without them, measured on
held-out rows (the released code selects and stops on its training rows). The swap acts in that subspace.

The game is played in the span of the data, which holds every gradient of P, so narrow data in a wide space are cheap.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from microtome.core.errors import MeasureError
from microtome.features.logistic import fit_logistic
from microtome.features.moments import LabelledRows
from microtome.features.rotation import Rotation

__all__ = ["RLAPFitter", "fantope", "fantope_eigenvalues"]


def fantope_eigenvalues(values: Float[Tensor, " d"], k: int) -> Float[Tensor, " d"]:
    """Return the nearest point of {0 <= l <= 1, sum l = k}: the values shifted and clipped, the shift by bisection.

    Raises:
        MeasureError: k is not from 0 to the number of values.
    """
    if not 0 <= k <= len(values):
        raise MeasureError(
            f"A Fantope of trace {k} was asked for in {len(values)} dimensions; ask for 0-{len(values)}."
        )
    low, high = values.min() - 1, values.max()
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if (values - middle).clamp(0, 1).sum() > k else (low, middle)
    return (values - high).clamp(0, 1)


def fantope(p: Float[Tensor, "d d"], k: int) -> Float[Tensor, "d d"]:
    """Return the nearest matrix of the Fantope of trace k to a symmetric matrix.

    Raises:
        MeasureError: k is not from 0 to the width.
    """
    values, vectors = torch.linalg.eigh((p + p.T) / 2)
    return (vectors * fantope_eigenvalues(values, k)) @ vectors.T


@dataclass(eq=False)
class RLAPFitter:
    """Rows that become the `Rotation` whose swap exchanges what a linear probe can read.

    Attributes:
        k: dimensions to find.
        classes: how many classes there are.
        steps: rounds of the game (a step of the probe, a step of P).
        rate: of both players, on activations scaled to mean squared length d.
        batch: rows a round.
        every: rounds between judgements on held-out rows.
        held_out: share of the rows kept for judging.
        tolerance: stop once a fresh probe's held-out accuracy is within this of the majority's.
        seed: of the split and the batches.
    """

    k: int
    classes: int
    steps: int = 2000
    rate: float = 0.05
    batch: int = 128
    every: int = 100
    held_out: float = 0.25
    tolerance: float = 0.0015
    seed: int = 0

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
            MeasureError: fewer than two classes, or data that span fewer than k dimensions.
        """
        x, y = self._rows.joined("RLAP")
        span, x = _coordinates(x)
        if span.shape[1] < self.k:
            raise MeasureError(
                f"RLAP of {self.k} dimensions was asked for, found rows that span {span.shape[1]}; ask for fewer."
            )
        return Rotation(span @ self._play(x, y))

    def _play(self, x: Tensor, y: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(x), generator=draw)
        cut = max(1, min(len(x) - 1, round(len(x) * (1 - self.held_out))))
        train, judge = order[:cut], order[cut:]
        player = _Game(x.shape[1], self.classes, self.k, self.rate, draw)
        best, best_loss = player.leading(), -1.0
        for step in range(1, self.steps + 1):
            rows = train[torch.randint(len(train), (self.batch,), generator=draw)]
            player.round(x[rows], y[rows])
            if step % self.every and step != self.steps:
                continue
            axes = player.leading()
            loss, above = _judged(x - x @ axes @ axes.T, y, self.classes, train, judge)
            if loss > best_loss:
                best, best_loss = axes, loss
            if above <= self.tolerance:
                break
        return best


class _Game:
    """The two players and their steps."""

    def __init__(self, d: int, classes: int, k: int, rate: float, draw: torch.Generator):
        self.k, self.rate = k, rate
        self.weight = (0.01 * torch.randn(d, classes, generator=draw, dtype=torch.float64)).requires_grad_()
        self.bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        start = torch.randn(d, d, generator=draw, dtype=torch.float64) * 1e-3
        self.p = fantope(start + start.T + torch.eye(d, dtype=torch.float64) * k / d, k).requires_grad_()

    @torch.enable_grad()
    def round(self, x: Tensor, y: Tensor) -> None:
        """The probe goes down on what P leaves; then P goes up."""
        loss = cross_entropy((x - x @ self.p.detach()) @ self.weight + self.bias, y)
        down, shift = torch.autograd.grad(loss, (self.weight, self.bias))
        self.weight.data -= self.rate * down
        self.bias.data -= self.rate * shift
        loss = cross_entropy((x - x @ self.p) @ self.weight.detach() + self.bias.detach(), y)
        (slope,) = torch.autograd.grad(loss, self.p)
        self.p = fantope(self.p.detach() + self.rate * (slope + slope.T) / 2, self.k).requires_grad_()

    def leading(self) -> Tensor:
        """Return the k leading eigenvectors of P."""
        return torch.linalg.eigh(self.p.detach()).eigenvectors[:, -self.k :] if self.k else self.p.detach()[:, :0]


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the centred rows' span, and the rows in it at mean squared length d."""
    centred = x - x.mean(0)
    _, s, vh = torch.linalg.svd(centred, full_matrices=False)
    span = vh[s > 1e-10 * s[:1]].T
    inside = centred @ span
    return span, inside * (inside.shape[1] / inside.square().sum(1).mean().clamp(min=1e-300)).sqrt()


def _judged(x: Tensor, y: Tensor, classes: int, train: Tensor, judge: Tensor) -> tuple[float, float]:
    """Return a fresh probe's held-out loss, and its held-out accuracy above always saying the commonest class."""
    weight, bias = fit_logistic(x[train], y[train], classes, strength=1e-2, steps=100)
    logits = x[judge] @ weight + bias
    majority = (y[judge] == y[train].mode().values).double().mean()
    right = (logits.argmax(1) == y[judge]).double().mean()
    return cross_entropy(logits, y[judge]).item(), (right - majority).item()
