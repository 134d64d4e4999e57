"""Faithfulness curves: closed forms on step and straight curves, intervals, IOI's two criteria, and known truth."""

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.units import Units
from microtome.measures.faithfulness import (
    MIB_GRID,
    against_truth,
    areas,
    completeness,
    faithfulness_curve,
    minimality,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_areas_of_a_step_in_closed_form():  # V16
    for step in range(1, len(MIB_GRID)):
        f = (np.arange(len(MIB_GRID)) >= step).astype(float)
        rise = (MIB_GRID[step - 1] + MIB_GRID[step]) / 2  # the trapezoid puts the step in the middle of its cell
        found = areas(f)
        assert found.cpr == pytest.approx(1 - rise, abs=FLOAT64)
        assert found.cmd == pytest.approx(rise - MIB_GRID[0], abs=FLOAT64)


def test_areas_of_a_straight_line_and_of_the_whole_model():
    x = np.array(MIB_GRID)
    found = areas(np.stack([x, np.ones_like(x), 1.5 * np.ones_like(x)]))
    width = 1 - 0.001
    np.testing.assert_allclose(found.cpr, [(1 - 0.001**2) / 2, width, 1.5 * width], atol=FLOAT64)
    np.testing.assert_allclose(found.cmd, [width**2 / 2, 0, 0.5 * width], atol=FLOAT64)


def metrics(n=80, noise=0.3):
    empty, full = rng(1).normal(0, 1, n), rng(2).normal(4, 1, n)
    f = np.linspace(0, 1, len(MIB_GRID))[:, None]
    circuit = empty + f * (full - empty) + noise * rng(3).normal(size=(len(MIB_GRID), n)) * (f < 1) * (f > 0)
    return circuit, empty, full


def test_f_is_0_for_the_empty_and_1_for_the_full_circuit_in_every_resample():  # V16
    curve = faithfulness_curve(*metrics(), rng=rng())
    first, last = curve.faithfulness[0], curve.faithfulness[-1]
    assert [first.low, first.estimate, first.high] == pytest.approx([0, 0, 0], abs=FLOAT64)
    assert [last.low, last.estimate, last.high] == pytest.approx([1, 1, 1], abs=FLOAT64)
    f = [point.estimate for point in curve.faithfulness]
    assert (curve.cpr.estimate, curve.cmd.estimate) == pytest.approx(tuple(map(float, areas(f))), abs=FLOAT64)
    assert curve.cpr.low < curve.cpr.estimate < curve.cpr.high and curve.cpr.n == 80
    assert curve.fractions == MIB_GRID


def test_scale_and_sign_of_the_metric_do_not_matter():
    circuit, empty, full = metrics()
    one = faithfulness_curve(circuit, empty, full, rng=rng(5))
    other = faithfulness_curve(-3 * circuit + 1, -3 * empty + 1, -3 * full + 1, rng=rng(5))
    assert (one.cmd.low, one.cmd.high) == pytest.approx((other.cmd.low, other.cmd.high), abs=FLOAT64)


def test_completeness_and_minimality_by_hand():
    found = completeness([1.0, 2.0, 3.0], [1.0, 2.5, 1.0])
    np.testing.assert_allclose(found.gaps, [0, 0.5, 2])
    assert found.worst == 2 and found.mean == pytest.approx(2.5 / 3)
    np.testing.assert_allclose(minimality([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [0.5, 3.5]]), [0, 1.5])


def test_two_redundant_units_are_minimal_only_once_the_other_is_removed():
    def works(parts):  # a or b carries the behaviour; c does nothing
        return float("a" in parts or "b" in parts)

    removed = [frozenset(), frozenset("b"), frozenset("a")]
    without = [[works({*"abc"} - k) for k in removed] for _ in "abc"]
    too = [[works({*"abc"} - k - {v}) for k in removed] for v in "abc"]
    assert minimality(without, too).tolist() == [1, 1, 0]


def test_scores_against_a_known_truth():
    truth = Units({"blocks.0.mlp.neurons": [1, 3], "blocks.1.attn.heads": [0]})
    scores = {"blocks.0.mlp.neurons": [0.0, 5, 1, 4], "blocks.1.attn.heads": [3.0, 0.5], "blocks.1.mlp.neurons": [0.1]}
    found = against_truth(scores, truth)
    assert found == (1.0, 1.0, 7, 3)
    worst = against_truth({site: -np.array(s) for site, s in scores.items()}, truth)
    assert worst.auroc == 0
    flat = against_truth({site: np.zeros(len(s)) for site, s in scores.items()}, truth)
    assert flat.auroc == 0.5 and flat.average_precision == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: areas([0.0, 1.0], [0.5, 0.4]), "must rise"),
        (lambda: areas([0.0, 1.0], [0.1, 0.9]), "to exactly 1"),
        (lambda: areas([0.0, 1.0]), "for 10 fractions"),
        (lambda: areas([0.0, np.nan], [0.1, 1.0]), "1 NaN"),
        (lambda: faithfulness_curve(np.zeros((9, 4)), np.zeros(4), np.ones(4), rng=rng()), "need \\(10, 4\\)"),
        (lambda: faithfulness_curve(np.zeros((10, 4)), np.ones(4), np.ones(4), rng=rng()), "faithfulness is undefined"),
        (
            lambda: faithfulness_curve(np.zeros((10, 4)), np.zeros(4), np.array([9.0, -2, -2, -2]), rng=rng()),
            "over 2000 resamples",
        ),
        (lambda: completeness([1.0], [1.0, 2.0]), "must hold 1 items"),
        (lambda: minimality([[1.0]], [[1.0, 2.0]]), "give both as \\[units, sets\\]"),
        (lambda: against_truth({"blocks.0.mlp.neurons": [1.0, 2.0]}, Units({"blocks.0.mlp.neurons": [5]})), "cover 0"),
        (lambda: against_truth({"blocks.0.mlp.neurons": [1.0, 2.0]}, Units()), "All 2 labels are 0"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
