"""Three ways to keep R orthonormal while it is fitted; each is a module that gives R, [..., d, k].

- gram: ``R = W L^-T`` with ``W'W = L L'`` (Cholesky). Any W of full rank is a point; R spans what W spans. Two small
  products and a triangular solve, several times cheaper than reflections at rank 128.
- qr: R is the parameter; after each update it is put back by ``R <- qf(R)``, the QR retraction on the Stiefel manifold.
- householder: torch's own ``parametrizations.orthogonal`` (what pyvene's rotation layer uses), for like-for-like runs.

All give R'R = I at every step; they differ in the path an optimiser takes. ``module.project(x)`` is x R R', by the
cheapest way. Leading axes are a stack of fits (seeds, attributes). The loop: forward, backward, ``optimizer.step()``,
``module.retract()``; at the end ``module.freeze()``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from microtome.core.errors import ConfigError, MeasureError, did_you_mean
from microtome.features.projection import project
from microtome.features.rotation import Rotation

__all__ = ["QR", "Gram", "Householder", "parametrise"]

# The Gram matrix squares W's condition; W is put back to R itself (the same point) before that costs digits.
_WORST_RATIO = 4.0


class Gram(nn.Module):
    """R from any full-rank W by a Cholesky solve.

    Args:
        start: where to begin, [..., d, k]; orthonormal columns are kept as they are.
    """

    def __init__(self, start: Float[Tensor, "*lead d k"]):
        super().__init__()
        self.weight = nn.Parameter(start.detach().clone())

    def forward(self) -> Float[Tensor, "*lead d k"]:
        """Return R."""
        return torch.linalg.solve_triangular(self._factor().mT, self.weight, upper=True, left=False)

    def project(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return x R R', for one rotation."""
        return project(x, self.weight)

    @torch.no_grad()
    def retract(self) -> None:
        """Put W back to R where it has become lopsided; R stays as it is."""
        scale = self._factor().diagonal(dim1=-2, dim2=-1)
        if scale.numel() and (scale.amax(-1) > _WORST_RATIO * scale.amin(-1)).any():
            self.weight.copy_(self())

    def freeze(self) -> Rotation:
        """Return the fitted basis."""
        return _frozen(self())

    def _factor(self) -> Tensor:
        return torch.linalg.cholesky(self.weight.mT @ self.weight)


class QR(nn.Module):
    """R itself, put back onto the manifold after each update.

    Args:
        start: orthonormal columns to begin with, [..., d, k].
    """

    def __init__(self, start: Float[Tensor, "*lead d k"]):
        super().__init__()
        self.weight = nn.Parameter(start.detach().clone())
        self.retract()

    def forward(self) -> Float[Tensor, "*lead d k"]:
        """Return R."""
        return self.weight

    def project(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return x R R', for one rotation."""
        return x @ self.weight @ self.weight.mT

    @torch.no_grad()
    def retract(self) -> None:
        """Replace R by the Q of its QR, with R's diagonal made positive (so an orthonormal R stays)."""
        q, r = torch.linalg.qr(self.weight)
        self.weight.copy_(q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2))

    def freeze(self) -> Rotation:
        """Return the fitted basis."""
        return _frozen(self())


class Householder(nn.Module):
    """R as a product of reflections, by torch's parametrisation (a square R turns by the matrix exponential instead).

    Args:
        start: orthonormal columns to begin with, [..., d, k].
        seed: torch completes them to a full basis at random, and the path depends on it; its generator is left alone.
    """

    def __init__(self, start: Float[Tensor, "*lead d k"], *, seed: int = 0):
        super().__init__()
        self.weight = nn.Parameter(start.detach().clone())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            orthogonal(self, "weight")

    def forward(self) -> Float[Tensor, "*lead d k"]:
        """Return R."""
        return self.weight

    def project(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return x R R', for one rotation."""
        axes = self.weight  # made anew at every look
        return x @ axes @ axes.mT

    def retract(self) -> None:
        """Do nothing: every value of the parameters is a point."""

    def freeze(self) -> Rotation:
        """Return the fitted basis."""
        return _frozen(self())


def parametrise(kind: str, start: Float[Tensor, "*lead d k"]) -> Gram | QR | Householder:
    """Return the module of one kind, beginning at orthonormal columns.

    Args:
        kind: `gram`, `qr` or `householder`.
        start: orthonormal columns, [..., d, k], as from `rotation.random_axes`.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds = {"gram": Gram, "qr": QR, "householder": Householder}
    if kind not in kinds:
        raise ConfigError(
            f"Parametrisation '{kind}' was asked for, found {', '.join(kinds)}.{did_you_mean(kind, kinds)}"
        )
    return kinds[kind](start)


def _frozen(axes: Tensor) -> Rotation:
    if axes.ndim != 2:
        raise MeasureError(
            f"One rotation [width, rank] was asked for, found a stack {list(axes.shape)}; freeze each Rotation(R[i])."
        )
    return Rotation(axes.detach().clone())
