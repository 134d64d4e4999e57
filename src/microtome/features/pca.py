"""Principal components, fitted from a stream of batches, with error-free reconstruction of what they span.

Running mean and covariance in float64 (Chan et al. 1983, merge of moments); the components are the covariance's
eigenvectors, largest first. ``encode(x) = (x - mean) W``, ``decode(f) = f W' + mean``. As edits use the delta form,
what the kept components do not explain stays as it was, and swapping all of them is a full patch.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import MeasureError

__all__ = ["PCA", "PCAFitter"]


@dataclass(frozen=True, eq=False)
class PCA:
    """A fitted basis.

    Attributes:
        mean: [d].
        components: orthonormal columns, [d, k], by falling variance.
        variance: variance along each component, [k] (n - 1 in the denominator).
    """

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "d k"]
    variance: Float[Tensor, " k"]

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of activations [..., d], [..., k]."""
        return (x - self.mean.to(x)) @ self.components.to(x)

    def decode(self, f: Tensor) -> Tensor:
        """Return the activations that coordinates [..., k] stand for, [..., d]."""
        return f @ self.components.to(f).T + self.mean.to(f)

    def save(self, path: str | Path) -> Path:
        """Write the basis as safetensors and return the path."""
        tensors = {"mean": self.mean, "components": self.components.contiguous(), "variance": self.variance}
        save_file(tensors, path, metadata={"format": "microtome.pca", "version": "1"})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "PCA":
        """Read a basis written by `save`.

        Raises:
            MeasureError: the file is not one.
        """
        with safe_open(path, "pt") as f:
            if (f.metadata() or {}).get("format") != "microtome.pca":
                raise MeasureError(f"'{path}' is not a saved PCA; write one with PCA.save.")
            return cls(*(f.get_tensor(n) for n in ("mean", "components", "variance")))


class PCAFitter:
    """Running moments that become a `PCA`.

    Args:
        k: how many components to keep (None: all).
    """

    def __init__(self, k: int | None = None):
        self.k, self.n = k, 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def update(self, batch: Tensor, **labels: object) -> None:
        """Take in activations [..., d]."""
        x = batch.detach().reshape(-1, batch.shape[-1]).double().cpu()
        if not x.isfinite().all():
            raise MeasureError(
                f"PCA over {len(x)} rows: {int((~x.isfinite()).sum())} values are not finite; drop them."
            )
        other = PCAFitter()
        other.n, other.mean = len(x), x.mean(0)
        other.scatter = (x - other.mean).T @ (x - other.mean)
        self.merge(other)

    def merge(self, other: "PCAFitter") -> "PCAFitter":
        """Join the moments of another shard and return this fitter."""
        if other.n == 0:
            return self
        if self.n == 0:
            self.n, self.mean, self.scatter = other.n, other.mean.clone(), other.scatter.clone()
            return self
        total, gap = self.n + other.n, other.mean - self.mean
        self.scatter += other.scatter + torch.outer(gap, gap) * (self.n * other.n / total)
        self.mean, self.n = self.mean + gap * (other.n / total), total
        return self

    def finish(self) -> PCA:
        """Return the fitted basis.

        Raises:
            MeasureError: fewer than two rows, or fewer dimensions than components asked for.
        """
        if self.n < 2:
            raise MeasureError(f"PCA needs at least 2 rows, found {self.n}; update it with activations first.")
        k = self.k or len(self.mean)
        if k > len(self.mean):
            raise MeasureError(f"PCA asked for {k} components, found {len(self.mean)} dimensions; ask for fewer.")
        values, vectors = torch.linalg.eigh(self.scatter / (self.n - 1))
        return PCA(self.mean, vectors.flip(1)[:, :k], values.flip(0)[:k].clamp(min=0))
