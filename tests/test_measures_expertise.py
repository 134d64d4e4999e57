"""AUROC, AP, DeLong and d: brute-force pair counts, sklearn, a bootstrap, monotone laws, and null controls."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.protocols import Measure
from microtome.measures import expertise
from microtome.measures.expertise import (
    Expertise,
    auroc,
    average_precision,
    cohens_d,
    delong,
    delong_test,
)
from microtome.measures.resampling import bootstrap_weights

seeds = st.integers(0, 2**31)


def world(seed, items=40, units=6, levels=5, shift=1):
    """Tied scores (few levels); label 1 is shifted up by `shift` in the even units."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(items) % 3 == 0)
    scores = rng.integers(0, levels, (items, units)).astype(float)
    scores[:, ::2] += shift * labels[:, None]
    return scores, labels


@given(seeds, st.sampled_from([1, 2, 3, 50]))
@settings(max_examples=40, deadline=None)
def test_auroc_is_the_share_of_pairs_won(seed, levels):
    scores, labels = world(seed, levels=levels)
    gaps = scores[labels][:, None] - scores[~labels][None]
    won = ((gaps > 0) + (gaps == 0) / 2).mean((0, 1))
    np.testing.assert_allclose(auroc(scores, labels), won, atol=FLOAT64)


@given(seeds, st.sampled_from([2, 4, 50]))
@settings(max_examples=25, deadline=None)
def test_sklearn_agrees(seed, levels):
    scores, labels = world(seed, levels=levels)
    np.testing.assert_allclose(auroc(scores, labels), [roc_auc_score(labels, s) for s in scores.T], atol=FLOAT64)
    expected = [average_precision_score(labels, s) for s in scores.T]
    np.testing.assert_allclose(average_precision(scores, labels), expected, atol=FLOAT64)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_monotone_maps_change_nothing_and_reversal_mirrors(seed):
    scores, labels = world(seed)
    area = auroc(scores, labels)
    for mapped in (3 * scores - 7, np.exp(scores), scores**3):
        np.testing.assert_array_equal(auroc(mapped, labels), area)
        np.testing.assert_array_equal(average_precision(mapped, labels), average_precision(scores, labels))
    np.testing.assert_allclose(auroc(-scores, labels), 1 - area, atol=FLOAT64)
    np.testing.assert_allclose(auroc(scores, ~labels), 1 - area, atol=FLOAT64)
    np.testing.assert_allclose(cohens_d(3 * scores - 7, labels), cohens_d(scores, labels), atol=FLOAT64)


@given(seeds, st.lists(st.integers(1, 39), min_size=0, max_size=4, unique=True))
@settings(max_examples=25, deadline=None)
def test_shards_merge_to_the_whole(seed, cuts):
    scores, labels = world(seed)
    joined = Expertise()
    for part in np.split(np.arange(40), sorted(cuts)):
        shard = Expertise()
        shard.update(torch.tensor(scores[part], dtype=torch.float32), labels=torch.tensor(labels[part]))
        joined = shard.merge(joined)
    assert isinstance(joined, Measure)
    found = joined.finish()
    np.testing.assert_allclose(found["auroc"], auroc(scores, labels), atol=FLOAT64)
    np.testing.assert_allclose(found["average_precision"], average_precision(scores, labels), atol=FLOAT64)


def test_many_units_in_pieces_equal_one_piece(monkeypatch):
    scores, labels = world(3, units=50)
    whole = delong(scores, labels)
    monkeypatch.setattr(expertise, "CHUNK", 120)
    for a, b in zip(whole, delong(scores, labels), strict=True):
        np.testing.assert_array_equal(a, b)


def test_delong_by_its_definition():
    scores, labels = world(5)
    ones, zeros = scores[labels], scores[~labels]
    kernel = (ones[:, None] > zeros[None]) + (ones[:, None] == zeros[None]) / 2
    v10, v01 = kernel.mean(1), kernel.mean(0)
    error = np.sqrt(v10.var(0, ddof=1) / len(v10) + v01.var(0, ddof=1) / len(v01))
    np.testing.assert_allclose(delong(scores, labels).error, error, atol=FLOAT64)
    a, b = kernel[..., 0], kernel[..., 1]
    gap = a - b
    expected = np.sqrt(gap.mean(1).var(ddof=1) / len(v10) + gap.mean(0).var(ddof=1) / len(v01))
    test = delong_test(scores[:, :1], scores[:, 1:2], labels)
    assert test.error[0] == pytest.approx(expected, abs=FLOAT64)
    assert test.difference[0] == pytest.approx(gap.mean(), abs=FLOAT64)


