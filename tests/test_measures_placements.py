"""Exact areas by sorting and by counting: pair counts with ties, scipy and sklearn, laws, strata, shards, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.protocols import Measure
from microtome.measures import placements
from microtome.measures.code_counts import CodeCounts
from microtome.measures.codes import ordered_codes
from microtome.measures.placements import areas, layout, placed, precisions

SAME = 1e-12  # another implementation of the same whole numbers
seeds = st.integers(0, 2**31)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
types = st.sampled_from([np.float16, np.float32, np.float64])


def world(seed, units=5, items=50, levels=6, dtype=np.float32):
    """Rows with ties, signed zeros, one row without ties and one constant row; labels that matter to even rows."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(items) % 3 == 0)
    rows = (
        rng.integers(-levels // 2, levels // 2 + 1, (units, items))
        + 1.0 * labels * (np.arange(units) % 2 == 0)[:, None]
    )
    rows[-2] = rng.permutation(items) / 8
    rows[-1] = 2
    rows = rows.astype(dtype)
    rows[rows == 0] *= rng.choice([-1, 1], (rows == 0).sum()).astype(dtype)
    return rows, labels


def won(rows, labels):
    gaps = rows[:, labels, None].astype(float) - rows[:, None, ~labels].astype(float)
    return (gaps > 0) + (gaps == 0) / 2


@given(seeds, types)
@settings(max_examples=30, deadline=None)
def test_an_area_is_the_share_of_pairs_won(seed, dtype):
    rows, labels = world(seed, dtype=dtype)
    np.testing.assert_allclose(areas(rows, layout(labels)), won(rows, labels).mean((1, 2)), rtol=0, atol=SAME)
    assert areas(rows, layout(labels))[-1] == 0.5


@given(seeds, types)
@settings(max_examples=20, deadline=None)
def test_sklearn_and_scipy_agree(seed, dtype):
    rows, labels = world(seed, dtype=dtype)
    design, wide = layout(labels), rows.astype(float)
    found = placed(rows, design)
    np.testing.assert_allclose(found.area, [roc_auc_score(labels, r) for r in wide], rtol=0, atol=SAME)
    np.testing.assert_allclose(precisions(rows, design), [average_precision_score(labels, r) for r in wide], atol=SAME)
    tests = [mannwhitneyu(r[labels], r[~labels], use_continuity=False, method="asymptotic") for r in wide[:-1]]
    pairs = labels.sum() * (~labels).sum()
    np.testing.assert_allclose(found.area[:-1] * pairs, [t.statistic for t in tests], atol=SAME * pairs)
    p = 2 * norm.sf(np.abs(found.area - 0.5)[:-1] / found.null_error[:-1])
    np.testing.assert_allclose(p, [t.pvalue for t in tests], atol=SAME)
    assert found.null_error[-1] == 0


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_laws(seed):
    rows, labels = world(seed, dtype=np.float64)
    design, area = layout(labels), areas(rows, layout(labels))
    np.testing.assert_allclose(areas(-rows, design), 1 - area, atol=SAME)
    for mapped in (3 * rows - 7, np.exp(rows), rows**3):
        np.testing.assert_array_equal(areas(mapped, design), area)
    order = np.random.default_rng(seed).permutation(len(labels))
    np.testing.assert_array_equal(areas(rows[:, order], layout(labels[order])), area)
    hard = (rows[:1] > 0).astype(float)
    assert areas(hard, design)[0] == pytest.approx(balanced_accuracy_score(labels, hard[0]), abs=SAME)


@given(seeds, types)
@settings(max_examples=20, deadline=None)
def test_errors_by_their_definitions(seed, dtype):
    rows, labels = world(seed, dtype=dtype)
    kernel = won(rows, labels)
    v1, v0 = kernel.mean(2), kernel.mean(1)
    expected = np.sqrt(v1.var(1, ddof=1) / v1.shape[1] + v0.var(1, ddof=1) / v0.shape[1])
    np.testing.assert_allclose(placed(rows, layout(labels)).error, expected, atol=FLOAT64)


def test_the_null_error_is_the_spread_of_shuffled_labels():
    rows, labels = world(4, items=60)
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], 20)
    for codes in (None, strata):
        groups = np.zeros(60, int) if codes is None else codes
        drawn = []
        for _ in range(2000):
            shuffled = np.empty(60, bool)
            shuffled[np.lexsort((rng.random(60), groups))] = labels[np.argsort(groups, kind="stable")]
            drawn.append(areas(rows, layout(shuffled, strata=codes)))
        np.testing.assert_allclose(placed(rows, layout(labels, strata=codes)).null_error, np.std(drawn, 0), rtol=0.06)


