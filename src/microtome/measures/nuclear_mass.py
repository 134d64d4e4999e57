"""Mass formulas fitted to a table of nuclei by least squares, and how well they do on nuclei that the fit did not see.

    coefficients = argmin sum over nuclei of (B - sum_k c_k term_k(Z, N))^2

Nuclei count equally, whatever their uncertainty: it is far below what a formula misses. Root mean squares divide by the
number of nuclei, not by the degrees of freedom; the cross-validated one is over residuals of nuclei, each predicted by
a fit to the other folds. Standard errors assume independent residuals, which those of a mass formula are not
(neighbours err alike): read them as lower bounds. A fit made for a model's residual target must see training nuclei
only: give `table.take(split.train_nuclei)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from microtome.core.errors import MeasureError
from microtome.core.seeds import generator
from microtome.data.nuclear import Formula, NuclearTable, Terms, terms_named
from microtome.measures.arrays import numbers

__all__ = ["MassErrors", "MassFit", "fit_mass_formula", "mass_errors"]

_SINGULAR = 1e-10


@dataclass(frozen=True, eq=False)
class MassFit:
    """A fitted mass formula.

    Attributes:
        formula: with the fitted coefficients; `formula.binding(z, n)` predicts.
        standard_errors: of the coefficients, MeV.
        residuals: measured minus fitted, MeV.
        rms: root mean square of the residuals, MeV.
        held_residuals: measured minus predicted by the fit to the other folds, MeV.
        held_rms: root mean square of those.
        folds: number of folds.
    """

    formula: Formula
    standard_errors: Float[np.ndarray, "term"]
    residuals: Float[np.ndarray, "nucleus"]
    rms: float
    held_residuals: Float[np.ndarray, "nucleus"]
    held_rms: float
    folds: int


def fit_mass_formula(table: NuclearTable, terms: str | Terms = "semf", *, folds: int = 10, seed: int = 0) -> MassFit:
    """Return a mass formula fitted to a table's binding energies.

    Args:
        table: the nuclei.
        terms: `semf`, `bw2`, or terms of your own.
        folds: of the cross-validation, at least 2.
        seed: of the folds.

    Raises:
        ConfigError: no formula of that name.
        MeasureError: fewer nuclei than the folds need, or nuclei too alike to tell the terms apart.

    Example:
        >>> fit = fit_mass_formula(read_table("ame2020.csv"), "bw2")
        >>> fit.rms, fit.held_rms
    """
    terms = terms_named(terms)
    design, target = terms.design(table.z, table.n), table.binding
    count, width = design.shape
    if folds < 2 or count - -(-count // folds) <= width:
        raise MeasureError(
            f"{count} nuclei are to fit the {width} terms of '{terms.name}' in {folds} folds; give at least 2 folds, "
            f"and more than {width} nuclei to each fit."
        )
    coefficients, inverse = _least_squares(design, target, terms.name)
    residuals = target - design @ coefficients
    fold = generator(seed, "mass folds").permutation(count) % folds
    held = np.empty(count)
    for k in range(folds):
        out = fold == k
        held[out] = target[out] - design[out] @ _least_squares(design[~out], target[~out], terms.name)[0]
    errors = np.sqrt(residuals @ residuals / (count - width) * np.diag(inverse))
    formula = Formula(terms, tuple(coefficients.tolist()))
    return MassFit(formula, errors, residuals, _rms(residuals), held, _rms(held), folds)


def _least_squares(
    design: Float[np.ndarray, "nucleus term"], target: Float[np.ndarray, "nucleus"], name: str
) -> tuple[Float[np.ndarray, "term"], Float[np.ndarray, "term term"]]:
    """Coefficients, and the inverse of the design's Gram matrix; columns are scaled to unit length on the way."""
    size = np.linalg.norm(design, axis=0)
    scaled = design / np.where(size > 0, size, 1.0)
    values, _, _, singular = np.linalg.lstsq(scaled, target, rcond=None)
    if singular[-1] < _SINGULAR * singular[0]:
        raise MeasureError(
            f"The terms of '{name}' cannot be told apart on {len(target)} nuclei; give nuclei of more elements, even "
            "and odd."
        )
    return values / size, np.linalg.inv(scaled.T @ scaled) / np.outer(size, size)


@dataclass(frozen=True)
class MassErrors:
    """How far predictions are off, in the unit of the residuals.

    Attributes:
        rms: root mean square.
        median: of the absolute residuals.
        trimmed: root mean square without the largest hundredth, which often holds most of it.
        nuclei: how many.
    """

    rms: float
    median: float
    trimmed: float
    nuclei: int


def mass_errors(residuals: Any) -> MassErrors:
    """Return the usual summaries of residuals.

    Args:
        residuals: one per nucleus, array or tensor.

    Raises:
        MeasureError: none, or missing values.
    """
    size = np.sort(np.abs(numbers(residuals, "Residuals", ndim=1)))
    kept = size[: max(1, int(np.ceil(0.99 * len(size))))]
    return MassErrors(_rms(size), float(np.median(size)), _rms(kept), len(size))


def _rms(x: Float[np.ndarray, "nucleus"]) -> float:
    return float(np.sqrt(np.mean(x**2)))