def test_delong_agrees_with_a_bootstrap_within_classes():
    scores, labels = world(8, items=150, units=4, levels=9)
    rng = np.random.default_rng(0)
    ones, zeros = scores[labels], scores[~labels]
    kernel = (ones[:, None] > zeros[None]) + (ones[:, None] == zeros[None]) / 2
    w1, w0 = (bootstrap_weights((), len(x), draws=3000, rng=rng) / len(x) for x in (ones, zeros))
    drawn = np.einsum("di,ijk,dj->dk", w1, kernel, w0, optimize=True)
    np.testing.assert_allclose(delong(scores, labels).error, drawn.std(0), rtol=0.08)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2 == 0
    null = delong(rng.normal(size=(60, 4000)), labels)
    held = ((null.low <= 0.5) & (null.high >= 0.5)).mean()
    assert 0.93 < held < 0.965
    test = delong_test(rng.normal(size=(60, 4000)), rng.normal(size=(60, 4000)), labels)
    assert 0.035 < (test.p < 0.05).mean() < 0.07


def test_perfect_separation_keeps_an_honest_interval():
    labels = np.arange(20) < 10
    found = delong(np.stack([labels, ~labels, np.zeros(20)], 1).astype(float), labels)
    np.testing.assert_array_equal(found.area, [1.0, 0.0, 0.5])
    assert found.error.max() == 0 and found.high[0] == 1 and found.low[1] == 0
    assert 0.7 < found.low[0] < 0.9 and found.high[1] == pytest.approx(1 - found.low[0], abs=FLOAT64)
    assert found.low[2] < 0.4 and found.high[2] > 0.6


def test_a_test_of_a_score_with_itself_says_nothing():
    scores, labels = world(2)
    same = delong_test(scores, 2 * scores, labels)
    assert (same.p == 1).all() and (same.z == 0).all()
    flipped = delong_test(labels[:, None].astype(float), -labels[:, None].astype(float), labels)
    assert flipped.p[0] == 0 and flipped.z[0] == np.inf and flipped.difference[0] == 1


def test_cohens_d_by_hand():
    scores = np.array([[1.0, 4, 0], [3, 4, 0], [4, 4, 1], [6, 4, 1]])  # sd 1.414 in both groups, gap 3
    found = cohens_d(scores, [0, 0, 1, 1])
    assert found[0] == pytest.approx(3 / np.sqrt(2), abs=FLOAT64)
    assert found[1] == 0 and found[2] == np.inf


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: auroc([[1.0], [np.nan]], [0, 1]), "1 NaN or infinite values of 2"),
        (lambda: auroc([[1.0], [2.0]], [1, 1]), "All 2 labels are 1"),
        (lambda: auroc([[1.0], [2.0]], [0, 0]), "All 2 labels are 0"),
        (lambda: auroc([[1.0], [2.0]], [0, 2]), "Labels must be 0 or 1"),
        (lambda: auroc([[1.0], [2.0]], [0, 1, 1]), "one label per item"),
        (lambda: auroc([], []), "is empty"),
        (lambda: auroc(np.zeros((2, 2, 2)), [0, 1]), "give \\[items\\] or \\[items, units\\]"),
        (lambda: delong([1.0, 2.0, 3.0], [0, 1, 1]), "A class has 1 item of 3"),
        (lambda: delong([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], level=95), "Level 95 is not a confidence level"),
        (lambda: delong_test(np.zeros((4, 2)), np.zeros((4, 3)), [0, 0, 1, 1]), "give both on the same items"),
        (lambda: Expertise().finish(), "has seen no items"),
        (lambda: Expertise().update(np.zeros((3, 2)), labels=[0, 1]), "labels \\(2,\\)"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