@given(seeds, types, st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_strata_pool_their_own_pairs(seed, dtype, count):
    rows, labels = world(seed, dtype=dtype, items=80)
    strata = np.random.default_rng(seed).integers(0, count, 80) * 100
    found = placed(rows, layout(labels, strata=strata))
    weight, total, error, null, pairs = 0, 0, 0, 0, labels.sum() * (~labels).sum()
    for s in np.unique(strata):
        inside = strata == s
        n1, n0 = labels[inside].sum(), (~labels)[inside].sum()
        if min(n1, n0) == 0:
            continue
        alone = (n1 + n0 + 1) / (12 * n1 * n0)  # a class of one item has no variance of its own
        own = placed(rows[:, inside], layout(labels[inside])) if min(n1, n0) > 1 else None
        area = areas(rows[:, inside], layout(labels[inside]))
        weight, total = weight + n1 * n0, total + n1 * n0 * area
        error = error + (n1 * n0) ** 2 * (alone if own is None else own.error**2)
        null = None if own is None or null is None else null + (n1 * n0) ** 2 * own.null_error**2
    np.testing.assert_allclose(found.area, total / weight, atol=SAME)
    np.testing.assert_allclose(found.error, np.sqrt(error) / weight, atol=FLOAT64)
    assert layout(labels, strata=strata).share == pytest.approx(weight / pairs, abs=SAME)
    if null is not None:
        np.testing.assert_allclose(found.null_error, np.sqrt(null) / weight, atol=FLOAT64)


def test_chunks_memory_maps_and_subsets_change_nothing(tmp_path, monkeypatch):
    rows, labels = world(3, units=40, dtype=np.float16)
    whole = placed(rows, layout(labels))
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr(placements, "CHUNK", 120)
    monkeypatch.setattr(placements, "READ", 400)
    for matrix in (np.load(tmp_path / "rows.npy", mmap_mode="r"), torch.tensor(rows)):
        for a, b in zip(placed(matrix, layout(labels)), whole, strict=True):
            np.testing.assert_array_equal(a, b)
    some = np.arange(0, 50, 2)
    np.testing.assert_array_equal(areas(rows, layout(labels, items=some)), areas(rows[:, some], layout(labels[some])))


@given(st.lists(st.floats(-6e4, 6e4, width=16), min_size=2, max_size=30), st.sampled_from(FLOATS))
@settings(max_examples=40, deadline=None)
def test_codes_keep_order_and_ties(values, dtype):
    x = torch.tensor(values, dtype=dtype)
    codes, wide = ordered_codes(x).astype(float), x.double().numpy()
    np.testing.assert_array_equal(np.sign(codes[:, None] - codes), np.sign(wide[:, None] - wide))


@given(seeds, st.sampled_from([torch.float16, torch.bfloat16]), st.integers(1, 49))
@settings(max_examples=8, deadline=None)
def test_code_counts_are_exact_and_shards_merge(seed, dtype, cut):
    rows, labels = world(seed, dtype=np.float64)
    x, y = torch.tensor(rows).to(dtype), torch.tensor(labels)
    shards = CodeCounts(5), CodeCounts(5)
    shards[0].update(x[:, :cut].T, labels=y[:cut])
    shards[1].update(x[:, cut:].T, labels=y[cut:])
    assert isinstance(shards[0], Measure)
    found, expected = shards[1].merge(shards[0]).finish(), placed(x, layout(labels))
    for a, b in zip(found[:3], expected, strict=True):
        np.testing.assert_allclose(a, b, atol=SAME)
    np.testing.assert_allclose(found.precision, precisions(x, layout(labels)), atol=SAME)


def _nan(dtype):
    x = torch.zeros(2, 4, dtype=dtype)
    x[1, 2] = torch.nan
    return x


def _counted(*batches):
    counts = CodeCounts(1)
    for x, y in batches:
        counts.update(x, labels=y)
    return counts


HALF, BRAIN = torch.zeros(2, 1, dtype=torch.float16), torch.zeros(2, 1, dtype=torch.bfloat16)
PAIR = layout([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        *((lambda d=d: areas(_nan(d), PAIR), "units 0-1 hold 1 NaN or infinite values of 8")
          for d in FLOATS),
        (lambda: areas(np.full((1, 4), -np.inf), PAIR), "hold 4 NaN or infinite"),
        (lambda: areas(np.zeros((1, 3)), PAIR), "give \\[units, items\\] with 4 items"),
        (lambda: areas(np.zeros(4), PAIR), "shape \\[4\\]; give \\[units, items\\]"),
        (lambda: layout([1, 1, 1]), "All 3 labels are 1"),
        (lambda: layout([0, 1], strata=["a", "b"]), "None of the 2 strata holds both classes"),
        (lambda: layout([0, 1], strata=["a"]), "one label per item"),
        (lambda: placed(np.zeros((1, 3)), layout([0, 1, 1])), "Classes of 2 and 1 items have no variance"),
        (lambda: precisions(np.zeros((1, 4)), layout([0, 1, 0, 1], strata=[0, 0, 1, 1])), "within 2 strata"),
        (lambda: _counted((torch.zeros(2, 1), [0, 1])), "torch.float32 cannot be counted"),
        (lambda: _counted((HALF, [0, 1, 1])), "with 3 labels"),
        (lambda: _counted((HALF, [0, 1]), (BRAIN, [0, 1])), "of float16 met bfloat16"),
        (lambda: _counted((HALF, [1, 1])).finish(), "saw 2 items of class 1 and 0 of 0"),
        (lambda: CodeCounts(1).merge(CodeCounts(2)), "of 1 and 2 units do not merge"),
    ],
)  # fmt: skip
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
