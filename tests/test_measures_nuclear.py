"""Mass formulas by least squares: exact on their own theory, the specification's numbers on the real table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import ConfigError, MeasureError
from microtome.data.nuclear import BW2, SEMF, TERMS, Terms, read_table, theory_table
from microtome.measures.nuclear_mass import fit_mass_formula, mass_errors

MASSES = Path(__file__).parents[2] / "shared" / "data" / "nuclear" / "ame2020.csv"


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("formula", [SEMF, BW2], ids=lambda f: f.terms.name)
def test_a_formula_fitted_to_its_own_theory_is_found_again(formula):
    fit = fit_mass_formula(theory_table(formula), formula.terms.name)
    assert np.abs(np.array(fit.formula.coefficients) - formula.coefficients).max() < 1e-6
    assert fit.rms < 1e-8 and fit.held_rms < 1e-8 and (fit.standard_errors < 1e-6).all()


def test_least_squares_leaves_residuals_without_any_term():
    table = theory_table()
    fit = fit_mass_formula(table, "semf")
    design = TERMS["semf"].design(table.z, table.n)
    cosines = design.T @ fit.residuals / np.linalg.norm(design, axis=0) / np.linalg.norm(fit.residuals)
    assert np.abs(cosines).max() < FLOAT64
    assert np.abs(table.binding - fit.formula.binding(table.z, table.n) - fit.residuals).max() < FLOAT64
    assert 0.5 < fit.rms < fit.held_rms < 1.05 * fit.rms < rms(table.binding - SEMF.binding(table.z, table.n))


def test_a_held_out_residual_is_of_a_fit_that_did_not_see_the_nucleus():
    table = theory_table()
    wrong = replace(table, binding=table.binding + np.where(np.arange(len(table)) == 7, 1000.0, 0.0))
    before, after = (fit_mass_formula(t, "semf", seed=2) for t in (table, wrong))
    assert after.held_residuals[7] - before.held_residuals[7] == pytest.approx(1000, abs=1e-6)
    assert 900 < after.residuals[7] - before.residuals[7] < 999.99  # the fit that sees it bends towards it


def test_standard_errors_are_what_noise_makes_of_the_coefficients():
    table, draw = theory_table(SEMF), np.random.default_rng(0)
    fits = [
        fit_mass_formula(replace(table, binding=table.binding + draw.normal(0, 2, len(table))), "semf", folds=2)
        for _ in range(200)
    ]
    spread = np.std([fit.formula.coefficients for fit in fits], axis=0)
    ratio = spread / np.mean([fit.standard_errors for fit in fits], axis=0)
    assert (np.abs(ratio - 1) < 0.2).all()


def test_terms_of_ones_own_are_fitted_too():
    table = theory_table(SEMF)
    bulk = Terms("bulk", ("volume", "surface"), lambda z, n, a: (a, a ** (2 / 3)))
    fit = fit_mass_formula(table, bulk)
    assert fit.formula.terms is bulk and len(fit.formula.coefficients) == 2
    assert fit.rms > fit_mass_formula(table, "semf").rms


def test_what_cannot_be_fitted_is_refused():
    table = theory_table()
    with pytest.raises(ConfigError, match=r"No mass formula 'sem'; there are semf and bw2.*Did you mean 'semf'\?"):
        fit_mass_formula(table, "sem")
    with pytest.raises(MeasureError, match="6 nuclei are to fit the 5 terms of 'semf' in 2 folds; give at least 2"):
        fit_mass_formula(table.take(range(6)), folds=2)
    with pytest.raises(MeasureError, match="in 1 folds; give at least 2 folds"):
        fit_mass_formula(table, folds=1)
    odd = table.take((table.a % 2 == 1) & (table.z < 60))
    with pytest.raises(MeasureError, match=r"terms of 'semf' cannot be told apart on .* more elements, even and odd"):
        fit_mass_formula(odd)  # the pairing term is nought


def test_summaries_of_residuals():
    found = mass_errors([3.0, -4.0] + [0.0] * 97 + [100.0])
    assert found.rms == pytest.approx(np.sqrt(10025 / 100)) and found.median == 0
    assert found.trimmed == pytest.approx(np.sqrt(25 / 99)) and found.nuclei == 100
    with pytest.raises(MeasureError, match="Residuals holds 1 NaN"):
        mass_errors([1.0, np.nan])


@pytest.mark.skipif(not MASSES.is_file(), reason="the IAEA's nuclear tables are not on this machine")
@pytest.mark.parametrize(
    ("least", "measured", "semf", "bw2"),
    [  # fit, 10-fold, as published; of the specification, MeV
        (8, True, (3.079, 3.088, 7.40), (1.625, 1.634, 1.676)),
        (9, True, (3.037, 3.044, 7.40), (1.621, 1.628, 1.670)),
        (21, True, (2.991, 2.999, 7.63), (1.552, 1.561, 1.625)),
        (8, False, (3.430, 3.439, 7.81), (1.697, 1.705, 1.955)),
    ],
)
def test_the_formulas_miss_the_real_table_by_what_the_specification_says(least, measured, semf, bw2):
    table = read_table(MASSES, min_z=least, min_n=least, measured=measured)
    for formula, (fitted, held, published) in ((SEMF, semf), (BW2, bw2)):
        fit = fit_mass_formula(table, formula.terms.name)
        assert fit.rms == pytest.approx(fitted, abs=6e-4)
        assert fit.held_rms == pytest.approx(held, abs=0.01)  # the folds are another draw
        assert rms(table.binding - formula.binding(table.z, table.n)) == pytest.approx(published, abs=6e-3)


@pytest.mark.skipif(not MASSES.is_file(), reason="the IAEA's nuclear tables are not on this machine")
def test_fitted_coefficients_are_the_specifications():
    fit = fit_mass_formula(read_table(MASSES))
    assert np.abs(fit.formula.coefficients) == pytest.approx([15.566, 17.340, 0.705, 22.879, 12.412], abs=6e-4)
    assert np.sign(fit.formula.coefficients).tolist() == [1, -1, -1, -1, 1]
