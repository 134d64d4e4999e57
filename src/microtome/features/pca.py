"""Principal components, fitted from a stream of batches, with error-free reconstruction of what they span.

Running mean and covariance in float64 (Chan et al. 1983, merge of moments); the components are the eigenvectors of the
covariance, or of the correlation matrix where coordinates are first divided by their deviation D, largest first.
``encode(x) = D^-1 (x - mean) W``, ``decode(f) = D f W' + mean``. As edits use the delta form, a swap of components V is
``D (z_b + V V'(z_s - z_b)) + mean``: what the kept components do not explain stays as it was, and swapping all of them
is a full patch. (RAVEL's released code adds the change to the un-normalised base instead and then scales it, so that
even a swap of a thing with itself moves it; not copied.)
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.features.precision import wide
from microtome.features.saving import load_featurizer, save_featurizer

__all__ = ["PCA", "PCAFitter"]


@dataclass(frozen=True, eq=False)
class PCA:
    """A fitted basis.

    Attributes:
        mean: [d].
        components: orthonormal columns, [d, k], by falling variance.
        variance: variance along each component, [k] (n - 1 in the denominator).
        scale: what each coordinate was divided by, [d]; None for plain PCA.
    """

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "d k"]
    variance: Float[Tensor, " k"]
    scale: Float[Tensor, " d"] | None = None

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.components.shape[0]

    @property
    def n_features(self) -> int:
        """How many components are kept."""
        return self.components.shape[1]

    @property
    def axes(self) -> Float[Tensor, "d k"] | None:
        """The orthonormal directions a swap acts along; standardised components have none."""
        return self.components if self.scale is None else None

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates of activations [..., d], [..., k]."""
        x = wide(x)
        centred = x - self.mean.to(x)
        if self.scale is not None:
            centred = centred / self.scale.to(x)
        return centred @ self.components.to(x)

    def decode(self, f: Tensor) -> Tensor:
        """Return the activations that coordinates [..., k] stand for, [..., d]."""
        spanned = f @ self.components.to(f).T
        if self.scale is not None:
            spanned = spanned * self.scale.to(f)
        return spanned + self.mean.to(f)

    def save(self, path: str | Path, *, site: Site | str | None = None) -> Path:
        """Write the basis as safetensors and return the path; see `saving.save_featurizer`."""
        return save_featurizer(self, path, site=site)

    @classmethod
    def load(cls, path: str | Path) -> "PCA":
        """Read a basis written by `save`.

        Raises:
            MeasureError: the file holds another basis.
            DataError: it holds none.
        """
        found = load_featurizer(path)
        if not isinstance(found, cls):
            raise MeasureError(f"'{path}' is not a saved PCA, found a {type(found).__name__}; use load_featurizer.")
        return found


class PCAFitter:
    """Running moments that become a `PCA`.

    Args:
        k: how many components to keep (None: all).
        standardise: divide each coordinate by its deviation first. One that never varies is left as it is.
    """

    def __init__(self, k: int | None = None, *, standardise: bool = False):
        self.k, self.standardise, self.n = k, standardise, 0
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
        covariance, scale = self.scatter / (self.n - 1), None
        if self.standardise:
            deviation = covariance.diagonal().clamp(min=0).sqrt()
            scale = torch.where(deviation > 0, deviation, 1.0)
            covariance = covariance / torch.outer(scale, scale)
        values, vectors = torch.linalg.eigh(covariance)
        return PCA(self.mean, vectors.flip(1)[:, :k], values.flip(0)[:k].clamp(min=0), scale)


FEATURIZER = PCA
