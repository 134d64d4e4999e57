"""A helix is found where one was planted, its numbers are those planted, and nothing else passes for one."""

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.helix import fit_helix, fit_polynomial, helix_evidence
from microtome.measures.principal import principal

N = np.arange(21, 177.0)
S = (N - N.mean()) / N.std()


def generator(seed=0):
    return np.random.default_rng(seed)


def planted(period=37.0, growth=0.0, parity=0.0, noise=0.0, seed=0, drift=3 * S):
    turn, size = 2 * np.pi * N / period, 1 + growth * S
    x = np.stack([drift, size * np.cos(turn), size * np.sin(turn) + parity * (-1.0) ** N], 1)
    return x + noise * generator(seed).normal(size=x.shape)


@pytest.mark.parametrize("period", [9.0, 21.5, 37.0, 60.0])
@pytest.mark.parametrize("growth", [False, True])
def test_a_planted_helix_is_recovered(period, growth):
    helix = fit_helix(planted(period, growth=0.2 * growth), N, growth=growth)
    assert helix.period == pytest.approx(period, rel=1e-6)
    np.testing.assert_allclose(helix(N), planted(period, growth=0.2 * growth), atol=1e-5)
    np.testing.assert_allclose(helix.radius, [0, 1, 1], atol=1e-4)
    np.testing.assert_allclose(helix.growth_rate, [0, 0.2 * growth, 0.2 * growth], atol=1e-4)
    assert helix.pitch == pytest.approx(3 * period / N.std(), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_and_within_two_per_cent_under_noise(seed):
    found = helix_evidence(planted(noise=0.1, seed=seed), N, rng=generator(seed), growth=False)
    assert found.helix.period == pytest.approx(37, rel=0.02) and 37 in found.period
    assert found.supported and found.verdict.startswith("helix") and found.p == 1 / 200
    assert found.r2 > 0.99 > found.held_out_polynomial and found.held_out == pytest.approx(found.r2, abs=0.01)
    assert found.turns == pytest.approx(155 / found.helix.period, abs=FLOAT64)


@pytest.mark.slow  # twenty fits each
@pytest.mark.parametrize("growth", [False, True])
def test_the_interval_of_the_period_covers_it(growth):
    found = [
        helix_evidence(planted(growth=0.2 * growth, noise=0.1, seed=s), N, rng=generator(), growth=growth, draws=2)
        for s in range(20)
    ]
    assert sum(37 in f.period for f in found) >= 17
    spread = np.std([f.helix.period for f in found])
    assert np.mean([f.period.high - f.period.low for f in found]) / 4 == pytest.approx(spread, rel=0.4)


def test_drift_and_parity_are_told_from_the_helix():
    x = planted(parity=0.5, noise=0.02, drift=2 * S + S**3 / 2)
    bare = helix_evidence(x, N, rng=generator(), growth=False)
    full = helix_evidence(x, N, rng=generator(), growth=False, drift=3, parity=True)
    assert full.r2 > 0.998 > bare.r2 and full.supported
    assert full.helix.period == pytest.approx(37, rel=0.005)
    alternating = full.helix.coefficients[4]
    np.testing.assert_allclose(alternating, [0, 0, 0.5], atol=0.02)
    assert full.degree == 6 and full.held_out > 0.99


def test_a_cut_out_row_changes_nothing_and_rows_may_come_in_any_order():
    place = generator().permutation(len(N))[: len(N) - 12]
    helix = fit_helix(planted()[place], N[place], growth=False)
    assert helix.period == pytest.approx(37, rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_straight_line_is_no_helix(noise):
    line = np.outer(S, [3, 2, -1]) + noise * generator().normal(size=(len(N), 3))
    found = helix_evidence(line, N, rng=generator())
    assert not found.supported and found.verdict.startswith("no helix") and "polynomial" in found.verdict


def test_neither_is_a_cubic_a_random_walk_or_noise():
    walks = [np.cumsum(generator(s).normal(size=(len(N), 60)), 0) for s in range(3)]
    smooth = [principal(w, along=N).scores(w)[:, :3] for w in walks]
    for x in [np.stack([S, S**2, S**3], 1), *smooth, generator(5).normal(size=(len(N), 3))]:
        assert not helix_evidence(x, N, rng=generator(), draws=99).supported


@pytest.mark.slow  # forty nulls
def test_shuffled_rows_are_the_null_and_noise_keeps_its_level():
    n = np.arange(40.0)
    p = [helix_evidence(generator(s).normal(size=(40, 2)), n, rng=generator(s), draws=39).p for s in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= 0.15 and 0.3 <= np.mean(np.array(p) <= 0.5) <= 0.7


def test_the_polynomial_is_numpys_and_has_no_fewer_parameters():
    x = planted(noise=0.3)
    curve = fit_polynomial(x, N, degree=4)
    expected = np.stack([np.polyval(np.polyfit(S, column, 4), S) for column in x.T], 1)
    np.testing.assert_allclose(curve(N), expected, atol=1e-8)
    found = helix_evidence(x, N, rng=generator(), draws=19)
    assert (found.degree + 1) * 3 >= found.helix.coefficients.size + 1
    missing = fit_polynomial(x, N, degree=found.degree)(N) - x
    assert found.polynomial == pytest.approx(1 - np.square(missing).sum() / np.square(x - x.mean(0)).sum(), abs=FLOAT64)


def test_r2_of_components_and_of_all():
    x = planted(noise=0.3)
    found = helix_evidence(x, N, rng=generator(), draws=19)
    left = np.square(x - found.helix(N)).sum(0)
    total = np.square(x - x.mean(0)).sum(0)
    np.testing.assert_allclose(found.r2_each, 1 - left / total, atol=FLOAT64)
    assert found.r2 == pytest.approx(1 - left.sum() / total.sum(), abs=FLOAT64)


def test_no_grid_frequency_beats_the_refined_one():
    x = planted(noise=0.5, seed=3)

    def left(period):
        turn = 2 * np.pi * N / period
        terms = np.stack([np.ones_like(S), S, np.cos(turn), np.sin(turn), S * np.cos(turn), S * np.sin(turn)], 1)
        return np.square(x - terms @ np.linalg.lstsq(terms, x, rcond=None)[0]).sum()

    best = fit_helix(x, N, periods=(8, 400))
    tried = min(left(period) for period in np.geomspace(8, 400, 1500))
    assert np.square(x - best(N)).sum() <= tried + 1e-9
    assert left(best.period) == pytest.approx(np.square(x - best(N)).sum(), rel=1e-9)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x: fit_helix(x[:7], N[:7]), "A curve of 6 terms through 7 rows"),
        (lambda x: fit_helix(x, N, periods=(40, 8)), "shortest < longest"),
        (lambda x: fit_helix(x, N + 0.5, parity=True), "whole numbers"),
        (lambda x: fit_polynomial(x * 0, N, degree=2), "all the same"),
        (lambda x: helix_evidence(x[:12], N[:12], rng=generator()), "half of 12 rows was asked for; give at least 18"),
        (lambda x: fit_helix(np.where(x > 1, np.nan, x), N), "NaN"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call(planted())
    assert "\n" not in str(error.value)
