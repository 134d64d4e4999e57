"""Library regression against all subsets and planted formulas; the semi-empirical mass formula read back exactly."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures import free_form, symbolic
from microtome.measures.free_form import FreeFormula, free_formulas
from microtome.measures.symbolic import Library, best_subsets, monomials, selection_frequency

TABLE = Path(__file__).parents[2] / "shared" / "data" / "nuclear" / "ame2020.csv"
SEMF = {"A": 15.75, "A^0.667": -17.8, "Z(Z-1) A^-0.333": -0.711, "A^-1 I^2": -23.7, "A^-0.5 pi": 11.18}


def generator(seed=0):
    return np.random.default_rng(seed)


def nuclei(every=1):
    """Z and N near the valley of stability, both at least 8."""
    z, n = (g.ravel() for g in np.meshgrid(np.arange(8.0, 119), np.arange(8.0, 178), indexing="ij"))
    a = z + n
    near = np.abs(z - a / (1.98 + 0.0155 * a ** (2 / 3))) < 8
    return z[near][::every], n[near][::every]


def mass_library(z, n, rich=True):
    """Products of powers of A, Z, |N - Z| and the pairing sign, and the exact Coulomb term."""
    a, sign = z + n, np.where((z + n) % 2 == 1, 0.0, np.where(z % 2 == 0, 1.0, -1.0))
    powers = {"A": [1, 2 / 3, 1 / 3, 0, -1 / 3, -1 / 2, -1], "Z": [0, 1, 2], "I": [0, 1, 2], "pi": [0, 1]}
    if not rich:
        powers = {"A": [1, 2 / 3, -1 / 3, -1 / 2, -1], "I": [0, 2], "pi": [0, 1]}
    found = monomials({"A": a, "Z": z, "I": np.abs(n - z), "pi": sign}, powers)
    terms = dict(zip(found.names, found.terms.T, strict=True))
    return Library.of(terms | {"Z(Z-1) A^-0.333": z * (z - 1) * a ** (-1 / 3)})


def binding(library):
    terms = dict(zip(library.names, library.terms.T, strict=True))
    return sum(c * terms[name] for name, c in SEMF.items())


def test_the_five_terms_of_the_mass_formula_come_back_exactly():
    library = mass_library(*nuclei())
    assert len(library.names) > 100
    front = best_subsets(library, binding(library))
    assert set(front.chosen.terms) == set(SEMF)
    assert front.chosen.rms < 1e-8 and front.formulas[-1] == front.chosen
    for term, coefficient in zip(front.chosen.terms, front.chosen.coefficients, strict=True):
        assert coefficient == pytest.approx(SEMF[term], abs=1e-6)
    assert all(b.rms < a.rms for a, b in zip(front.formulas, front.formulas[1:], strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_they_also_come_back_from_under_noise_and_no_sixth(seed):
    library = mass_library(*nuclei(4))
    target = binding(library) + 0.5 * generator(seed).normal(size=len(library.terms))
    front = best_subsets(library, target, largest=7)
    assert set(front.chosen.terms) == set(SEMF)
    assert front.chosen.rms == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("exhaustive", [0, symbolic.EXHAUSTIVE])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_subsets(seed, exhaustive, monkeypatch):
    monkeypatch.setattr(symbolic, "EXHAUSTIVE", exhaustive)
    rng = generator(seed)
    x = rng.normal(size=(40, 9)) + rng.normal(size=(40, 1))
    y = x @ rng.normal(size=9) + rng.normal(size=40)
    front = best_subsets(Library.of({f"x{j}": x[:, j] for j in range(9)}), y, largest=5)
    assert front.proved == (exhaustive > 0,) * 5
    for k, formula in enumerate(front.formulas, 1):
        left = {s: np.linalg.lstsq(x[:, s], y, rcond=None)[1][0] for s in combinations(range(9), k)}
        best = min(left, key=left.get)
        assert formula.terms == tuple(f"x{j}" for j in best)
        assert formula.rms == pytest.approx(np.sqrt(left[best] / 40), abs=FLOAT64)


@pytest.mark.parametrize("exhaustive", [0, symbolic.EXHAUSTIVE])
def test_terms_that_depend_on_each_other_end_the_front(exhaustive, monkeypatch):
    monkeypatch.setattr(symbolic, "EXHAUSTIVE", exhaustive)
    x, y, z = generator().normal(size=(3, 30))
    front = best_subsets(Library.of({"x": x, "y": y, "both": x + y}), z, largest=3)
    assert [len(f.terms) for f in front.formulas] == [1, 2]


def test_extended_bic_by_hand_takes_nothing_out_of_noise():
    x = {f"x{j}": generator(j).normal(size=60) for j in range(20)}
    y = 3 * x["x4"] + generator(99).normal(size=60)
    front = best_subsets(Library.of(x), y, largest=4)
    assert front.chosen.terms == ("x4",)
    first = front.formulas[0]
    assert first.ebic == pytest.approx(60 * np.log(first.rms**2) + np.log(60) + 2 * np.log(20), abs=1e-8)
    two = front.formulas[1]
    assert two.ebic == pytest.approx(60 * np.log(two.rms**2) + 2 * np.log(60) + 2 * np.log(190), abs=1e-8)


def test_selection_frequency_is_shared_by_terms_that_cannot_be_told_apart():
    rng = generator()
    x = rng.normal(size=(120, 5))
    x[:, 1] = x[:, 0] + 1e-3 * rng.normal(size=120)
    library = Library.of({f"x{j}": x[:, j] for j in range(5)})
    found = selection_frequency(library, x[:, 0] + 2 * x[:, 3] + rng.normal(size=120), terms=2, rng=rng, draws=60)
    assert found["x3"] == 1 and next(iter(found)) == "x3"
    assert found["x0"] + found["x1"] == pytest.approx(1) and 0 < found["x0"] < 1
    assert "x4" not in found


def test_the_mass_formula_is_found_in_every_resample():
    library = mass_library(*nuclei(8), rich=False)
    target = binding(library) + 0.2 * generator().normal(size=len(library.terms))
    assert selection_frequency(library, target, terms=5, rng=generator(), draws=20) == dict.fromkeys(SEMF, 1.0)


def test_a_formula_writes_and_evaluates_itself():
    x = np.arange(1.0, 30)
    front = best_subsets(Library.of({"x": x, "x^2": x**2, "sin": np.sin(x)}), 2 * x - 0.5 * x**2, largest=3)
    assert str(front.chosen) == "+2 x -0.5 x^2" and len(front.formulas) == 2
    np.testing.assert_allclose(front.chosen({"x": np.array([3.0]), "x^2": np.array([9.0])}), [1.5], atol=FLOAT64)


def test_monomials_by_hand():
    found = monomials(
        {"A": [4.0, 9.0, 16.0, 1.0, 25.0], "B": [2.0, 3.0, 1.0, 7.0, 2.0]}, {"A": [0, 0.5], "B": [0, 1, -1]}
    )
    assert found.names == ("B", "B^-1", "A^0.5", "A^0.5 B", "A^0.5 B^-1")
    np.testing.assert_allclose(found.terms[:, 3], [4, 9, 4, 7, 10])


@pytest.mark.skipif(not TABLE.exists(), reason="the measured table is not here")
def test_the_measured_masses_have_the_terms_of_the_mass_formula():
    with TABLE.open() as file:
        rows = {(int(r["z"]), int(r["n"])): r for r in list(csv.DictReader(file))[::-1]}
    kept = [k for k, r in rows.items() if min(k) >= 8 and r["binding_sys"] == "N"]
    assert len(kept) == 2456
    z, n = np.array(sorted(kept), float).T
    energy = (z + n) / 1000 * np.array([float(rows[k]["binding"]) for k in sorted(kept)])
    terms = dict(zip((library := mass_library(z, n)).names, library.terms.T, strict=True))
    fitted = best_subsets(Library.of({name: terms[name] for name in SEMF}), energy, largest=5).formulas[-1]
    assert fitted.rms == pytest.approx(3.079, abs=0.002)
    five = best_subsets(library, energy, largest=5).formulas[4]
    assert five.rms == pytest.approx(2.69, abs=0.01)
    assert {"A", "A^0.667", "A^-1 I^2", "Z(Z-1) A^-0.333"} <= set(five.terms)


def test_free_form_search_says_what_to_install(monkeypatch):
    x = generator().normal(size=30)
    monkeypatch.setattr(free_form, "find_spec", lambda name: None)
    with pytest.raises(MeasureError, match="none of them installed; run `pip install pyoperon`"):
        free_formulas({"x": x}, x, seed=0)
    monkeypatch.setattr(free_form, "find_spec", lambda name: name == "pyoperon" or None)
    with pytest.raises(MeasureError, match="by pysr was asked for, found pyoperon installed"):
        free_formulas({"x": x}, x, seed=0, engine="pysr")
    with pytest.raises(MeasureError, match="Engine 'eureqa'"):
        free_formulas({"x": x}, x, seed=0, engine="eureqa")


def test_the_front_of_an_engine_holds_no_formula_that_a_smaller_one_beats(monkeypatch):
    found = [FreeFormula(e, s, r) for e, s, r in (("c", 5, 0.2), ("a", 1, 1.0), ("b", 3, 1.5), ("d", 5, 0.1))]
    monkeypatch.setattr(free_form, "_installed", lambda engine: "pyoperon")
    monkeypatch.setattr(free_form, "_operon", lambda *given: found)
    assert [f.expression for f in free_formulas({"x": [1.0, 2.0]}, [1.0, 2.0], seed=0)] == ["a", "d"]


def test_pyoperon_finds_a_form_that_nobody_listed():
    pytest.importorskip("pyoperon")
    a, b = generator().normal(size=(2, 200))
    found = free_formulas({"a": a, "b": b}, a * a + 3 * b, seed=1, generations=60, population=200)
    assert found[-1].rms < 0.02 and "a" in found[-1].expression and "b" in found[-1].expression
    assert found == free_formulas({"a": a, "b": b}, a * a + 3 * b, seed=1, generations=60, population=200)


X = np.arange(1.0, 11)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: Library.of({}), "0 terms"),
        (lambda: Library.of({"x": X, "none": X * 0}), "'none' is 0 everywhere"),
        (lambda: Library.of({"x": X, "y": X**2, "twice": -2 * X}), "'twice' is 'x' times a number"),
        (lambda: Library.of({"x": X, "y": X[:4]}), "give the same items"),
        (lambda: Library.of({"x": X * np.nan}), "Term 'x' holds 10 NaN"),
        (lambda: monomials({"x": X}, {"y": [1]}), "Powers of 'y'"),
        (lambda: monomials({"x": X - 5}, {"x": [-1]}), "to the power -1"),
        (lambda: monomials({"x": X - 5}, {"x": [0.5]}), "to the power 0.5"),
        (lambda: best_subsets(Library.of({"x": X}), X, largest=2), "Formulas of 2 terms"),
        (lambda: best_subsets(Library.of({"x": X}), X * 0, largest=1), "0 on all 10 items"),
        (lambda: best_subsets(Library.of({"x": X}), X[:3], largest=1), "first axis must hold 10"),
        (lambda: best_subsets(Library.of({"x": X}), X, largest=1).chosen({"y": X}), "needs term 'x', found y"),
        (lambda: free_formulas({}, X, seed=0), "0 variables"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
