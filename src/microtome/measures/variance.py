"""Variance decomposition: what in the design explains a unit's value, once everything else is accounted for.

    unit ~ task + skeleton + length + answer type            one linear model per unit, all units at once
    partial eta^2 of a factor = (SSE without it - SSE) / (SSE without it)
    F = ((SSE without it - SSE) / df) / (SSE / residual df)   (each factor against all others; no interactions)

A unit responds to the *task* only if task still explains something when skeleton, length and answer type may explain
all they can. Where a factor is a function of the others (a design with one template per task) it has no degree of
freedom left: its eta^2 is 0 and its p is 1, whatever the data. F assumes independent, equally spread normal
residuals; it screens units, the permutation test (`resampling.permute_within`) makes the claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import group_codes, numbers, unit_matrix

__all__ = ["Decomposition", "variance_decomposition"]

RANK = 1e-9


@dataclass(frozen=True, eq=False)
class Decomposition:
    """How much of every unit each factor explains beyond all others.

    Args:
        eta: factor -> partial eta squared, [units].
        p: factor -> p-value of its F test, [units].
        df: factor -> its own degrees of freedom (0: a function of the other factors).
        residual_df: items minus the rank of the whole model.
    """

    eta: dict[str, np.ndarray]
    p: dict[str, np.ndarray]
    df: dict[str, int]
    residual_df: int


def variance_decomposition(values: Any, factors: Mapping[str, Any]) -> Decomposition:
    """Return the partial eta squared and F test of every factor in every unit.

    Args:
        values: [items, units] (or [items]).
        factors: name -> one entry per item; floats are a covariate (one slope), anything else is categorical.

    Raises:
        MeasureError: missing values, no factor, a factor of another length, or too few items to leave residuals.
    """
    x = unit_matrix(values, "Values")
    if not factors:
        raise MeasureError("A variance decomposition got no factor; give at least one, such as the task.")
    columns = {name: _design(name, factor, len(x)) for name, factor in factors.items()}
    centred = x - x.mean(0)
    total = (centred**2).sum(0)
    flat = total <= (1e-12 * np.abs(x).max(0)) ** 2 * len(x)
    centred[:, flat] = 0
    whole = _basis(list(columns.values()), len(x))
    residual_df = len(x) - 1 - whole.shape[1]
    if residual_df < 1:
        raise MeasureError(
            f"Factors {list(factors)} use up all {len(x)} items ({whole.shape[1]} parameters); give more items or "
            "fewer factors."
        )
    error = _unexplained(centred, whole, total)
    eta, p, df = {}, {}, {}
    for name in columns:
        rest = _basis([c for other, c in columns.items() if other != name], len(x))
        df[name] = whole.shape[1] - rest.shape[1]
        eta[name], p[name] = _test(_unexplained(centred, rest, total), error, df[name], residual_df)
    return Decomposition(eta, p, df, residual_df)


def _design(name: str, factor: Any, n: int) -> np.ndarray:
    """Centred columns of one factor, [items, levels] or [items, 1], each scaled to unit length."""
    array = np.asarray(factor.detach().cpu() if hasattr(factor, "detach") else factor)
    if array.dtype.kind == "f":
        columns = numbers(array, f"Factor '{name}'", ndim=1, length=n)[:, None]
    else:
        codes = group_codes(array, n, f"Factor '{name}' labels")
        columns = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
    columns = columns - columns.mean(0)
    return columns / np.maximum(np.sqrt((columns**2).sum(0)), 1e-300)


def _basis(parts: list[np.ndarray], n: int) -> np.ndarray:
    """Orthonormal basis of the span of centred columns, [items, rank]."""
    if not parts:
        return np.zeros((n, 0))
    U, S, _ = np.linalg.svd(np.hstack(parts), full_matrices=False)
    return U[:, S > RANK * np.sqrt(n)]


def _unexplained(centred: np.ndarray, basis: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Squared residuals by unit; what is rounding of the total counts as 0."""
    left = ((centred - basis @ (basis.T @ centred)) ** 2).sum(0)
    return np.where(left <= 1e-22 * total * len(centred), 0.0, left)


def _test(without: np.ndarray, error: np.ndarray, df: int, residual_df: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import f as f_distribution

    gain = np.maximum(without - error, 0)
    if df == 0:
        return np.zeros_like(gain), np.ones_like(gain)
    eta = np.divide(gain, without, out=np.zeros_like(gain), where=without > 0)
    infinite = np.where(gain > 0, np.inf, 0.0)
    ratio = np.divide(gain / df, error / residual_df, out=infinite, where=error > 0)
    return eta, f_distribution.sf(ratio, df, residual_df)
