"""Permutation, bootstrap, intervals, recovery, multiplicity: enumerations by hand, scipy, coverage, null controls."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.intervals import percentile_interval, recovery, wilson
from microtome.measures.multiplicity import benjamini_hochberg, bonferroni, family_wise
from microtome.measures.resampling import (
    bootstrap_mean,
    bootstrap_weights,
    matched_random_p,
    permute_within,
    sign_flip,
    weighted_means,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_sign_flips_are_enumerated_when_few():
    x = rng(1).normal(0.5, 1, (8, 3))
    flips = np.array(list(itertools.product([1, -1], repeat=8))) @ x / 8
    p = (np.abs(flips) >= np.abs(x.mean(0)) - 1e-12).mean(0)
    found = sign_flip(x, rng=rng())
    assert found.exact and found.draws == 256
    np.testing.assert_allclose(found.p, p, atol=FLOAT64)
    drawn = sign_flip(x, rng=rng(), draws=255)
    assert not drawn.exact
    np.testing.assert_allclose(drawn.p, p, atol=0.1)
    np.testing.assert_allclose(found.statistic, x.mean(0), atol=FLOAT64)


def test_clusters_flip_together():
    x = np.repeat(rng(2).normal(1, 1, 6), 50)  # 300 rows, but only 6 independent ones
    clusters = np.repeat(list("abcdef"), 50)
    assert sign_flip(x, rng=rng(), clusters=clusters).p[0] == pytest.approx(sign_flip(x[::50], rng=rng()).p[0])
    assert sign_flip(x, rng=rng(), clusters=clusters).p[0] >= 2 / 64


def test_permutation_within_groups_is_the_enumeration():
    values = rng(3).normal(size=(7, 2))
    labels = np.array([1, 0, 0, 1, 1, 0, 0])
    groups = np.array([0, 0, 0, 1, 1, 1, 1])
    stats = []
    for a in itertools.combinations(range(3), 1):
        for b in itertools.combinations(range(3, 7), 2):
            stats.append(values[[*a, *b]].sum(0))
    stats = np.array(stats)
    centred = stats - stats.mean(0)
    observed = values[labels == 1].sum(0) - stats.mean(0)
    found = permute_within(values, labels, groups=groups, rng=rng(), draws=20_000)
    np.testing.assert_allclose(found.statistic, observed / stats.std(0), atol=FLOAT64)  # exact null mean and sd
    p = (np.abs(centred) >= np.abs(observed) - 1e-9).mean(0)
    np.testing.assert_allclose(found.p, p, atol=0.015)


def test_a_difference_between_groups_cannot_pass_for_one_between_classes():
    g = rng(4)
    groups = np.repeat([0, 1], 100)
    labels = g.random(200) < np.where(groups == 0, 0.2, 0.8)
    values = 5.0 * groups + g.normal(size=200)
    assert permute_within(values, labels, rng=rng(), draws=999).p[0] == 0.001  # blind to groups: fooled
    assert permute_within(values, labels, groups=groups, rng=rng(), draws=999).p[0] > 0.05
    planted = values + 1.0 * labels
    assert permute_within(planted, labels, groups=groups, rng=rng(), draws=999).p[0] == 0.001


def test_null_units_pass_at_the_level():
    g = rng(5)
    groups, labels = np.repeat(np.arange(8), 10), np.tile([0, 1], 40)
    values = g.standard_cauchy((80, 1500)) + 3 * g.normal(size=(8, 1500))[groups]
    values[:, 0] = 7.0
    found = permute_within(values, labels, groups=groups, rng=rng(6), draws=999)
    assert found.p[0] == 1 and found.statistic[0] == 0
    assert abs((found.p <= 0.05).mean() - 0.05) < 3.5 * np.sqrt(0.05 * 0.95 / 1500)
    assert (benjamini_hochberg(found.p) <= 0.05).sum() == 0
    assert (family_wise(found.statistic, found.maxima) <= 0.05).sum() == 0
    again = permute_within(values, labels, groups=groups, rng=rng(6), draws=999)
    np.testing.assert_array_equal(found.p, again.p)


def test_family_wise_maxima_by_hand():
    np.testing.assert_allclose(family_wise([3.0, -5.0, 9.0], [1.0, 3.0, 5.0, 2.0]), [3 / 5, 2 / 5, 1 / 5])


def test_matched_random_p_counts_ties_against_the_claim():
    null = np.array([0.0, 0.1, 0.2, 0.3])
    assert matched_random_p(0.25, null) == 2 / 5
    assert matched_random_p(0.3, null) == 2 / 5
    assert matched_random_p(0.1 + 0.2, null) == 2 / 5
    assert matched_random_p(9.0, null) == 1 / 5


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(7, 30))
@settings(max_examples=25, deadline=None)
def test_bootstrap_weights_keep_clusters_whole(seed, k, n):
    codes = np.arange(n) % k
    weights = bootstrap_weights([codes], n, draws=50, rng=rng(seed))
    for c in range(k):
        assert (weights[:, codes == c] == weights[:, [c]]).all()
    assert (weights[:, :k].sum(1) == k).all()
    np.testing.assert_allclose(weighted_means(weights, np.full(n, 2.5)), 2.5)


def test_bootstrap_error_is_that_of_the_cluster_means():
    g = rng(7)
    clusters = np.repeat(np.arange(40), 10)
    values = g.normal(size=40)[clusters] + 0.1 * g.normal(size=400)
    means = values.reshape(40, 10).mean(1)
    theory = means.std() / np.sqrt(40)
    for labels, expected in (([clusters], theory), ([], values.std() / 20)):
        found = bootstrap_mean(values, clusters=labels, rng=rng(8), draws=4000)
        assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.08)
        assert found.estimate == pytest.approx(values.mean()) and found.estimate in found
    assert bootstrap_mean(values, clusters=[clusters], rng=rng(8)).n == 40
    crossed = bootstrap_mean(values, clusters=[clusters, np.tile(np.arange(10), 40)], rng=rng(8), draws=4000)
    assert crossed.n == 10 and crossed.high - crossed.low > 2 * 1.96 * theory * 0.95


@pytest.mark.parametrize(("k", "n"), [(5, 30), (0, 30), (30, 30), (1, 2), (500, 1000)])
def test_wilson_is_scipys(k, n):
    expected = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    found = wilson(k, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=FLOAT64)
    assert found.estimate in found and found.n == n


def test_wilson_of_the_papers_fifteen_percent():
    found = wilson(5, 30)  # the spec's example: 5 of 30 is about 7 to 34 %
    assert (round(found.low, 2), round(found.high, 2)) == (0.07, 0.34)


def test_recovery_is_0_at_corrupt_and_1_at_clean():  # V9
    corrupt, clean = rng(9).normal(size=20), rng(10).normal(3, 1, 20)
    found = recovery(np.stack([corrupt, clean, (corrupt + clean) / 2]), corrupt, clean)
    np.testing.assert_allclose(found.ratio_of_means, [0, 1, 0.5], atol=FLOAT64)
    np.testing.assert_allclose(found.mean_of_ratios, [0, 1, 0.5], atol=FLOAT64)
    assert found.small == 0 and found.ratios.shape == (3, 20)


def test_recovery_counts_small_denominators():
    found = recovery([2.0, 3.0, 50.0], [0.0, 0.0, 1.0], [4.0, 4.0, 1.0 + 1e-9])
    assert found.small == 1 and found.kept.tolist() == [0, 1]
    assert found.mean_of_ratios == pytest.approx((0.5 + 0.75) / 2)
    assert found.ratio_of_means == pytest.approx((2 + 3 + 49) / (8 + 1e-9))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_benjamini_hochberg_by_its_definition(p):
    p = np.array(p)
    found, m = benjamini_hochberg(p), len(p)
    for alpha in (0.01, 0.05, 0.3):
        passing = [k for k in range(1, m + 1) if np.sort(p)[k - 1] <= alpha * k / m * (1 + 1e-12)]
        cut = np.sort(p)[passing[-1] - 1] if passing else -1
        np.testing.assert_array_equal(found <= alpha * (1 + 1e-12), p <= cut)
    assert (found >= p - 1e-15).all() and (bonferroni(p) >= found - 1e-12).all()


def test_shape_is_kept_and_planted_ones_are_found():
    p = rng(11).random((30, 40))
    p[:3] = 1e-6
    q = benjamini_hochberg(p)
    assert q.shape == p.shape and (q[:3] < 0.05).all() and (q[3:] < 0.05).mean() < 0.02


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sign_flip([1.0, np.nan], rng=rng()), "1 NaN or infinite"),
        (lambda: sign_flip([1.0, 2.0], rng=rng(), clusters=[0, 0]), "in 1 cluster"),
        (lambda: permute_within([1.0, 2.0], [0, 1], groups=[0, 1], rng=rng()), "None of the 2 groups holds both"),
        (lambda: permute_within([1.0, 2.0], [1, 1], rng=rng()), "All 2 labels are 1"),
        (lambda: bootstrap_mean([1.0, 2.0], clusters=[[0, 0]], rng=rng()), "in 1 cluster has no spread"),
        (lambda: bootstrap_mean([1.0, 2.0], clusters=[[0, 1, 1]], rng=rng()), "for 2 items; give one label per item"),
        (lambda: bootstrap_mean([1.0, 2.0], clusters=[[0.0, np.nan]], rng=rng()), "1 missing labels"),
        (lambda: weighted_means(np.array([[0.0, 0.0]]), np.zeros(2)), "1 of 1 resamples hold none of the 2 items"),
        (lambda: matched_random_p(1.0, []), "is empty"),
        (lambda: wilson(3, 0), "A proportion of 3 in 0 is undefined"),
        (lambda: wilson(3, 2), "A proportion of 3 in 2"),
        (lambda: percentile_interval(0.0, np.zeros(3), 3, level=1.0), "Level 1.0"),
        (lambda: recovery([1.0], [2.0], [2.0]), "too little to divide by"),
        (lambda: recovery([1.0, 2.0], [2.0], [3.0]), "its last axis must hold 1 items"),
        (lambda: benjamini_hochberg([0.5, 1.5]), "must lie in \\[0, 1\\]"),
        (lambda: bonferroni([np.nan]), "1 NaN"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
