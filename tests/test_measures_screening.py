"""Screening: noise that only counts tokens is seen through, planted neurons are found, chance is where it is said."""

import numpy as np
import pytest
from scipy.stats import norm

from microtome.core.errors import MeasureError
from microtome.measures.multiplicity import expected_maximum
from microtome.measures.placements import areas, layout
from microtome.measures.screening import screen
from microtome.measures.stability import agreement, split_half
from microtome.measures.strata import crossed, length_strata


def lengthy(seed, items=900, units=80, planted=()):
    """Texts of class 1 are longer; neurons are iid noise per token, max-pooled; planted ones add the label."""
    rng = np.random.default_rng(seed)
    labels = rng.random(items) < 0.5
    lengths = np.clip(rng.lognormal(2.5 + 0.5 * labels, 0.6), 1, 120).astype(int)
    rows = np.stack([[rng.normal(size=n).max() for n in lengths] for _ in range(units)])
    rows[list(planted)] += 1.0 * labels
    return rows.astype(np.float16), labels, lengths


def test_length_alone_makes_noise_look_expert_and_strata_undo_it():
    rows, labels, lengths = lengthy(0)
    found = screen(rows, labels, lengths=lengths)
    sd = np.sqrt((len(labels) + 1) / (12 * found.positives * found.negatives))
    assert found.unadjusted.area.mean() > 0.5 + 5 * sd and (found.unadjusted.q < 0.01).mean() > 0.9
    adjusted = found.ranking
    assert np.abs(adjusted.area - 0.5).max() < 4 * sd and (adjusted.q < 0.05).sum() == 0
    own = screen(rows, labels, strata=lengths).ranking  # strata of one length: unbiased to the last
    assert abs(own.area.mean() - 0.5) < 4 * own.error.mean() / np.sqrt(len(rows))
    assert 0 < adjusted.share < 0.2 and found.strata > 10


def test_mean_pooled_noise_needs_no_strata():
    rng = np.random.default_rng(1)
    _, labels, lengths = lengthy(1, units=1)
    rows = rng.normal(size=(80, len(labels))) / np.sqrt(lengths)
    found = screen(rows, labels, lengths=lengths)
    assert np.abs(found.unadjusted.area - 0.5).max() < 4 * found.unadjusted.error.max()


def test_planted_neurons_are_found_in_both_directions():
    rows, labels, lengths = lengthy(2, planted=(3, 17))
    rows[17] *= -1
    found = screen(rows, labels, lengths=lengths)
    assert set(found.ranking.top(2).tolist()) == {3, 17}
    assert found.ranking.direction[[3, 17]].tolist() == [1, -1]
    assert set(np.flatnonzero(found.ranking.q < 0.01).tolist()) == {3, 17}
    others = np.delete(found.ranking.strength, [3, 17])
    assert found.ranking.strength[[3, 17]].min() > found.ranking.null_maximum > 0.5 * others.max()


def test_without_lengths_the_ranking_is_the_unadjusted_one():
    rows, labels, _ = lengthy(3, items=60, units=4)
    found = screen(rows, labels)
    assert found.ranking is found.unadjusted and found.strata == 1 and found.ranking.share == 1
    np.testing.assert_array_equal(found.ranking.area, areas(rows, layout(labels)))


def test_p_values_of_null_units_are_uniform():
    rng = np.random.default_rng(0)
    labels, strata = np.arange(60) % 3 == 0, np.arange(60) // 15
    rows = rng.integers(0, 4, (3000, 60)).astype(np.float32)  # heavy ties
    for groups in (None, strata):
        p = screen(rows, labels, strata=groups).ranking.p
        assert 0.03 < (p < 0.05).mean() < 0.065 and 0.44 < (p < 0.5).mean() < 0.57
    constant = screen(np.zeros((2, 60)), labels).ranking
    assert (constant.p == 1).all() and (constant.area == 0.5).all() and constant.null_maximum == 0


