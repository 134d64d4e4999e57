"""Contributions add up to the prediction; terms planted in them are found, collinear ones are told apart."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.contributions import match_terms, penultimate_contributions


def generator(seed=0):
    return np.random.default_rng(seed)


def test_contributions_and_constant_are_the_prediction():
    x, w = generator().normal(size=(80, 12)) * np.arange(1, 13), generator(1).normal(size=12)
    found = penultimate_contributions(x, w, bias=0.7, scale=300.0, offset=-20.0)
    np.testing.assert_allclose(found.prediction, 300 * (x @ w + 0.7) - 20, rtol=1e-10)
    np.testing.assert_allclose(found.first(12), found.prediction, rtol=1e-12)
    np.testing.assert_allclose(found.first(0), found.prediction.mean(), rtol=1e-9)
    assert (np.diff(found.size) <= 0).all() and sorted(found.component) == list(range(12))
    assert found.explained.sum() == pytest.approx(1, abs=FLOAT64)


def test_they_are_ranked_by_what_they_contribute_not_by_variance():
    x = generator().normal(size=(500, 3)) * np.array([100, 1, 10])
    found = penultimate_contributions(x, np.array([0.0, 5, 0.1]))
    assert found.component[0] == 2 and found.component[-1] == 0 and found.explained[-1] > 0.9


def planted(items=300, seed=0, noise=0.05):
    """Three orthogonal contributions; terms: a, b almost a copy of a plus c, and c."""
    rng = generator(seed)
    a, c, other = np.linalg.qr(rng.normal(size=(items, 3)))[0].T * np.sqrt(items)
    values = np.stack([5 * a, 0.3 * c, other], 1) + noise * rng.normal(size=(items, 3)) * np.array([5, 0.3, 1])
    return values, {"volume": 2 * a, "surface": -(a + 0.1 * c), "pairing": c}


def test_cosines_are_pearsons_and_matches_one_to_one():
    values, terms = planted()
    found = match_terms(values, terms, rng=generator())
    for k, j in ((0, 0), (0, 1), (2, 2)):
        assert found.cosine[k, j] == pytest.approx(pearsonr(values[:, k], list(terms.values())[j])[0], abs=FLOAT64)
    by_term = {m.term: m for m in found.matches}
    assert len({m.contribution for m in found.matches}) == 3
    assert by_term["pairing"].contribution == 1 and by_term["pairing"].cosine.estimate > 0.99
    assert by_term["volume"].contribution == 0 or by_term["surface"].contribution == 0
    sizes = [abs(m.cosine.estimate) for m in found.matches]
    assert sizes == sorted(sizes, reverse=True)
    best = found.matches[0]
    assert best.cosine.low < best.cosine.estimate < best.cosine.high and best.p_shuffled == 1 / 200


def test_orthogonal_cosines_tell_a_copy_from_what_it_adds():
    values, terms = planted(noise=0)
    found = match_terms(values, terms, rng=generator(), draws=19)
    assert abs(found.cosine[0, 1]) > 0.99
    np.testing.assert_allclose(np.abs(found.orthogonal[:2, 1]), [0, 1], atol=0.1)
    assert found.remaining[0] == pytest.approx(1) and found.remaining[1] == pytest.approx(0.0099, rel=0.1)
    copy = match_terms(values, terms | {"sum": terms["volume"] - terms["pairing"]}, rng=generator(), draws=19)
    assert copy.remaining[3] < 1e-12 and (copy.orthogonal[:, 3] == 0).all()
    np.testing.assert_allclose(copy.partial[:, 3], 0, atol=1e-6)


def test_partial_correlation_is_that_of_residuals():
    values, terms = planted(noise=0.5)
    others = np.stack([np.ones(300), terms["volume"]], 1)
    two = match_terms(values, {k: terms[k] for k in ("volume", "pairing")}, rng=generator(), draws=19)
    rest = [y - others @ np.linalg.lstsq(others, y, rcond=None)[0] for y in (values[:, 1], terms["pairing"])]
    assert two.partial[1, 1] == pytest.approx(pearsonr(*rest)[0], abs=1e-9)


def test_explained_is_the_r2_of_a_regression():
    values, terms = planted(noise=0.5)
    found = match_terms(values, terms, rng=generator(), draws=19)
    design = np.column_stack([np.ones(300), values])
    for j, y in enumerate(terms.values()):
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        assert found.explained[j] == pytest.approx(1 - left.var() / y.var(), abs=1e-9)


def test_turned_axes_are_a_null_that_smooth_terms_do_not_pass():
    rng = generator(4)
    values = np.linalg.qr(rng.normal(size=(400, 6)))[0]
    mixed = values @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :1]
    one_axis, any_axis = (
        match_terms(values, {"term": t}, rng=generator()).matches[0] for t in (values[:, 2], mixed[:, 0])
    )
    assert one_axis.p_turned == 1 / 200 and any_axis.p_turned > 0.05
    assert one_axis.p_shuffled == any_axis.p_shuffled == 1 / 200


def test_unrelated_terms_match_by_chance_only():
    p = []
    for seed in range(40):
        rng = generator(seed)
        terms = {"a": rng.normal(size=100), "b": rng.normal(size=100)}
        p.append(match_terms(rng.normal(size=(100, 5)), terms, rng=rng, draws=39).matches[0].p_shuffled)
    assert np.mean(np.array(p) <= 0.05) <= 0.15 and 0.3 <= np.mean(np.array(p) <= 0.5) <= 0.7


def test_more_terms_than_contributions_leave_some_unmatched():
    values, terms = planted()
    assert len(match_terms(values[:, :2], terms, rng=generator(), draws=9).matches) == 2
    doubled = np.column_stack([values[:, :2], values[:, 0]])
    assert len(match_terms(doubled, terms, rng=generator(), draws=9).matches) == 3


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda v, t: match_terms(v, {}, rng=generator()), "0 terms"),
        (lambda v, t: match_terms(v, t | {"flat": np.ones(300)}, rng=generator()), "term 'flat' does not vary"),
        (lambda v, t: match_terms(v * [1, 0, 1], t, rng=generator()), "contribution 1 does not vary"),
        (lambda v, t: match_terms(v, {"short": np.ones(5)}, rng=generator()), "Term 'short'"),
        (lambda v, t: penultimate_contributions(v, np.ones(4)), "Readout weight"),
        (lambda v, t: penultimate_contributions(v * 0, np.ones(3)), "do not vary"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call(*planted())
    assert "\n" not in str(error.value)
