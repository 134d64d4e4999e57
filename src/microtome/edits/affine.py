"""Affine: an edit value that maps features by a matrix or by one factor each, and shifts them. And maps fitted as one.

    f -> (1 - strength) f + strength (f M + c)

- `match_moments`: the map of least cost that takes a Gaussian source to a Gaussian target,
  ``M = C_s^(-1/2) (C_s^(1/2) C_t C_s^(1/2))^(1/2) C_s^(-1/2)``; with means alone it is steering by their difference
  (Singh et al. 2024, arXiv 2402.09631).
- `transport`: Lin-AcT, one affine map a coordinate (Rodriguez et al. 2024, arXiv 2410.23054): by Gaussian closed form,
  factor sd_t / sd_s, or by least squares on matched quantiles, which is the paper's on samples of equal size.

Strength 0 leaves every bit. All are affine, so they bake into weights (`baking.py`) where a bias can carry c.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import EditError, MeasureError, did_you_mean

__all__ = ["Affine", "match_moments", "transport"]


@dataclass(frozen=True, eq=False)
class Affine:
    """Map the features of each token; a matrix [m, m] acts on all units, a vector [m] on each by itself.

    Attributes:
        factor: [m, m] (``f @ factor``) or [m].
        offset: [m].
        strength: share of the map, 0 none, 1 all.
    """

    factor: Float[Tensor, "*m m"]
    offset: Float[Tensor, " m"]
    strength: float = 1.0

    def new(self, f, units, rows, positions, encode):
        """Return the mapped features.

        Raises:
            EditError: a matrix was asked to act on some units only, or on features with a width of their own.
        """
        factor, offset = self.factor.to(f), self.offset.to(f)
        if factor.ndim == 2 and (units is not None or f.ndim != 2):
            raise EditError(
                f"An affine map {list(factor.shape)} of features {list(f.shape)} was asked for; give all units of a "
                "site whose units are numbers."
            )
        if units is not None:
            factor, offset = factor[units], offset[units]
        mapped = f @ factor if factor.ndim == 2 else f * factor
        return f + self.strength * (mapped + offset - f)


VALUE = Affine


class _Moments(NamedTuple):
    mean: Tensor
    covariance: Tensor


def match_moments(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], *, covariance: bool = True, strength: float = 1.0
) -> Affine:
    """Return the map after which the source has the target's mean and, if asked, covariance.

    Args:
        source: activations to be moved (toxic).
        target: where to (clean).
        covariance: match it too; the source's must then be of full rank.
        strength: share of the map.

    Raises:
        MeasureError: the widths differ, a side has fewer than two rows, or the source's covariance is singular.
    """
    s, t = _moments(source, target)
    if not covariance:
        return Affine(torch.ones_like(s.mean), t.mean - s.mean, strength)
    values, vectors = torch.linalg.eigh(s.covariance)
    if not values[0] > 1e-12 * values[-1]:
        raise MeasureError(
            f"Matching the covariance of {len(source)} rows of width {source.shape[1]} was asked for, found it "
            "singular; give more rows, or covariance=False."
        )
    root, inverse = ((vectors * scale) @ vectors.T for scale in (values.sqrt(), values.rsqrt()))
    inner, turned = torch.linalg.eigh(root @ t.covariance @ root)
    matrix = inverse @ (turned * inner.clamp(min=0).sqrt()) @ turned.T @ inverse
    return Affine(matrix, t.mean - s.mean @ matrix, strength)


def transport(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], *, by: str = "gaussian", strength: float = 1.0
) -> Affine:
    """Return one affine map a coordinate from the source's distribution to the target's.

    Args:
        source: activations to be moved.
        target: where to.
        by: `gaussian` (means and deviations) or `quantiles` (least squares between sorted samples).
        strength: share of the map.

    Raises:
        MeasureError: as for `match_moments`, or there is no such way.
    """
    s, t = _moments(source, target)
    if by == "gaussian":
        above, below = t.covariance.diagonal().sqrt(), s.covariance.diagonal().sqrt()
    elif by == "quantiles":
        a, b = _quantiles(source, target)
        a, b = a - a.mean(0), b - b.mean(0)
        above, below = (a * b).sum(0), a.square().sum(0)
    else:
        ways = ("gaussian", "quantiles")
        raise MeasureError(f"A transport by '{by}' was asked for; there are {', '.join(ways)}.{did_you_mean(by, ways)}")
    factor = torch.where(below > 0, above / below.clamp(min=1e-300), 1.0)  # one that never varies is only shifted
    return Affine(factor, t.mean - factor * s.mean, strength)


def _moments(source: Tensor, target: Tensor) -> tuple[_Moments, _Moments]:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1] or min(len(source), len(target)) < 2:
        raise MeasureError(
            f"A map between rows [n, d] and [m, d] was asked for, found {list(source.shape)} and {list(target.shape)}; "
            "give at least 2 rows of one width on both sides."
        )
    found = (x.detach().double().cpu() for x in (source, target))
    return tuple(_Moments(x.mean(0), torch.atleast_2d(torch.cov(x.T))) for x in found)


def _quantiles(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sides sorted coordinate by coordinate, the larger read off at the quantiles of the smaller."""
    a, b = (x.detach().double().cpu().sort(0).values for x in (source, target))
    if len(a) != len(b):
        levels = (torch.arange(min(len(a), len(b)), dtype=torch.float64) + 0.5) / min(len(a), len(b))
        a, b = (_read_off(x, levels) for x in (a, b))
    return a, b


def _read_off(ordered: Tensor, levels: Tensor) -> Tensor:
    at = (levels * len(ordered) - 0.5).clamp(0, len(ordered) - 1)
    low = at.floor().long().clamp(max=max(len(ordered) - 2, 0))
    return torch.lerp(ordered[low], ordered[low + 1], (at - low)[:, None])