def test_expected_maximum():
    assert expected_maximum(2, sides=1) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-6)
    assert expected_maximum(1) == pytest.approx(np.sqrt(2 / np.pi), abs=1e-6)
    rng = np.random.default_rng(0)
    drawn = np.abs(rng.normal(size=(4000, 50))).max(1)
    assert expected_maximum(50) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(4000))
    m = 835_584  # of LLaMA-2-7B: between the quantiles 1 - 1/m and 1 - 1/(2m)
    assert norm.isf(1 / m) < expected_maximum(m, sides=1) < norm.isf(0.5 / m) < expected_maximum(m)


def test_strata_of_length():
    rng = np.random.default_rng(0)
    few = rng.integers(1, 9, 100)
    assert np.array_equal(length_strata(few), few - few.min())
    many = rng.lognormal(4, 1, 5000).astype(int)
    codes = length_strata(many, most=20)
    assert 10 < codes.max() + 1 <= 20 and np.bincount(codes).min() >= 250
    order = np.argsort(many, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    assert all(len(np.unique(codes[many == n])) == 1 for n in np.unique(many))
    assert crossed(3, None, None) is None
    assert crossed(4, [0, 0, 1, 1], ["a", "b", "a", "a"]).tolist() == [0, 1, 2, 2]


def test_agreement_by_hand():
    a = np.array([0.9, 0.8, 0.1, 0.5, 0.52, 0.48])
    same = agreement(a, a, k=2)
    assert same.spearman == pytest.approx(1) and same.jaccard == 1
    assert same.p == pytest.approx(1 / 15)  # one of C(6, 2) pairs
    # overlaps 0, 1, 2 of random pairs: 6, 8, 1 of 15; Jaccard 0, 1/3, 1
    assert same.chance == pytest.approx((8 / 3 + 1) / 15)
    other = agreement(a, a[::-1], k=2)
    assert other.jaccard == 0 and other.p == pytest.approx(1)


def test_planted_neurons_replicate_and_noise_does_not():
    rows, labels, lengths = lengthy(5, items=400, units=60, planted=range(6))
    strata = length_strata(lengths)
    found = split_half(rows, labels, k=6, rng=np.random.default_rng(0), strata=strata)
    assert found.observed.jaccard > 0.7 and found.p_jaccard == pytest.approx(1 / 20)
    assert found.observed.p < 1e-6
    noise = split_half(rows[6:], labels, k=6, rng=np.random.default_rng(0), strata=strata)
    assert noise.p_jaccard > 0.1 and noise.observed.p > 0.01 and abs(noise.observed.spearman) < 0.5


def test_dependent_neurons_agree_by_chance_which_only_the_null_of_labels_knows():
    labels, found = np.arange(100) % 2 == 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(3, 100)).repeat(10, 0) + 0.05 * rng.normal(size=(30, 100))  # three neurons, ten times
        found.append(split_half(rows, labels, k=10, rng=rng, draws=9))
    assert sum(f.observed.p < 0.01 for f in found) >= 4
    assert sum(f.p_jaccard <= 0.1 for f in found) <= 4 and sum(f.p_spearman <= 0.1 for f in found) <= 5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: screen(np.zeros((2, 4)), [0, 1, 1, 1]), "Classes of 3 and 1 items"),
        (lambda: screen(np.zeros((2, 4)), [0, 0, 1, 1], lengths=[1, 2, 3]), "one label per item"),
        (lambda: screen(np.zeros((2, 4)), [0, 0, 1, 1], lengths=[1, 1, 2, 2]), "None of the 2 strata"),
        (lambda: length_strata([1, np.nan]), "1 NaN"),
        (lambda: agreement([0.5, 0.6], [0.5, 0.6, 0.7], k=1), "must hold 2 items"),
        (lambda: agreement([0.5, 0.6], [0.5, 0.6], k=2), "give a k of 1 to 1"),
        (lambda: agreement([0.5, 0.5], [0.5, 0.6], k=1), "all equal"),
        (lambda: split_half(np.zeros((2, 6)), [0, 0, 0, 1, 1, 1], k=1, rng=None), "at least four of each"),
        (lambda: expected_maximum(0), "largest of 0 values"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
